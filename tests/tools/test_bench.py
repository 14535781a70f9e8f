"""The bench times each side in processes of its own that take turns, and writes what it found as table and picture."""

import csv
import json
import subprocess
import time
from pathlib import Path

import pytest

from distill.errors import UserError
from tests.tiny import make_bert_folder
from tests.tools.test_predict import make_bundle
from tools import bench

TEXTS = [["a good film"], ["the plot was dull and weak ."], ["bad"]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("models") / "bert", ("neg", "pos"), layers=1)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for (text,) in TEXTS))
    return str(tmp_path / "texts.txt")


def test_a_model_beside_a_bundle(bert, texts, tmp_path, capsys):
    """Real processes: paddle's and one without it."""
    small = make_bundle(tmp_path / "bundle")
    found = bench.main(
        [
            str(bert), str(small), "--texts", texts, "--runtimes", "dygraph", "--threads", "1", "--batch_sizes", "1",
            "4", "--rounds", "1", "--seconds", "0.02", "--output", str(tmp_path / "out" / "bench"),
        ]
    )  # fmt: skip
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == found and not found["refused"]
    assert [(row["model"], row["runtime"], row["threads"], row["batch"]) for row in found["rows"]] == [
        ("bert", "dygraph", 1, 1), ("bert", "dygraph", 1, 4), ("bundle", "bundle", 1, 1), ("bundle", "bundle", 1, 4)
    ]  # fmt: skip
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] < 1000 * row["cold_seconds"]
        assert row["calls"] >= 5
    of_bert, of_bundle = found["rows"][0], found["rows"][2]
    assert of_bert["disk_mb"] == (bert / "model.safetensors").stat().st_size / 1e6
    assert of_bundle["disk_mb"] == (small / "model.onnx").stat().st_size / 1e6
    assert of_bundle["memory_mb"] < of_bert["memory_mb"]  # it has no paddle in it
    assert found["texts"] == {"file": "texts.txt", "used": 3, "characters": {"median": 11, "longest": 28}}
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "bench.md").read_text() == printed
    with open(tmp_path / "out" / "bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p99_ms"]) for row in rows] == [row["p99_ms"] for row in found["rows"]]
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["dygraph", "paddle_inference", "onnxruntime"])
def test_what_a_process_measures(kind, bert, tmp_path, monkeypatch):
    """All texts are used in turn, whatever the batch size, and the first calls of each size are not counted."""
    folder = make_bundle(tmp_path / "bundle") if kind == "onnxruntime" else bert
    (tmp_path / "rows.json").write_text(json.dumps(TEXTS))
    seen, real = [], bench.opened

    def watched(task):
        answer, size = real(task)

        def answering(rows):
            seen.append([row[0] for row in rows])
            found = answer(rows)
            assert [list(one) for one in found] == [["label", "score", "probabilities"]] * len(rows)
            return found

        return answering, size

    monkeypatch.setattr(bench, "opened", watched)
    task = {"runtime": kind, "folder": str(folder), "threads": 1, "batch_sizes": [1, 2], "seconds": 1e-6}
    task |= {"max_length": 64, "rows": str(tmp_path / "rows.json"), "started": time.time() - 100}
    found = bench.measure(task)
    first, second, third = (text for (text,) in TEXTS)
    alone = [[first], [second], [third]] * 3
    two = [[first, second], [third, first], [second, third]] * 3
    assert seen == [[first], *alone[:8], *two[:8]]
    assert {size: len(taken) for size, taken in found["milliseconds"].items()} == {1: 5, 2: 5}
    assert 100 < found["cold_seconds"] < 160 and found["memory_bytes"] > 1e6


def test_all_take_turns(tmp_path, monkeypatch):
    """Each round begins with another process; the figures are those of all rounds."""
    sides, order = [bench.Side(name, "dygraph", name, 64) for name in "abc"], []

    def alone(side, threads, args, rows):
        order.append((side.model, threads))
        taken = {"a": 10.0, "b": 5.0, "c": 1.0}[side.model] + len(order) // 6
        return {
            "cold_seconds": float(len(order)), "milliseconds": {"1": [taken] * 10, "8": [2 * taken]},
            "memory_bytes": 1e6 * len(order), "disk_bytes": 5e6,
        }  # fmt: skip

    monkeypatch.setattr(bench, "alone", alone)
    args = bench.BenchArgs(rounds=3)
    measured, failed = bench.in_turn([(side, number) for number in (1, 2) for side in sides], args, tmp_path)
    every = [(name, number) for number in (1, 2) for name in "abc"]
    assert order == every + every[2:] + every[:2] + every[4:] + every[:4] and not failed
    rows = bench.summary(sides[0], 1, measured[sides[0], 1])
    assert [row["batch"] for row in rows] == [1, 8] and rows[0]["calls"] == 30
    times = [10.0, 11.0, 12.0]  # it was the 1st, 11th and 15th process
    assert rows[0]["p50_ms"] == times[1] and rows[0]["texts_per_second"] == pytest.approx(1000 / 11)
    assert rows[1]["texts_per_second"] == pytest.approx(8000 / 22)
    assert (rows[0]["cold_seconds"], rows[0]["memory_mb"], rows[0]["disk_mb"]) == (11.0, 15.0, 5.0)


def test_a_side_that_fails_is_left_out_and_named(bert, texts, tmp_path, monkeypatch, capsys):
    def alone(side, threads, args, rows):
        if side.runtime == "paddle_inference":
            raise UserError("it has no graph")
        return {"cold_seconds": 1.0, "milliseconds": {"1": [2.0]}, "memory_bytes": 1, "disk_bytes": 1}

    def export(folder, target, variant, texts, max_length):
        return "not one matrix product was quantised" if variant == "int8" else None

    monkeypatch.setattr(bench, "alone", alone)
    monkeypatch.setattr(bench, "export", export)
    output = ["--output", str(tmp_path / "out")]
    found = bench.main([str(bert), "--texts", texts, "--threads", "1", "--rounds", "2", *output])
    assert [row["runtime"] for row in found["rows"]] == ["dygraph", "onnxruntime"]
    assert found["refused"] == {
        "bert, int8": "not one matrix product was quantised",
        "bert, paddle_inference, 1 threads": "it has no graph",
    }
    assert "*Not timed: bert, int8: not one matrix product was quantised.*" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing is left to time: not one matrix product"):
        bench.main([str(bert), "--texts", texts, "--runtimes", "int8", *output])


def test_bundles_of_models_are_made_by_export(bert, tmp_path, monkeypatch):
    """The command that is run is one that export.py takes; its last line says why there is none."""
    from tools import export

    taken = []

    def run(command, **_):
        monkeypatch.setattr("sys.argv", command[1:])
        args = export.parse(export.ExportArgs, command[2:])
        taken.append((Path(command[1]), args.folder, args.output_dir, args.variant, args.max_seq_length))
        assert Path(args.rows).read_text() == "a film\tof two lines\n"
        return subprocess.CompletedProcess(command, len(taken) - 1, "", "warning\nerror: hop onnx -> int8: too far\n")

    monkeypatch.setattr(subprocess, "run", run)
    rows = [["a film", "of two\nlines"]]
    assert bench.export(str(bert), tmp_path / "made", "fp32", rows, None) is None
    assert bench.export(str(bert), tmp_path / "made", "int8", rows, 32) == "hop onnx -> int8: too far"
    assert taken == [
        (Path(export.__file__), str(bert), str(tmp_path / "made"), variant, length)
        for variant, length in (("fp32", None), ("int8", 32))
    ]


def test_the_table():
    def row(model, kind, threads, batch, p50):
        figures = {"p50_ms": p50, "p95_ms": p50 + 1, "p99_ms": p50 + 2, "calls": 9, "texts_per_second": 1234.4}
        figures |= {"cold_seconds": 5.04, "memory_mb": 900.4, "disk_mb": 57.46}
        return {"model": model, "runtime": kind, "threads": threads, "batch": batch, **figures}

    result = {
        "rows": [row("teacher", "dygraph", 1, 1, 20.0), row("student", "int8", 1, 1, 4.0),
                 row("teacher", "dygraph", 2, 1, 10.0), row("student", "int8", 2, 1, 2.5)],
        "refused": {}, "rounds": 3, "hardware": {"processor": "a CPU"},
        "texts": {"file": "t.txt", "used": 7, "characters": {"median": 11.5, "longest": 28}},
    }  # fmt: skip
    lines = bench.markdown(result).splitlines()
    assert lines[2] == "| teacher | dygraph | 1 | 1 | 20.00 | 21.00 | 22.00 | 1234 | 1.0× | 5.0 | 900 | 57.5 |"
    assert [line.split(" | ")[8] for line in lines[2:6]] == ["1.0×", "5.0×", "1.0×", "4.0×"]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:6])
    assert "7 texts of t.txt (median 11.5 characters), 3 processes each, in turn, on a CPU." in lines[7]


def test_texts_are_spread_over_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("review,id\n" + "".join(f"text {i},{i}\n" for i in range(10)))
    args = bench.BenchArgs(texts=str(tmp_path / "a.csv"), text_column="review", max_texts=4)
    assert bench.load_texts(args) == [["text 0"], ["text 2"], ["text 5"], ["text 7"]]
    args.max_texts = 100
    assert len(bench.load_texts(args)) == 10


def test_refusals(bert, texts, tmp_path):
    for argv, expected in (
        ([str(bert)], "give folders and --texts"),
        ([str(bert), "--texts", str(tmp_path / "none.txt")], "none.txt: no such file"),
        ([str(bert), str(bert), "--texts", texts], "a folder is given twice"),
        ([str(tmp_path / "none"), "--texts", texts], "none: no such folder"),
        ([str(bert), "--texts", texts, "--runtimes", "torch"], "--runtimes torch: must be one of dygraph, paddle_inf"),
        ([str(bert), "--texts", texts, "--threads", "0"], "--threads 0: must be at least 1"),
        ([str(bert), "--texts", texts, "--batch_sizes", "8", "-1"], "--batch_sizes -1: must be at least 1"),
        ([str(bert), "--texts", texts, "--seconds", "0"], "--seconds 0.0: must be above 0"),
    ):
        with pytest.raises(UserError, match=expected):
            bench.main([*argv, "--output", str(tmp_path / "out")])
    assert not list(tmp_path.glob("out*"))


def test_a_place_that_cannot_be_written_is_said_before_anything_is_timed(bert, texts, monkeypatch):
    monkeypatch.setattr(bench, "open_sides", None)  # not reached
    with pytest.raises(UserError, match=r"texts\.txt: cannot be written"):
        bench.main([str(bert), "--texts", texts, "--output", f"{texts}/bench"])


def test_a_process_that_fails_says_why_in_one_line(tmp_path):
    side = bench.Side("x", "bundle", str(tmp_path), 64)
    (tmp_path / "rows.json").write_text(json.dumps(TEXTS))
    with pytest.raises(UserError) as error:
        bench.alone(side, 1, bench.BenchArgs(), tmp_path / "rows.json")
    assert str(error.value).startswith(f"{tmp_path / 'settings.json'}: cannot be read")


def test_names_of_folders():
    assert bench.called(["x/run", "y/best"]) == ["run", "best"]
    assert bench.called(["x/a/run", "y/b/run", "z/b/best"]) == ["a/run", "b/run", "b/best"]
