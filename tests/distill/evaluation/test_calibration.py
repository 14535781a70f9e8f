"""Reliability by hand, temperatures that are known, and halves that are fair."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from distill.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    cross_fitted,
    fitted_temperature,
    halves,
    probabilities,
    reliability,
)


def drawn(temperature, rows=20_000, classes=3, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature): that temperature calibrates them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits.astype(np.float32), (rng.random((rows, 1)) > chances).sum(axis=1).clip(0, classes - 1)


def test_probabilities_with_one_temperature_and_with_many():
    logits = np.array([[0.0, np.log(3.0)], [0.0, np.log(9.0)]])
    np.testing.assert_allclose(probabilities(logits), [[0.25, 0.75], [0.1, 0.9]])
    np.testing.assert_allclose(probabilities(logits, np.array([1.0, 2.0]))[:, 1], [0.75, 0.75])


def test_reliability_by_hand():
    """Sure to 0.6, 0.8, 0.8, 0.95; right, right, wrong, right: (1 * 0.4 + 2 * 0.3 + 1 * 0.05) / 4."""
    sure = np.array([0.6, 0.8, 0.8, 0.95])
    found = reliability(np.stack([1 - sure, sure], axis=1), np.array([1, 1, 0, 1]))
    assert found.rows.tolist() == [0, 0, 0, 0, 0, 1, 0, 2, 0, 1]  # an edge belongs to the bin below it
    assert found.accuracy[[5, 7, 9]].tolist() == [1.0, 0.5, 1.0]
    assert found.confidence[[5, 7, 9]] == pytest.approx([0.6, 0.8, 0.95]) and np.isnan(found.confidence[0])
    assert found.error == pytest.approx((0.4 + 0.6 + 0.05) / 4)


def test_certainty_falls_into_the_last_bin():
    found = reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert found.rows.tolist() == [0] * 9 + [2] and found.error == 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fitted_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = drawn(2.0, rows=200)
    rows = np.arange(200)
    losses = {t: -log_softmax(logits / t, axis=1)[rows, labels].mean() for t in np.geomspace(LOWEST, HIGHEST, 400)}
    assert fitted_temperature(logits, labels) == pytest.approx(min(losses, key=losses.get), rel=0.02)


def test_always_right_and_always_wrong_reach_the_bounds():
    logits, labels = np.eye(2)[[0, 1, 0]], np.array([0, 1, 0])
    assert fitted_temperature(logits, labels) == pytest.approx(LOWEST, rel=0.01)
    assert fitted_temperature(logits, 1 - labels) == pytest.approx(HIGHEST, rel=0.01)


def test_scaling_mends_the_error_and_no_answer_changes():
    logits, labels = drawn(3.0, rows=4000)
    temperatures = cross_fitted(logits, labels)
    before, after = probabilities(logits), probabilities(logits, temperatures)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert reliability(before, labels).error > 0.15 and reliability(after, labels).error < 0.03


def test_halves_are_balanced_in_each_class():
    labels = np.repeat([0, 1, 2], [101, 40, 1])
    half = halves(labels, seed=3)
    counts = [np.bincount(half[labels == label], minlength=2).tolist() for label in (0, 1, 2)]
    assert all(abs(a - b) <= 1 for a, b in counts) and abs(half.sum() - 71) <= 1
    assert np.array_equal(half, halves(labels, seed=3)) and not np.array_equal(half, halves(labels, seed=4))


def test_each_half_has_the_others_temperature():
    logits, labels = drawn(2.0, rows=100, classes=2)
    half, found = halves(labels), cross_fitted(logits, labels)
    for number in (0, 1):
        assert set(found[half == number]) == {fitted_temperature(logits[half != number], labels[half != number])}
    assert len(set(found)) == 2


@pytest.mark.parametrize("labels", [[], [0, -1]])
def test_rows_that_cannot_be_judged(labels):
    logits, labels = np.zeros((len(labels), 2)), np.array(labels, int)
    for call in (fitted_temperature, reliability):
        with pytest.raises(ValueError):
            call(logits, labels)
