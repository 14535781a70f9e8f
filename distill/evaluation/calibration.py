"""Whether a classifier is right as often as it says it is: reliability, and the temperature that mends it.

Source: Guo et al. 2017, "On calibration of modern neural networks" (arXiv 1706.04599): expected calibration error (eq.
3, of the predicted class in bins of equal width) and temperature scaling (section 4.2), softmax(logits / T), which
changes how sure the model is and never what it answers.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

LOWEST, HIGHEST = 0.05, 20.0  # temperatures; a model that is right on every row would ask for 0


@dataclass(frozen=True)
class Reliability:
    """Of each bin of confidence, (0, 1/bins] to (1 - 1/bins, 1]: rows [bins], mean confidence and share of right
    answers [bins], nan where it holds no row."""

    rows: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: mean over rows of |accuracy - confidence| of their bin."""
        held = self.rows > 0
        gaps = np.abs(self.accuracy[held] - self.confidence[held])
        return float((self.rows[held] * gaps).sum() / self.rows.sum())


def probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """softmax(logits / temperature), float64 [n, C]; temperature: one, or one for each row [n]."""
    divisor = np.broadcast_to(np.asarray(temperature, np.float64), (len(logits),))[:, None]
    return softmax(logits.astype(np.float64) / divisor, axis=1)


def reliability(predicted: np.ndarray, labels: np.ndarray, bins: int = 10) -> Reliability:
    """How often the predicted class is right, by how sure the model was.

    predicted: probabilities [n, C]; labels: class indices [n]. Raises ValueError without rows, and for rows without a
    label.
    """
    _check(labels)
    sure, right = predicted.max(axis=1), predicted.argmax(axis=1) == labels
    number = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    rows = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(number, weights=of, minlength=bins) / rows for of in (sure, right))
    return Reliability(rows, confidence, accuracy)


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least negative log likelihood of the labels, between LOWEST and HIGHEST.

    logits [n, C]; labels: class indices [n]. Raises ValueError without rows, and for rows without a label.
    """
    _check(labels)
    exact, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(exact / np.exp(log_temperature), axis=1)[rows, labels].mean())

    # In 1 / T the loss is convex, so it has one minimum in log T too.
    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def halves(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """0 or 1 for each row [n]: two random halves with as many rows of each class, give or take one."""
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    half = np.empty(len(labels), np.int64)
    half[order] = np.arange(len(labels)) % 2
    return half


def cross_fitted(logits: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A temperature for each row [n], fitted on the half of the rows that it is not in.

    So what is measured with them was not seen by the fit. Arguments as in `fitted_temperature`; at least 2 rows.
    """
    half = halves(labels, seed)
    fitted = [fitted_temperature(logits[half != number], labels[half != number]) for number in (0, 1)]
    return np.asarray(fitted)[half]


def _check(labels: np.ndarray) -> None:
    if not len(labels):
        raise ValueError("no rows")
    if (labels < 0).any():
        raise ValueError("rows without a label cannot be judged; leave them out")
