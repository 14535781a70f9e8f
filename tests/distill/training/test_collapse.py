"""Vectors that become alike stop the run, at the same step whether or not it was killed; unit teachers are scaled."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from distill.errors import UserError
from distill.training.collapse import is_unit, mean_cosine, spread_scores, teacher_scale
from distill.training.fit import TrainingStopped


def vectors(n=50, dim=8, seed=0, common=0.0):
    """Random ones, plus `common` in every number."""
    return (np.random.default_rng(seed).normal(size=(n, dim)) + common).astype(np.float32)


def test_mean_cosine_is_that_of_all_pairs():
    for found in (vectors(), vectors(7, 3, 1, 0.5), vectors(3, 2, 2) * [[1], [1e-3], [1e3]]):
        unit = found.astype(np.float64) / np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
        cosines = unit @ unit.T
        pairs = cosines[~np.eye(len(found), dtype=bool)]
        assert mean_cosine(found) == pytest.approx(pairs.mean(), abs=1e-12)


def test_mean_cosine_by_hand():
    assert mean_cosine(np.float32([[1, 0], [0, 2], [-3, 0]])) == pytest.approx(-1 / 3)
    assert mean_cosine(np.ones((9, 4))) == pytest.approx(1.0)
    assert mean_cosine(np.float32([[1, 0], [0, 0], [5, 0]])) == pytest.approx(1 / 3)  # zeros point nowhere
    assert mean_cosine(np.zeros((3, 2))) == 0.0
    with pytest.raises(ValueError, match="1 vectors have no pair"):
        mean_cosine(np.ones((1, 4)))


@pytest.fixture
def run(tmp_path):
    """A run's folder, and `log(scores)`, which writes what the loop writes after an evaluation."""
    run = SimpleNamespace(output_dir=tmp_path)

    def log(scores, step=[0]):  # noqa: B006 (counts the calls)
        step[0] += 1
        with open(tmp_path / "metrics.jsonl", "a") as handle:
            handle.write(json.dumps({"step": step[0], "loss": 1.0}) + "\n")
            handle.write(json.dumps({"step": step[0], "dev": {"spearman": 0.5} | scores}) + "\n")

    return run, log


def test_spread_is_relative_to_the_teacher(run):
    teacher = vectors(common=1.0)
    assert spread_scores(run[0], teacher * 3, teacher) == {
        "mean_cosine": pytest.approx(mean_cosine(teacher)), "spread": pytest.approx(1.0)
    }  # fmt: skip
    student = vectors(50, 5, 3, 2.0)
    found = spread_scores(run[0], student, teacher)
    assert found["spread"] == pytest.approx((1 - mean_cosine(student)) / (1 - mean_cosine(teacher)))
    with pytest.raises(UserError, match="the teacher gives all sentences the same vector"):
        spread_scores(run[0], student, np.ones((50, 8)))


def test_a_run_stops_when_the_third_look_in_a_row_finds_them_alike(run):
    run, log = run
    teacher, alike, healthy = vectors(), vectors(common=100.0), vectors(seed=1)
    assert spread_scores(run, alike, teacher)["spread"] < 0.01
    for student in (alike, alike, healthy, alike, alike):  # not three in a row
        log(spread_scores(run, student, teacher))
    with pytest.raises(TrainingStopped, match=r"become alike \(mean cosine of two of 50 sentences 1.000") as error:
        spread_scores(run, alike, teacher)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingStopped):  # and again, when the run is continued
        spread_scores(run, alike, teacher)
    assert spread_scores(run, healthy, teacher)["spread"] > 0.5


def test_a_teacher_whose_vectors_lie_close_is_no_alarm(run):
    run, log = run
    teacher, student = vectors(common=20.0), vectors(seed=1, common=25.0)
    assert mean_cosine(student) > 0.99
    for _ in range(4):
        log(spread_scores(run, student, teacher))


def test_the_loop_stops(tmp_path, monkeypatch):
    """In a run of `fit`, which records what it is returned; the checkpoint stays."""
    import paddle

    from distill.data.batching import BucketBatches
    from distill.options import TrainOptions
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run

    model, teacher, evaluations = paddle.nn.Linear(4, 4), vectors(), []
    options = TrainOptions(output_dir=str(tmp_path), max_steps=8, eval_steps=1, batch_size=4, save_steps=1)
    plan = BucketBatches(np.ones(16), 4)

    def attempt():
        run = Run(tmp_path / "run", {"seed": 1})

        def scores():
            evaluations.append(0)
            return {"spearman": 0.1} | spread_scores(run, vectors(common=100.0), teacher)

        fit(
            model, lambda batch: {"mse": (model(batch["x"]) ** 2).mean()},
            Batches(plan, lambda rows: {"x": np.ones((len(rows), 4), np.float32)}),
            options, run, scores, "spearman", lambda folder: (folder / "model").write_text("x"),
        )  # fmt: skip

    for looks in (3, 4):  # the same command meets the same end at the next look
        with pytest.raises(TrainingStopped, match="become alike"):
            attempt()
        assert len(evaluations) == looks
    assert (tmp_path / "run" / "checkpoints" / "step-2").is_dir()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "dev" in row] == [1, 2]


# Unit teachers


def test_unit_teachers_are_scaled(capsys):
    plain = vectors(30, 16)
    assert not is_unit(plain) and teacher_scale(plain) == 1.0 and capsys.readouterr().out == ""
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    assert is_unit(unit) and is_unit(unit.astype(np.float16))
    assert teacher_scale(unit) == 4.0
    assert np.mean((4 * unit) ** 2) == pytest.approx(1.0)
    assert capsys.readouterr().out == (
        "the teacher's vectors have the length 1, so that their squared error is of the size of 1/16: they are "
        "multiplied by the square root of 16\n"
    )
    assert teacher_scale(unit, scaled=False) == 1.0
    assert capsys.readouterr().out.startswith("warning: the teacher's vectors have the length 1, so that their squared")
    unit[3] *= 1.01
    assert not is_unit(unit)
