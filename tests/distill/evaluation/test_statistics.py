"""The verdict on known answers, the interval's coverage on simulated models, and the resampled metrics."""

import numpy as np
import pytest
from scipy.stats import norm

from distill.data.tasks import get_task
from distill.errors import UserError
from distill.evaluation.metrics import resampled, score
from distill.evaluation.predictions import Predictions
from distill.evaluation.statistics import paired_bootstrap, score_interval

SST2, COLA, MNLI, STSB = map(get_task, ("SST-2", "CoLA", "MNLI", "STS-B"))


def binary(right):
    """Predictions for rows with label 0, right where `right` says so."""
    return Predictions(np.eye(2, dtype=np.float32)[np.where(right, 0, 1)], np.zeros(len(right), np.int64))


def first_right(n, of=400):
    return binary(np.arange(of) < n)


def test_identical_models_are_no_evidence():
    rng = np.random.default_rng(0)
    models = [binary(rng.random(400) < 0.8) for _ in range(3)]
    found = paired_bootstrap(models, models, SST2)
    assert (found.mean, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "no evidence")
    assert (found.metric, found.rows, found.seeds) == ("accuracy", 400, 3)


def test_a_clear_gap_helps_and_turned_round_hurts():
    found = paired_bootstrap([first_right(360)], [first_right(300)], SST2)
    assert (found.first, found.second, found.mean) == (0.9, 0.75, pytest.approx(0.15)) and found.verdict == "helps"
    turned = paired_bootstrap([first_right(300)], [first_right(360)], SST2)
    assert turned.verdict == "hurts" and turned.high < -0.1
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_one_row_more_is_no_evidence():
    found = paired_bootstrap([first_right(301)], [first_right(300)], SST2)
    assert found.low == 0.0 < found.high and found.verdict == "no evidence"


def test_the_interval_of_one_seed_is_the_binomial_one():
    """40 rows that only the first has right: the difference's standard error is sqrt(p (1 - p) / n) with p = 0.1."""
    found = paired_bootstrap([first_right(340)], [first_right(300)], SST2, resamples=20000)
    error = 1.96 * np.sqrt(0.1 * 0.9 / 400)
    assert (found.low, found.high) == pytest.approx((0.1 - error, 0.1 + error), abs=0.004)


def test_rows_are_paired():
    """Both have 300 right. The same 300: certainly no difference; as different as can be: a wide interval."""
    other = binary(np.arange(400) >= 100)
    apart, same = (paired_bootstrap([first_right(300)], [b], SST2) for b in (other, first_right(300)))
    assert same.high - same.low == 0.0 and apart.high - apart.low > 0.1


def test_seeds_that_scatter_widen_the_interval():
    """Rows decide nothing here: in each seed a model is right everywhere or nowhere."""
    always, never = first_right(400), first_right(0)
    mixed = paired_bootstrap([always, always, always], [never, always, always], SST2)
    assert mixed.mean == pytest.approx(1 / 3) and (mixed.low, mixed.high) == pytest.approx((0.0, 1.0))
    # Pairs of one seed are drawn together: they all differ alike.
    alike = paired_bootstrap([always, never], [always, never], SST2)
    assert (alike.low, alike.high) == (0.0, 0.0)


def test_unequal_numbers_of_seeds():
    found = paired_bootstrap([first_right(360)], [first_right(300), first_right(304), first_right(296)], SST2)
    assert found.mean == pytest.approx(0.15) and found.verdict == "helps" and found.seeds == 1


def test_the_same_arguments_give_the_same_interval():
    rng = np.random.default_rng(0)
    models = [[binary(rng.random(300) < p) for _ in range(2)] for p in (0.8, 0.78)]
    assert paired_bootstrap(*models, SST2) == paired_bootstrap(*models, SST2)
    assert paired_bootstrap(*models, SST2) != paired_bootstrap(*models, SST2, seed=1)


@pytest.mark.parametrize(("seeds", "scatter", "least", "most"), [(1, 0.0, 0.90, 0.99), (3, 0.05, 0.89, 0.995)])
def test_coverage(seeds, scatter, least, most):
    """300 pairs of simulated models on 300 rows: the interval holds the true difference about 95 times in 100.

    A row's margin is normal(1.2, 1.5) + the model's shift + the run's normal(0, scatter) + normal(0, 0.5); right above
    0.
    """
    rng, held = np.random.default_rng(0), 0
    shifts, spread = (0.15, 0.0), np.sqrt(1.5**2 + scatter**2 + 0.5**2)
    true = norm.cdf((1.2 + shifts[0]) / spread) - norm.cdf((1.2 + shifts[1]) / spread)
    for repetition in range(300):
        rows = rng.normal(1.2, 1.5, 300)
        models = [
            [binary(rows + shift + rng.normal(0, scatter) + rng.normal(0, 0.5, 300) > 0) for _ in range(seeds)]
            for shift in shifts
        ]
        found = paired_bootstrap(*models, SST2, resamples=1000, seed=repetition)
        held += found.low <= true <= found.high
    assert least <= held / 300 <= most


def test_rows_without_a_label_are_left_out():
    labels = np.where(np.arange(400) % 4 == 0, -1, 0)
    a, b = (Predictions(first_right(n).logits, labels) for n in (360, 300))
    found = paired_bootstrap([a], [b], SST2)
    assert found.rows == 300 and found.mean == pytest.approx(45 / 300)


def test_predictions_of_other_rows_are_refused():
    for other in (first_right(10, of=399), Predictions(first_right(10).logits, np.ones(400, np.int64))):
        with pytest.raises(UserError, match="not of the same dev rows"):
            paired_bootstrap([first_right(10)], [other], SST2)


def made_up(task, n, rng):
    if task.regression:
        labels = rng.integers(0, 6, n).astype(np.float32)
        return (labels + rng.normal(size=n)).round(1).astype(np.float32)[:, None], labels  # with ties
    return rng.normal(size=(n, task.num_outputs)).astype(np.float32), rng.integers(0, task.num_outputs, n)


@pytest.mark.parametrize("task", [SST2, COLA, MNLI, STSB], ids=lambda task: task.name)
def test_resampled_metrics_are_those_of_score(task):
    rng = np.random.default_rng(1)
    logits, labels = made_up(task, 60, rng)
    drawn = rng.integers(0, 60, (30, 60))
    counts = np.stack([np.bincount(rows, minlength=60) for rows in drawn])
    expected = [score(logits[rows], labels[rows], task)[task.metric] for rows in drawn]
    np.testing.assert_allclose(resampled(logits, labels, task, counts), expected, atol=1e-9)


@pytest.mark.parametrize("task", [COLA, STSB], ids=lambda task: task.name)
def test_resamples_of_one_value_have_no_correlation(task):
    logits = np.array([[0.1], [0.1], [0.7]]) if task.regression else np.eye(2)[[0, 0, 1]]
    labels = np.array([1.0, 0.0, 3.0]) if task.regression else np.array([1, 0, 0])
    counts = np.array([[2, 1, 0], [0, 0, 3]])  # predictions are equal in the first, everything is in the second
    np.testing.assert_array_equal(resampled(logits, labels, task, counts), [0.0, 0.0])


def test_the_bootstrap_serves_every_metric():
    rng = np.random.default_rng(2)
    for task in (COLA, MNLI, STSB):
        logits, labels = made_up(task, 200, rng)
        good = labels[:, None] if task.regression else np.eye(task.num_outputs, dtype=np.float32)[labels]
        found = paired_bootstrap([Predictions(good, labels)], [Predictions(logits, labels)], task, resamples=500)
        assert (found.metric, found.first, found.verdict) == (task.metric, pytest.approx(1.0), "helps")
        assert found.second == pytest.approx(score(logits, labels, task)[task.metric])


def test_one_models_interval_is_the_binomial_one():
    found = score_interval([binary(np.arange(400) < 320)], SST2, resamples=20_000)
    error = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert found.mean == 0.8 and found.scores == (0.8,)
    assert (found.low, found.high) == pytest.approx((0.8 - error, 0.8 + error), abs=0.004)


def test_scattering_seeds_widen_one_models_interval():
    """Seeds of 0.7, 0.8 and 0.9: their standard error, 0.1 / sqrt(3), joins that of the rows."""
    rng = np.random.default_rng(0)
    models = [binary(rng.permutation(400) < n) for n in (280, 320, 360)]
    found = score_interval(models, SST2, resamples=20_000)
    alone = score_interval([models[1]] * 3, SST2, resamples=20_000)
    assert found.mean == pytest.approx(0.8) and found.scores == (0.7, 0.8, 0.9)
    # Three draws of two of three values: nearly normal, cut at 0.7 and 0.9.
    assert 0.17 < found.high - found.low < 0.25 and 0.06 < alone.high - alone.low < 0.09


def test_a_model_without_an_error_has_no_width():
    found = score_interval([binary(np.ones(50, bool))] * 2, SST2)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_rows_without_a_label_are_left_out_of_one_models_interval():
    labels = np.array([0, 0, -1, -1])
    found = score_interval([Predictions(np.eye(2, dtype=np.float32)[[0, 0, 1, 1]], labels)], SST2)
    assert found.mean == 1.0


def test_regression():
    rng = np.random.default_rng(1)
    labels = rng.normal(size=200)
    noisy = (labels + rng.normal(size=200))[:, None].astype(np.float32)
    found = score_interval([Predictions(noisy, labels)], STSB)
    assert 0.6 < found.low < found.mean < found.high < 0.8


def test_other_rows_are_refused():
    with pytest.raises(UserError, match="same dev rows"):
        score_interval([binary(np.ones(5, bool)), binary(np.ones(6, bool))], SST2)


def test_one_models_interval_is_repeated():
    models = [binary(np.random.default_rng(s).random(100) < 0.8) for s in range(2)]
    assert score_interval(models, SST2) == score_interval(models, SST2)
