"""The published table from fixed results, and a comparison of tiny models from end to end."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from distill.data.tasks import get_task, load_rows
from distill.data.wordpiece import WordPiece
from distill.evaluation.predictions import Predictions, save_predictions
from distill.options import TaskOptions
from models import bilstm
from tests.recipes.runs import refused
from tests.tiny import make_bert_folder, make_glue_data
from tools import compare
from tools.comparison import finished

GOLDEN = Path(__file__).parents[1] / "golden"


# The published table


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder in which the fixed results were written out again."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(GOLDEN / "published_table.json", folder)
    compare.main([str(folder / "published_table.json")])
    return folder


@pytest.mark.parametrize("suffix", ["md", "csv", "html"])
def test_the_published_table(published, suffix):
    name = f"published_table.{suffix}"
    assert (published / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_golden_table_is_the_published_one():
    """Sizes, times and scores of the original document; its ratios, which it cut to one digit, are rounded here."""
    lines = (GOLDEN / "published_table.md").read_text(encoding="utf-8").splitlines()
    cells = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert "| 4 | 312 | 1200 | 14.5M (7.6×) | 0.81s (5.0×) |" in cells["KD"]
    assert "| 80.8% | 80.6% | 68.3% | 54.2% | 12.0% |" in cells["KD"]
    assert "| 1 | 300 | 400 | 15.3M (7.2×) | 0.83s (4.9×) |" in cells["Distilled-BiLSTM"]
    assert "| 3 | 768 | 3072 | 45.7M (2.4×) | 1.69s (2.4×) |" in cells["BERT-PKD"]
    assert "| 14.5M (7.6×) | 0.65s (6.2×) |" in cells["TinyBERT"]
    assert "| 110M (1×) | 4.04s (1×) |" in cells["BERT_base (Teacher)"]
    assert cells["BERT-of-Theseus"].endswith("| 87.2% | 88.3% | 71.8% | 55.7% |  |")
    html = (GOLDEN / "published_table.html").read_text(encoding="utf-8")
    assert html.count('<td rowspan="5">') == 6 * (1 + 5)


def test_the_picture_has_a_point_for_each_timed_model(published):
    from matplotlib import image

    assert sorted(path.suffix for path in published.iterdir()) == [".csv", ".html", ".json", ".md", ".png"]
    picture = image.imread(published / "published_table.png")
    colours = {tuple(colour) for colour in (255 * picture[..., :3]).astype(int).reshape(-1, 3)}
    first_six = {(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75)}
    assert picture.shape[1] > 900 and first_six <= colours and (227, 119, 194) not in colours


def test_the_chinese_table():
    result = json.loads((GOLDEN / "published_table.json").read_text(encoding="utf-8"))
    result["models"][2]["label_zh"] = "知识蒸馏"
    lines = compare.markdown(result, "zh").splitlines()
    assert lines[0].startswith("| 模型 | 层数 |") and lines[4].startswith("| 知识蒸馏 | 4 |")
    assert "BERT-PKD，仅标签" in lines[7] and lines[-1].endswith("（+9.8 至 +19.0）：有帮助*")


# Tiny models from end to end


def add_run(folder, logits, labels, task, parameters=None):
    """What a run leaves beside its model."""
    accuracy = float((logits.argmax(1) == labels).mean())
    save_predictions(folder, {"dev": Predictions(logits.astype(np.float32), labels)})
    values = {"accuracy": accuracy, "metric": get_task(task).metric, "parameters": parameters or 1000}
    (folder / "results_eval.json").write_text(json.dumps(values))
    return accuracy


def right(n, labels):
    """Logits of which the first n rows are right."""
    return np.eye(2)[np.where(np.arange(len(labels)) < n, labels, 1 - labels)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """data: SST-2 with 200 dev rows; teacher, deep and wide (BERTs) and lstm with made-up predictions; a YAML."""
    home = tmp_path_factory.mktemp("compare")
    make_glue_data(home / "data", "SST-2", rows=400)
    labels = np.arange(200) % 2
    make_bert_folder(home / "teacher", layers=3)
    add_run(home / "teacher", right(190, labels), labels, "SST-2", 30_000)
    make_bert_folder(home / "wide", layers=1)
    add_run(home / "wide", right(180, labels), labels, "SST-2", 20_000)
    for seed, n in ((43, 184), (44, 176)):
        (home / "wide" / "control" / f"distilled_seed-{seed}").mkdir(parents=True)
        add_run(home / "wide" / "control" / f"distilled_seed-{seed}", right(n, labels), labels, "SST-2")
    for seed, n in ((42, 120), (43, 124), (44, 116)):
        (home / "wide" / "control" / f"alone_seed-{seed}").mkdir(parents=True)
        add_run(home / "wide" / "control" / f"alone_seed-{seed}", right(n, labels), labels, "SST-2")
    vocabulary = WordPiece.from_folder(home / "teacher")
    model = bilstm.create(bilstm.BiLSTMConfig(vocabulary.size, ("0", "1"), False, 4, 3, max_length=16), 0)
    (home / "lstm").mkdir()
    bilstm.save_student(home / "lstm", model, bilstm.Reader(vocabulary, "en", 16))
    add_run(home / "lstm", right(179, labels), labels, "SST-2", 10_000)
    shutil.copytree(home / "lstm", home / "worse")
    add_run(home / "worse", right(100, labels), labels, "SST-2", 10_000)
    models = [
        {"label": "reported", "scores": {"SST-2": 0.95, "mrpc": 0.9}},
        {"label": "teacher", "runs": {"sst-2": str(home / "teacher")}},
        {"label": "wide", "runs": {"SST-2": str(home / "wide")}},
        {"label": "BiLSTM", "runs": {"SST-2": str(home / "lstm")}},
        {"label": "worse", "runs": {"SST-2": str(home / "worse")}},
    ]
    (home / "three.yaml").write_text(yaml.safe_dump({"models": models}))
    return home


@pytest.fixture
def flags(home, tmp_path):
    def of(*more):
        data = ("--task_name", "sst-2", "--data_dir", home / "data", "--output_dir", tmp_path, "--rounds", 1)
        return [str(word) for word in (*more, *data)]

    return of


@pytest.fixture
def clock(monkeypatch):
    """side_by_side without a clock: 100 rows a second times the models' number; notes what it was asked."""
    asked = []

    def side_by_side(folders, rows, rounds, batch_size, max_length):
        asked.append((list(folders), len(rows)))
        return {
            folder: {"latency_ms": {"p50": 10.0 / number}, "samples_per_second": 100.0 * number}
            for number, folder in enumerate(folders, start=1)
        }

    monkeypatch.setattr("tools.latency.side_by_side", side_by_side)
    return asked


def test_a_comparison(home, flags, clock, tmp_path, capsys):
    result = compare.main(flags(home / "three.yaml"))
    # All models are timed in one call, on the same rows.
    assert clock == [([str(home / name) for name in ("teacher", "wide", "lstm", "worse")], 200)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"three.{x}" for x in ("csv", "html", "json", "md", "png")
    ]
    assert json.loads((tmp_path / "three.json").read_text()) == result
    lines = (tmp_path / "three.md").read_text(encoding="utf-8").splitlines()
    assert lines[2:8] == [
        "| reported |  |  |  |  |  |  | 95.0% | 90.0% |",
        "| teacher | 3 | 32 | 64 | 0.03M (1×) | 2.00s (1×) | 10.00 | 95.0% |  |",
        "| wide | 1 | 32 | 64 | 0.02M (1.5×) | 1.00s (2.0×) | 5.00 | **90.0%** (88.0 to 92.0, 3 seeds) |  |",
        "| wide, labels alone |  |  |  |  |  |  | 60.0% (58.0 to 62.0, 3 seeds) |  |",
        "| BiLSTM | 1 | 3 | 3 | 0.01M (3.0×) | 0.67s (3.0×) | 3.33 | 89.5% ≈ |  |",
        "| worse | 1 | 3 | 3 | 0.01M (3.0×) | 0.50s (4.0×) | 2.50 | 50.0% |  |",
    ]
    assert lines[-1].startswith("*wide, SST-2, with the teacher less alone: +30.0 points (") and ": helps" in lines[-1]
    assert capsys.readouterr().out.splitlines()[0] == lines[0]
    table = list(csv.DictReader((tmp_path / "three.csv").open(encoding="utf-8")))
    assert [(row["model"], row["SST-2 mean"], row["SST-2 mark"]) for row in table[2:]] == [
        ("wide", "0.9", "best"), ("wide, labels alone", "0.6", ""), ("BiLSTM", "0.895", "tie"), ("worse", "0.5", ""),
    ]  # fmt: skip


def test_control_arms_of_other_seeds_are_left_out_and_it_is_said(home, flags, clock, tmp_path, capsys):
    wide = shutil.copytree(home / "wide", tmp_path / "fewer")
    shutil.rmtree(wide / "control" / "alone_seed-43")
    result = compare.main(flags("--folders", home / "teacher", wide))
    assert "control" not in result["models"][1]["scores"]["SST-2"]
    assert f"{wide}: 3 seeds and 2 control arms, which are left out; train the missing" in capsys.readouterr().out
    compare.main(flags("--folders", home / "teacher", home / "wide"))
    assert "left out" not in capsys.readouterr().out


def test_folders_are_called_by_what_tells_them_apart(home, flags, clock, tmp_path):
    result = compare.main(flags("--folders", home / "teacher", home / "lstm", "--name", "two"))
    assert [row["label"] for row in result["models"]] == ["teacher", "lstm"] and (tmp_path / "two.png").is_file()
    names = finished.of_folders(["kd/SST-2/one", "pkd/SST-2/one"], "SST-2")
    assert [model["label"] for model in names] == ["kd/SST-2/one", "pkd/SST-2/one"]


@pytest.mark.parametrize("by", ["yaml", "folders"])
def test_own_data(by, home, clock, tmp_path):
    runs = [str(home / name) for name in ("teacher", "wide", "lstm")]
    source = ["--folders", *runs]
    if by == "yaml":
        models = [{"label": Path(folder).name, "runs": {"own": folder}} for folder in runs]
        models.append({"label": "reported", "scores": {"own": 0.5, "mrpc": 0.9}})
        source = [str(write(tmp_path / "m.yaml", models))]
    data = [f"--{split}_file={home / 'data' / 'SST-2' / split}.tsv" for split in ("train", "dev")]
    result = compare.main([*source, *data, "--rounds", "1", "--output_dir", str(tmp_path)])
    assert clock == [(runs, 200)] and result["timed"]["task"] == "own"
    teacher, wide, lstm, *reported = (row["scores"] for row in result["models"])
    assert (teacher["own"]["mean"], wide["own"]["mean"], lstm["own"]["mean"]) == (0.95, 0.9, 0.895)
    assert wide["own"]["best"] and lstm["own"]["tie"] and wide["own"]["control"]["verdict"] == "helps"
    assert reported == ([{"own": {"mean": 0.5}, "MRPC": {"mean": 0.9}}] if by == "yaml" else [])


def test_own_data_needs_its_rows(home, flags, tmp_path):
    path = write(tmp_path / "m.yaml", [{"label": "a", "runs": {"own": str(home / "teacher")}}])
    assert "own: unknown; " in (line := refused(compare.main, flags(path), tmp_path))
    assert line.endswith("or give your own rows with --train_file")


def test_real_times(home, flags):
    result = compare.main(flags("--folders", home / "lstm", home / "worse"))
    for row in result["models"]:
        assert 0 < row["latency_ms"] < 1000 and 0 < row["seconds"] < 10


def write(path, models):
    path.write_text(yaml.safe_dump({"models": models}))
    return path


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([{"label": "a"}], "model 1: it has a label, and runs or scores"),
        ([{"label": "a", "runs": {}, "colour": 1}], "model 1: it has a label, and runs or scores"),
        (["a"], "model 1: it has a label"),
        ([{"label": "a", "runs": {}}] * 2, "model 2: `a` is there twice"),
        ([{"label": "a", "runs": {"SST2-2": "x"}}], "SST2-2: unknown; known are CoLA"),
        ([{"label": "a", "scores": {"SST-2": 0.5}}], "--task_name SST-2: no model has a run for it to be timed"),
        ([], "no models in it"),
        ([{"label": "a", "runs": None}], "--task_name SST-2: no model has a run for it to be timed"),
        ([{"label": "a", "runs": "SST-2"}], "model 1: `runs` is {task: folder}"),
        ([{"label": "a", "runs": {"SST-2": 3}}], "model 1: `runs` is {task: folder}"),
        ([{"label": "a", "scores": {"SST-2": "92.7%"}}], "model 1: `scores` is {task: a share of 1, such as 0.927}"),
        ([{"label": "a", "scores": {"SST-2": 92.7}}], "model 1: `scores` is {task: a share of 1, such as 0.927}"),
        ([{"label": 1, "runs": {}}, {"label": "1", "runs": {}}], "model 2: `1` is there twice"),
    ],
)
def test_lists_that_do_not_fit(models, expected, flags, tmp_path):
    assert expected in refused(compare.main, flags(write(tmp_path / "m.yaml", models)), tmp_path)


def test_refusals(home, flags, tmp_path):
    (tmp_path / "broken.yaml").write_text("models: [\n")
    (tmp_path / "other.json").write_text('{"models": {"a": {}}, "hardware": {}}')  # as tools/latency.py writes it
    bare = make_bert_folder(tmp_path / "bare", layers=1)
    other = shutil.copytree(home / "lstm", tmp_path / "other")
    (other / "run.json").write_text('{"task": "MNLI"}')
    for more, expected in (
        ((), "give a YAML of the models, or --folders"),
        ((tmp_path / "none.yaml",), "none.yaml: no such file"),
        ((tmp_path / "broken.yaml",), "broken.yaml:2: expected `models:`"),
        ((tmp_path / "other.json",), "other.json: not a comparison"),
        (("--folders", home / "lstm", home / "lstm"), "--folders: a folder is given twice"),
        (("--folders", home / "lstm", bare), "results_eval.json: no such file; evaluate the model first"),
        (("--folders", home / "lstm", other), "other: a run for MNLI, not for SST-2; name that of SST-2, or pass"),
    ):
        assert expected in refused(compare.main, flags(*more), tmp_path)


def test_files_of_others_are_not_replaced(home, flags, clock, tmp_path):
    """By a table that has their name, such as the training file beside a YAML."""
    models = write(tmp_path / "train.yaml", [{"label": "a", "runs": {"SST-2": str(home / "lstm")}}])
    argv = [*flags(models), "--output_dir", str(tmp_path)]
    (tmp_path / "train.csv").write_text("mine")
    assert "train.csv: would be replaced, and is of no comparison; choose another" in refused(
        compare.main, argv, tmp_path
    )
    (tmp_path / "train.csv").unlink()
    for _ in range(2):  # its own it replaces
        compare.main(argv)
    assert (tmp_path / "train.csv").read_text().startswith("model,")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_timed(home, flags, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.comparison.finished.time_them", None)  # not reached
    (tmp_path / "file").write_text("")
    argv = [*flags("--folders", home / "lstm"), "--output_dir", str(tmp_path / "file")]
    assert "file: cannot be written" in refused(compare.main, argv, tmp_path)


@pytest.mark.parametrize(
    ("split", "rows", "expected"),
    [
        ("dev_matched", 200, "its predictions are of dev_matched, not of SST-2's dev; evaluate it again"),
        ("dev", 199, "was scored on other rows than {}/dev.tsv; evaluate it again"),
    ],
)
def test_scores_of_other_rows_are_refused(split, rows, expected, home, flags, tmp_path):
    shutil.copytree(home / "worse", tmp_path / "other")
    labels = np.arange(rows) % 2
    save_predictions(tmp_path / "other", {split: Predictions(right(90, labels).astype(np.float32), labels)})
    line = refused(compare.main, flags("--folders", home / "teacher", tmp_path / "other"), tmp_path)
    assert line == f"{tmp_path / 'other'}: " + expected.format(home / "data" / "SST-2")


def test_scores_of_the_same_regression_rows_are_taken(clock, tmp_path):
    data = TaskOptions(task_name="STS-B", data_dir=str(make_glue_data(tmp_path, "STS-B")))
    task = get_task("STS-B")
    labels = load_rows(data, task, "dev").labels
    save_predictions(tmp_path / "run", {"dev": Predictions(labels[:, None], labels)})
    (tmp_path / "run" / "results_eval.json").write_text("{}")
    models = finished.of_folders([str(tmp_path / "run")], "STS-B")
    assert finished.time_them(models, task, data, 1, 8)["rows"] == len(labels) == 32


def test_arms_are_paired_by_seed_whatever_its_digits(tmp_path):
    for name in (
        "distilled_seed-9",
        "distilled_seed-10",
        "alone_seed-8",
        "alone_seed-9",
        "alone_seed-10",
        "alone_seed-9.bak",
    ):
        (tmp_path / "control" / name).mkdir(parents=True)
    distilled, alone = finished.arms(tmp_path)
    assert [path.name for path in distilled[1:]] == ["distilled_seed-9", "distilled_seed-10"]
    assert [path.name for path in alone] == ["alone_seed-8", "alone_seed-9", "alone_seed-10"]
