"""A whole comparison on tiny models: every method, killed once and continued; its refusals and its exit status.

Recipes run in this process, except where the process is what is tested: importing paddle again and again would take
most of the time.
"""

import importlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from distill.data.pairs import PairLayout
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert
from distill.errors import UserError
from distill.evaluation.predictions import load_predictions
from distill.naming import ROOT
from distill.teachers.teacher import BertForPairs, save_pair_bert
from tests.recipes.runs import no_clock, read, refused
from tests.tiny import keep_one_token_type, make_bert_folder, make_glue_data
from tools import compare
from tools.comparison import plan as planned
from tools.comparison import students

METHODS = ["kd", "distill_lstm", "tinybert", "pkd", "theseus", "virt"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """data: MRPC and STS-B; teacher: 4 random layers; pairs: the same as a teacher of pairs."""
    home = tmp_path_factory.mktemp("comparison")
    for task in ("MRPC", "STS-B"):
        make_glue_data(home / "data", task, rows=48)
    folder = make_bert_folder(home / "teacher", layers=4)
    bert = load_bert(folder)
    wordpiece = WordPiece.from_folder(folder)
    save_pair_bert(BertForPairs(bert, 2), home / "pairs", wordpiece, ("0", "1"), PairLayout(16, 24))
    return home


def flags(home, out, *more):
    words = ("--data_dir", home / "data", "--teacher", home / "teacher", "--cache_dir", home / "cache")
    common = ("--task_name", "MRPC", "--max_seq_length", 32, "--skip_teacher_check", "true", "--output_dir", out)
    return [str(word) for word in (*common, *words, *more)]


@pytest.fixture(scope="module")
def patched():
    """No clocks, warm-ups of one step, and recipes in this process; notes (method, flags), and dies when told to."""
    seen, stop = [], []

    def launch(recipe, words):
        given = dict(zip(words[::2], words[1::2], strict=True))
        seen.append((recipe.name, given))
        if stop == [recipe.name, "--control" in given]:
            raise KeyboardInterrupt
        module = ".".join(recipe.script.relative_to(ROOT).with_suffix("").parts)
        importlib.import_module(module).main(list(words))

    def side_by_side(folders, rows, rounds, batch_size, max_length):
        seen.append(("timed", list(folders)))
        figures = {"p95": 20.0, "p99": 30.0, "mean": 12.0}
        return {
            folder: {"latency_ms": {"p50": 10.0 / n} | figures, "samples_per_second": 9.0 * n}
            for n, folder in enumerate(folders, start=1)
        }

    with pytest.MonkeyPatch.context() as patch:
        no_clock(patch)
        patch.setattr(planned, "launch", launch)
        patch.setattr(planned, "WARM_UP_STEPS", 1)
        patch.setattr("tools.latency.side_by_side", side_by_side)
        yield seen, stop


@pytest.fixture(scope="module")
def finished(home, patched):
    """(the result, what was launched before the kill and after it, the folder): all methods, killed in the fourth."""
    seen, stop = patched
    argv = flags(home, home / "out", "--pair_teacher", home / "pairs", "--budget_minutes", "0.002")
    stop[:] = ["pkd", True]
    with pytest.raises(KeyboardInterrupt):
        compare.main(argv)
    before = [(name, "--control" in given) for name, given in seen]
    seen.clear()
    stop.clear()
    result = compare.main(argv)
    after = [name if name == "timed" else (name, "--control" in given) for name, given in seen]
    yield result, before, after, home / "out"


def test_all_methods_and_nothing_twice(finished):
    _, before, after, _ = finished
    assert before == [*((name, False) for name in METHODS), *((name, True) for name in METHODS[:4])]
    assert after == [("pkd", True), ("theseus", True), ("virt", True), "timed"]


def test_the_result(finished, home):
    result, _, _, out = finished
    assert [row["method"] for row in result["students"]] == METHODS and result["task"] == "MRPC"
    assert [row["layers"] for row in result["students"]] == [2, 1, 2, 2, 2, 4]
    assert result["teacher"]["layers"] == 4 and result["rows"] == 24 and result["choice"] is None
    assert result["teacher"]["folder"] == str(home / "teacher")
    for row in result["students"]:
        assert row["steps"] >= 1 and row["training_minutes"] > 0 and row["minutes_in_all"] > 0
        score, control = row["score"], row["control"]
        assert score["low"] <= score["mean"] <= score["high"] and len(score["seeds"]) == 1
        assert score["mean"] == read(f"{row['folder']}/results_eval.json")["accuracy"]
        assert control["mean"] == pytest.approx(score["mean"] - control["score"]["mean"])
        assert row["to_teacher"]["mean"] == pytest.approx(score["mean"] - result["teacher"]["score"]["mean"])
        assert row["bytes"] > 0 and row["parameters"] > 0 and 0 <= row["agreement"] <= 1
    assert [row["mark"] for row in result["students"]].count("best") == 1
    assert result == read(out / "compare.json")
    assert "VIRT learns from a teacher of its own" in "\n".join(students.explanations(result))


def test_every_method_has_the_same_budget_and_its_control_arm_its_steps(finished):
    result, _, _, out = finished
    state = read(out / "plan.json")
    share = 60 * 0.002 / (2 * 1 * 6)
    assert result["plan"]["each"] == pytest.approx(share / 60)
    for name in METHODS:
        assert state["steps"][name] == max(1, int(share / state["seconds_a_step"][name]))
        for folder in (out / "students" / name, out / "students" / name / "control" / "alone_seed-42"):
            assert read(folder / "run.json")["steps"] == state["steps"][name]
    for row in result["students"]:
        assert row["steps"] == (2 if row["method"] == "tinybert" else 1) * state["steps"][row["method"]]


def test_what_is_written(finished):
    _, _, _, out = finished
    names = {path.name for path in out.iterdir()}
    tables = {f"compare.{suffix}" for suffix in ("json", "md", "csv", "html")}
    assert names == {"plan.json", "analysis.json", "cascade", "pictures", "students", "teacher", "vdl_log", *tables}
    assert {path.stem for path in (out / "cascade").iterdir()} == set(METHODS)
    assert {path.name for path in (out / "vdl_log").iterdir()} == {*METHODS, "report"}
    analysis = read(out / "analysis.json")
    for found in analysis.values():
        threshold = read(out / "cascade" / f"{found['method']}.json")["cascade_threshold"]
        assert threshold == found["cascade"]["cascade_threshold"] and 0 <= threshold <= 1
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert all(found in page for found in ("KD", "BiLSTM", "TinyBERT", "PKD", "Theseus", "VIRT"))
    teacher = {path.name for path in (out.parent / "teacher").iterdir()}
    assert "dev_predictions.tsv" not in teacher  # nobody writes into the teacher's folder


def test_the_cascade_and_flips_are_those_of_the_predictions(finished):
    result, _, _, out = finished
    analysis = read(out / "analysis.json")
    mine = load_predictions(out / "students" / "kd")["dev"]
    found = analysis["KD"]
    assert found["cascade"]["scores"][0] == pytest.approx((mine.logits.argmax(1) == mine.labels).mean())
    assert found["cascade"]["scores"][-1] == pytest.approx(result["teacher"]["score"]["mean"])
    theirs = load_predictions(out / "teacher")["dev"]
    share = (mine.logits.argmax(1) == theirs.logits.argmax(1)).mean()
    assert result["students"][0]["agreement"] == pytest.approx(share)
    lost, gained = found["flips"]["lost"], found["flips"]["gained"]
    assert (gained - lost) / 24 == pytest.approx(result["students"][0]["to_teacher"]["mean"])


def test_no_student_fits(finished, home, patched, capsys):
    """The limits are no part of what was trained: the same folder, other limits, nothing is trained again."""
    seen, _ = patched
    seen.clear()
    argv = flags(home, home / "out", "--pair_teacher", home / "pairs", "--budget_minutes", "0.002", "--name", "none")
    with pytest.raises(SystemExit) as ended:
        compare.main([*argv, "--max_mb", "0.001", "--max_p95_ms", "100"])
    assert ended.value.code == 1 and [name for name, _ in seen] == ["timed"]
    out = capsys.readouterr().out
    assert "no student fits --max_p95_ms 100, --max_mb 0.001 (--max_mb: no student keeps it)" in out
    assert read(home / "out" / "none.json")["choice"]["chosen"] is None and (home / "out" / "none.html").is_file()


def test_the_cheapest_that_fits(finished, home):
    argv = flags(home, home / "out", "--pair_teacher", home / "pairs", "--budget_minutes", "0.002", "--name", "some")
    result = compare.main([*argv, "--max_p95_ms", "100"])
    sizes = {row["label"]: row["bytes"] for row in result["students"]}
    assert result["choice"]["chosen"] == min(sizes, key=sizes.get)  # all have the same p95 here


def test_a_cascade_may_lose_half_a_point_or_as_much_as_max_drop_says(finished, home):
    result, _, _, out = finished
    teacher = result["teacher"]["score"]["mean"]
    argv = flags(home, out, "--pair_teacher", home / "pairs", "--budget_minutes", "0.002", "--max_drop", 30)
    for tolerance in (0.005, 0.3):
        for found in read(out / "analysis.json").values():
            cascade, kept = found["cascade"], read(out / "cascade" / f"{found['method']}.json")
            assert cascade["tolerance"] == kept["tolerance"] == pytest.approx(tolerance)
            assert cascade["score"] >= teacher - tolerance - 1e-9
            # No fewer questions to the teacher would do.
            for share, score in zip(cascade["shares"], cascade["scores"], strict=True):
                assert share >= cascade["teacher_share"] or score < teacher - tolerance - 1e-9
        if tolerance < 0.3:
            compare.main(argv)


def test_other_settings_need_another_folder(finished, home):
    argv = flags(home, home / "out", "--pair_teacher", home / "pairs", "--budget_minutes", "0.003")
    line = refused(compare.main, argv, home / "out")
    assert "holds another comparison (budget_minutes 0.002 there, 0.003 now)" in line


def test_regression_and_equal_steps(home, patched, tmp_path):
    make_bert_folder(tmp_path / "scorer", labels=(), layers=2)
    argv = [*flags(home, tmp_path / "out", "--task_name", "STS-B", "--teacher", tmp_path / "scorer")]
    result = compare.main([*argv, "--methods", "kd", "--max_steps", "2", "--seeds", "2"])
    (row,) = result["students"]
    assert row["steps"] == 2 and len(row["score"]["seeds"]) == 2 and result["metric"] == "pearson_spearman"
    kd = tmp_path / "out" / "students" / "kd"
    runs = (kd, kd / "control" / "distilled_seed-43")
    teacher, *both = (predicted_numbers(folder) for folder in (tmp_path / "out" / "teacher", *runs))
    assert row["agreement"] == pytest.approx(np.mean([np.corrcoef(one, teacher)[0, 1] for one in both]))
    assert read(tmp_path / "out" / "analysis.json") == {}
    assert not (tmp_path / "out" / "cascade").exists()


def predicted_numbers(folder):
    """The last column of a dev_predictions.tsv."""
    return np.loadtxt(folder / "dev_predictions.tsv", delimiter="\t", skiprows=1, usecols=3)


def test_a_recipe_that_fails_is_named_with_its_command(home, tmp_path):
    """In a process of its own: its one line, its status, and ours."""
    argv = flags(home, tmp_path / "out", "--methods", "theseus", "--max_steps", "1", "--eval_batch_size", "8")
    (tmp_path / "r.yaml").write_text("theseus: {script: theseus/task_distill.py, flags: {student_layers: 3}}")
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), *argv, "--recipes", str(tmp_path / "r.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert errors[0].startswith("error: --student_layers 3: ")
    assert errors[1].startswith("error: theseus: its run ended with status 2, see above") and len(errors) == 2
    assert read(tmp_path / "out" / "plan.json")["finished"] == []


# Refusals


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "--teacher needs --budget_minutes"),
        (("--budget_minutes", 1, "--max_steps", 1), "--teacher needs --budget_minutes"),
        (("--budget_minutes", 0), "--budget_minutes 0.0: must be above 0"),
        (("--max_steps", 1, "--methods", "kd,none"), "`none` is unknown; there are kd, distill_lstm"),
        (("--max_steps", 1, "--methods", "virt"), "virt: it needs --pair_teacher"),
        (("--max_steps", 1, "--student_layers", 3), "--student_layers 3: the teacher's 4 layers"),
        (("--max_steps", 1, "--recipes", "none.yaml"), "none.yaml: no such file"),
        (("--max_steps", 1, "--teacher", "nowhere"), "nowhere"),
        (
            ("--max_steps", 1, "--task_name", "STS-B"),
            "teacher: its head has 2 outputs, STS-B needs 1; pass a model that",
        ),
        (("--max_steps", 1, "--max_seq_length", 65), "reads at most 64 tokens"),
        (("--max_steps", 1, "--pair_teacher", "HOME/teacher"), "teacher: not a teacher such as virt/run_classifier"),
        (("--max_steps", 1, "--teacher", "HOME/pairs"), "pairs: not a teacher such as glue/run_glue.py makes; that is"),
        (("--max_steps", 1, "--name", "plan"), "--name plan: a file of the comparison itself is called so"),
        (("--max_steps", 1, "--folders", "a"), "give a YAML of the models, or --folders, or --teacher"),
    ],
)
def test_refusals(more, expected, home, tmp_path):
    more = [str(word).replace("HOME", str(home)) for word in more]
    assert expected in refused(compare.main, flags(home, tmp_path / "out", *more), tmp_path)


def test_one_dev_row_compares_nothing(home, tmp_path):
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_text("text\tlabel\n" + "good\t1\nbad\t0\n" * 4)
    dev.write_text("text\tlabel\ngood\t1\n")
    own = ("--train_file", train, "--dev_file", dev, "--max_steps", 1)
    assert "dev.tsv: fewer than 2 rows with a label" in refused(
        compare.main, flags(home, tmp_path / "out", *own), tmp_path
    )


def test_a_teacher_of_one_token_type_is_refused_for_pairs(home, tmp_path):
    single = keep_one_token_type(shutil.copytree(home / "teacher", tmp_path / "single"))
    line = refused(compare.main, flags(home, tmp_path / "out", "--teacher", single, "--max_steps", 1), tmp_path)
    assert line.startswith(f"{single}/config.json: type_vocab_size 1, and two texts in one input need 2 token types")


def test_training_flags_need_a_teacher_and_a_folder(home, tmp_path):
    words = ["--folders", str(home / "teacher"), "--output_dir", str(tmp_path)]
    for flag in ("--max_p95_ms", "--max_drop", "--max_mb", "--budget_minutes", "--max_steps"):
        assert f"{flag}: needs --teacher" in refused(compare.main, [*words, flag, "1"], tmp_path)
    with pytest.raises(UserError, match="--teacher needs --output_dir"):
        compare.main(["--teacher", str(home / "teacher"), "--max_steps", "1"])
