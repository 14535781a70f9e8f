"""--control end to end: the control arm is the same student without the teacher, and nothing is trained twice."""

import numpy as np
import pytest

from distill.evaluation.predictions import load_predictions
from distill.training import fit as fitting
from distill_lstm import bert_distill
from models import bilstm
from tests.recipes.runs import lstm, metrics, read, refused


@pytest.fixture
def flags(data_dir, teachers, tmp_path):
    def of(name, *more):
        taught = ("--teacher_path", teachers("SST-2"), "--cache_dir", tmp_path / "cache", "--alpha", 0.5)
        return lstm(data_dir, tmp_path / name, "SST-2", *taught, "--dropout_prob", 0.3, *more)

    return of


def test_control_of_two_seeds(flags, tmp_path, capsys):
    folder = bert_distill.main(flags("run", "--control", 2, "--seed", 5))
    arms = {"distilled_seed-6", "alone_seed-5", "alone_seed-6"}
    assert {path.name for path in (folder / "control").iterdir()} == arms
    line = capsys.readouterr().out.splitlines()[-1]
    written = read(folder / "control.json")
    assert line.startswith("control, accuracy: ") and line.endswith(f"2 seeds, 48 rows): {written['verdict']}")
    scores = {name: read(folder / "control" / name / "results_eval.json")["accuracy"] for name in arms}
    first = (read(folder / "results_eval.json")["accuracy"] + scores["distilled_seed-6"]) / 2
    assert (written["first"], written["seeds"]) == (pytest.approx(first), [5, 6])
    assert written["second"] == pytest.approx((scores["alone_seed-5"] + scores["alone_seed-6"]) / 2)

    # A control arm is the distillation with next to no weight on the teacher, and each arm the run of its seed.
    alone = bert_distill.main(flags("alone", "--alpha", 1e-30, "--seed", 5))
    other = bert_distill.main(flags("other", "--seed", 6))
    for expected, found in ((alone, "alone_seed-5"), (other, "distilled_seed-6")):
        assert (folder / "control" / found / "model.safetensors").read_bytes() == (
            expected / "model.safetensors"
        ).read_bytes()
    (last,) = [row["losses"].keys() for row in metrics(folder / "control" / "alone_seed-5") if "losses" in row][-1:]
    assert last == {"label"} and metrics(folder)[0]["losses"].keys() == {"teacher", "label"}
    steps = [read(home / "run.json")["steps"] for home in (folder, folder / "control" / "alone_seed-5")]
    assert steps[0] == steps[1]


def test_nothing_is_trained_twice(flags, monkeypatch, capsys):
    folder = bert_distill.main(flags("run"))
    weights = (folder / "model.safetensors").read_bytes()
    bert_distill.main(flags("run", "--control"))
    assert (folder / "model.safetensors").read_bytes() == weights
    assert [path.name for path in (folder / "control").iterdir()] == ["alone_seed-42"]
    monkeypatch.setattr("distill.training.fit.fit", None)
    capsys.readouterr()
    bert_distill.main(flags("run", "--control"))
    assert capsys.readouterr().out.count("holds this run, finished") == 2
    monkeypatch.undo()
    bert_distill.main(flags("run", "--overwrite", "true", "--seed", 1))
    assert not (folder / "control").exists() and not (folder / "control.json").exists()


def test_a_killed_comparison_goes_on_even_with_overwrite(flags, monkeypatch, capsys):
    """Killed in the third of four arms: two are finished and stay; a finished comparison is made anew."""
    again = flags("run", "--control", 2, "--overwrite", "true")
    seeds, fit = [], fitting.fit

    def killed(*arguments):
        seeds.append(arguments[3].seed)
        return fit(*arguments) if len(seeds) < 3 else 1 / 0

    monkeypatch.setattr(fitting, "fit", killed)
    with pytest.raises(ZeroDivisionError):
        bert_distill.main(again)
    monkeypatch.undo()
    capsys.readouterr()
    folder = bert_distill.main(again)
    assert seeds == [42, 42, 43] and capsys.readouterr().out.count("holds this run, finished") == 2
    assert read(folder / "control.json")["seeds"] == [42, 43]
    bert_distill.main(again)
    assert "holds this run, finished" not in capsys.readouterr().out


def test_arms_of_unequal_steps_are_refused(flags, tmp_path):
    line = refused(bert_distill.main, flags("run", "--control", "--early_stopping_patience", 2), tmp_path)
    assert line.startswith("--control trains both arms for as many steps, --early_stopping_patience each for its own")


def test_predictions_are_those_of_the_saved_model(flags, data_dir):
    folder = bert_distill.main(flags("run"))
    student, reader = bilstm.load_student(folder)
    lines = (data_dir / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    found = load_predictions(folder)["dev"]
    logits = bilstm.predict(student, reader.texts([line.split("\t")[0] for line in lines]), 128)
    np.testing.assert_allclose(found.logits, logits, atol=1e-6)
    np.testing.assert_array_equal(found.labels, [int(line.split("\t")[1]) for line in lines])
