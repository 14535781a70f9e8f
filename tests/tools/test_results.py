"""Kept results hold what the tables need; tables say what the files say; the READMEs' tables are not stale."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from distill import naming
from distill.errors import UserError
from tools import results

FACTS = {
    "command": "python small.py", "task": "SST-2", "seed": 42, "finished": True, "finished_at": "2026-01-01",
    "train_rows": 10, "rows": 30, "steps": 3, "seconds": {"student": 2.0}, "samples_per_second": {"1": 15.0},
    "resumed": 0, "peak_memory_bytes": 5, "real_token_share": 0.9, "versions": {}, "hardware": {},
    "epochs": {"1": {"rows": 30, "seconds": 4.0, "teacher_seconds": 1.0}},
}  # fmt: skip
EVALUATION = {
    "accuracy": 0.75, "MCC": 0.5, "precision": 0.5, "recall": 0.5, "f_1": None, "modelSize": "1.00 MB", "rows": 8,
    "metric": "accuracy", "parameters": 250_000, "bytes": 1_000_000, "latency_ms": {"p50": 2.0}, "seed": 42,
    "samples_per_second": 9.0,
}  # fmt: skip


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """kept(name, accuracy, ms, **facts): keep a made-up run of that score; returns what was kept."""
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)

    def keep(name, accuracy, **changes):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True, exist_ok=True)
        (run / "run.json").write_text(json.dumps(FACTS | changes))
        (run / "results_eval.json").write_text(json.dumps(EVALUATION | {"accuracy": accuracy}))
        results.main(["keep", str(run), name])
        return json.loads((tmp_path / "results" / f"{name}.json").read_text())

    return keep


def test_a_finished_run_is_kept(kept, capsys):
    found = kept("one", 0.875)
    assert capsys.readouterr().out.startswith("results/one.json: accuracy 0.8750  MCC 0.5000")
    assert found["scores"] == {"accuracy": 0.875, "MCC": 0.5, "precision": 0.5, "recall": 0.5}  # none that is null
    assert found["command"] == "python small.py" and found["seed"] == 42 and found["bytes"] == 1_000_000
    assert found["training"]["real_token_share"] == 0.9 and found["training"]["teacher_share"] == {"epoch 1": 0.25}
    assert "epochs" not in found["training"]


def test_what_the_control_arms_said_is_kept(kept, tmp_path):
    assert "control" not in kept("one", 0.875)
    (tmp_path / "runs" / "two").mkdir(parents=True)
    (tmp_path / "runs" / "two" / "control.json").write_text('{"verdict": "helps"}')
    assert kept("two", 0.875)["control"] == {"verdict": "helps"}


def test_scores_by_language_and_of_the_test_sets_are_kept(kept, tmp_path, monkeypatch):
    assert "test" not in kept("one", 0.875)
    (tmp_path / "runs" / "two" / "test").mkdir(parents=True)
    scores = {"spearman": 0.5, "sts": {"en-de": {"spearman": 0.5}}, "versions": {}}
    (tmp_path / "runs" / "two" / "test" / "results_eval.json").write_text(json.dumps(scores))
    monkeypatch.delitem(FACTS, "real_token_share")
    assert kept("two", 0.875)["test"] == {"spearman": 0.5, "sts": {"en-de": {"spearman": 0.5}}}


def test_a_model_that_was_only_scored_is_kept(kept, tmp_path):
    scores = {"spearman": 0.5, "sts": {"en-de": {"spearman": 0.25}}, "metric": "spearman", "seed": None, "rows": 4}
    facts = {"command": "python test.py", "parameters": 8, "bytes": 32, "versions": {}, "hardware": {}}
    (tmp_path / "results_eval.json").write_text(json.dumps(scores | facts))
    results.main(["keep", str(tmp_path), "one"])
    found = json.loads((tmp_path / "results" / "one.json").read_text())
    assert found["test"] == {"spearman": 0.5, "sts": {"en-de": {"spearman": 0.25}}}
    assert found["command"] == "python test.py" and found["parameters"] == 8 and found["seed"] is None


def test_an_unfinished_run_is_refused(kept, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(FACTS | {"finished": False}))
    with pytest.raises(UserError, match="the run is not finished; run its command again"):
        results.main(["keep", str(run), "one"])
    with pytest.raises(UserError, match="run.json: no such file"):
        results.main(["keep", str(tmp_path), "one"])
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.parametrize("argv", [[], ["keep"], ["keep", "folder"], ["tables", "more"], ["compare"]])
def test_commands_that_do_not_exist(argv):
    with pytest.raises(UserError, match="python tools/results.py keep FOLDER NAME"):
        results.main(argv)


SPEC = {
    "head": "model",
    "scores": {"scores/accuracy": "dev accuracy", "scores/MCC": "MCC"},
    "rows": [
        {"label": "teacher", "label_zh": "教师", "runs": ["teacher"]},
        {"label": "student", "runs": ["a", "b", "c"]},
    ],
}


@pytest.fixture
def made(kept, tmp_path):
    """Four kept runs and the measurement of all of them side by side."""
    runs = {name: kept(name, accuracy) for name, accuracy in (("teacher", 0.9), ("a", 0.85), ("b", 0.86), ("c", 0.84))}
    timed = {
        runs[name]["folder"]: {"latency_ms": {"p50": ms}, "samples_per_second": rate}
        for name, ms, rate in (("teacher", 5.0, 250.0), ("a", 0.5, 4000.4))
    }
    (tmp_path / "results" / "latency_all.json").write_text(json.dumps({"models": timed}))


def test_table(made):
    assert results.table(SPEC).splitlines() == [
        "| model | dev accuracy | MCC | parameters | on disk |",
        "|---|---|---|---|---|",
        "| teacher | 90.0 | 50.0 | 0.2 M | 1 MB |",
        "| student | 85.0 (84.0 to 86.0, 3 seeds) | 50.0 (50.0 to 50.0, 3 seeds) | 0.2 M | 1 MB |",
    ]
    chinese = results.table({**SPEC, "latency": "all"}, "zh").splitlines()
    assert chinese[0] == "| 模型 | dev 准确率 | MCC | 参数量 | 磁盘占用 | 每条毫秒 | 加速 | 批量每秒条数 | 加速 |"
    assert chinese[2] == "| 教师 | 90.0 | 50.0 | 0.2 M | 1 MB | 5.00 | 1.0x | 250 | 1.0x |"
    assert chinese[3].endswith("| 0.50 | 10.0x | 4,000 | 16.0x |")


def test_what_the_teacher_gave_beside_the_scores(made, tmp_path):
    path = tmp_path / "results" / "a.json"
    control = {"mean": 0.0252, "low": -0.0034, "high": 0.047, "verdict": "no evidence"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"control": control}))
    teacher, student = results.table(SPEC | {"control": True}).splitlines()[2:]
    assert teacher == "| teacher | 90.0 | 50.0 |  | 0.2 M | 1 MB |"
    assert "| +2.5 (-0.3 to +4.7): no evidence | 0.2 M |" in student


def test_a_comparison_is_a_table_too(made, tmp_path):
    golden = Path(__file__).parents[1] / "golden"
    shutil.copy(golden / "published_table.json", tmp_path / "results")
    expected = (golden / "published_table.md").read_text(encoding="utf-8")
    assert results.table({"comparison": "published_table"}) + "\n" == expected


def test_sentences_with_figures(made):
    line = {
        "file": "a",
        "en": "{scores[accuracy]:.0%} of {dev_rows} rows",
        "zh": "{dev_rows} 条中的 {scores[accuracy]:.0%}",
    }
    assert results.table({"lines": [line, line]}) == "- 85% of 8 rows\n- 85% of 8 rows"
    assert results.table({"lines": [line]}, "zh") == "- 8 条中的 85%"
    assert results.table({**SPEC, "lines": [line]}) == results.table(SPEC) + "\n\n- 85% of 8 rows"


def test_what_is_not_measured_says_so():
    assert results.table(None) == "*Not measured yet.*"


def test_tables_are_written_into_the_documents(made, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "READMES", ("README.md",))
    (tmp_path / "results" / "tables.yaml").write_text(yaml.safe_dump({"all": SPEC}, sort_keys=False))
    page = tmp_path / "README.md"
    page.write_text("Before.\n<!-- table all -->\nold\n<!-- end -->\nAfter.\n<!-- end -->\n")
    results.main(["tables"])
    expected = f"Before.\n<!-- table all -->\n{results.table(SPEC)}\n<!-- end -->\nAfter.\n<!-- end -->\n"
    assert page.read_text() == expected == results.filled(expected, {"all": SPEC})
    page.write_text("<!-- table none -->\n<!-- end -->\n")
    with pytest.raises(UserError, match="no table `none`"):
        results.main(["tables"])


@pytest.mark.parametrize("name", results.READMES)
def test_no_table_is_stale(name):
    path = results.ROOT / name
    specs = yaml.safe_load((results.RESULTS / "tables.yaml").read_text(encoding="utf-8")) or {}
    text = path.read_text(encoding="utf-8")
    assert results.filled(text, specs, "zh" if path.stem.endswith("_zh") else "en") == text, "run `make results`"


@pytest.mark.parametrize("path", sorted(naming.ROOT.glob("results/*.json")), ids=lambda path: path.stem)
def test_a_kept_command_starts_a_script_of_the_project(path):
    python, script, *_ = shlex.split(json.loads(path.read_text(encoding="utf-8"))["command"])
    assert python == "python" and not Path(script).is_absolute() and (naming.ROOT / script).is_file()
