"""Which arms are trained where, and what is said about them."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from distill.cli import parse
from distill.data.tasks import get_task
from distill.errors import UserError
from distill.evaluation.predictions import Predictions, save_predictions
from distill.options import DistillOptions
from distill.training.control import run_arms

LABELS = np.arange(400) % 2


@dataclass
class Args:
    control: int
    seed: int = 7


def arms(folder, args, right):
    """Run with a `train` that writes predictions of which right(seed, distilled) are right; returns its calls."""
    calls = []

    def train(home, seed, distilled):
        calls.append((home.relative_to(folder).as_posix(), seed, distilled))
        said = np.where(np.arange(400) < right(seed, distilled), LABELS, 1 - LABELS)
        save_predictions(home, {"dev": Predictions(np.eye(2, dtype=np.float32)[said], LABELS)})
        return home

    assert run_arms(train, folder, args, get_task("SST-2")) == folder
    return calls


def test_without_control_only_the_student_is_trained(tmp_path, capsys):
    assert arms(tmp_path, Args(0), lambda seed, distilled: 300) == [(".", 7, True)]
    assert not capsys.readouterr().out and not (tmp_path / "control.json").exists()


def test_one_control_arm_of_the_same_seed(tmp_path, capsys):
    calls = arms(tmp_path, Args(1), lambda seed, distilled: 300)
    assert calls == [(".", 7, True), ("control/alone_seed-7", 7, False)]
    line = "control, accuracy: 0.7500 distilled, 0.7500 on the labels alone, difference +0.0000 "
    line += "(95 % interval +0.0000 to +0.0000; 1 seed, 400 rows): no evidence"
    assert capsys.readouterr().out.splitlines()[-1] == line


@pytest.mark.parametrize(("gap", "verdict"), [(60, "helps"), (0, "no evidence"), (-60, "hurts")])
def test_several_seeds(gap, verdict, tmp_path, capsys):
    calls = arms(tmp_path, Args(3), lambda seed, distilled: 300 + seed + gap * distilled)
    assert [call[0] for call in calls] == [
        ".",
        "control/alone_seed-7",
        "control/distilled_seed-8",
        "control/alone_seed-8",
        "control/distilled_seed-9",
        "control/alone_seed-9",
    ]
    assert [call[1:] for call in calls[1:]] == [(7, False), (8, True), (8, False), (9, True), (9, False)]
    written = json.loads((tmp_path / "control.json").read_text())
    assert written["verdict"] == verdict and written["mean"] == pytest.approx(gap / 400)
    assert written["seeds"] == [7, 8, 9] and written["first"] == pytest.approx((308 + gap) / 400)
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"3 seeds, 400 rows): {verdict}")


def test_a_run_without_predictions_is_named(tmp_path):
    with pytest.raises(UserError, match="seed-3/dev_predictions.tsv: no such file; evaluate the model again"):
        run_arms(lambda home, seed, distilled: home, tmp_path / "seed-3", Args(1), get_task("SST-2"))


@pytest.mark.parametrize(
    ("argv", "seeds"), [([], 0), (["--control"], 1), (["--control", "3"], 3), (["--control=2"], 2)]
)
def test_the_flag(argv, seeds):
    assert parse(DistillOptions, argv).control == seeds


@pytest.mark.parametrize("value", ["-1", "some", "1.5"])
def test_a_number_of_seeds_that_is_none(value):
    with pytest.raises(UserError, match="--control"):
        parse(DistillOptions, [f"--control={value}"])
