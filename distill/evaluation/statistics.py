"""Whether two models differ by more than the chance of these rows and these seeds.

The paired bootstrap with percentile intervals (Efron & Tibshirani 1993, chapter 13; of two systems on the same rows:
Koehn 2004). Rows are drawn anew with replacement, and both models are scored on the same draw; seeds likewise; the
deviations of both draws from the observed difference add up, as independent sources of chance do, and the middle 95 %
are the interval. (Drawing rows and seeds at once would count three times what a seed changes in a single row, see Owen
2007, "The pigeonhole bootstrap"; here it counts twice.) Of S seeds S - 1 are drawn, which gives the mean of a few its
right variance (Rao & Wu 1988). With a single seed the interval says nothing about other seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.tasks import Task
from distill.errors import UserError
from distill.evaluation.metrics import resampled
from distill.evaluation.predictions import Predictions

_CHUNK = 4_000_000  # numbers of a chunk of resamples x rows: 32 MB


@dataclass(frozen=True)
class Difference:
    """The first models' mean score less the second's, with the interval [low, high]; `seeds` are the fewer of both."""

    metric: str
    first: float
    second: float
    low: float
    high: float
    rows: int
    seeds: int

    @property
    def mean(self) -> float:
        return self.first - self.second

    @property
    def verdict(self) -> str:
        """'helps' when the whole interval is above 0, 'hurts' when it is below, otherwise 'no evidence'."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "no evidence"


def paired_bootstrap(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    task: Task,
    resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two models by the task's metric on the same dev rows, each trained from one or more seeds.

    first, second: a model's predictions, one item a seed. As many of both: the i-th are a pair, trained from the same
    seed, and are drawn together; otherwise the seeds of each are drawn for themselves. Rows are always paired, and
    those without a label left out. The same arguments give the same interval. Raises UserError when the rows are not
    the same.
    """
    labels = first[0].labels
    for found in (*first, *second):
        if not np.array_equal(found.labels, labels, equal_nan=True):
            raise UserError("the predictions are not of the same dev rows; evaluate both models on the same data")
    labelled = ~np.isnan(labels) if task.regression else labels >= 0
    labels, n = labels[labelled], int(labelled.sum())
    rng = np.random.default_rng(seed)

    def scores(models: Sequence[Predictions], counts: np.ndarray) -> np.ndarray:
        return np.stack([resampled(m.logits[labelled], labels, task, counts) for m in models], axis=1)  # [B, seeds]

    whole = np.ones((1, n))
    a, b = (scores(models, whole)[0] for models in (first, second))
    observed = a.mean() - b.mean()
    if len(a) == len(b):
        difference = _draw_means(rng, a - b, resamples)
    else:
        difference = _draw_means(rng, a, resamples) - _draw_means(rng, b, resamples)
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        counts = _draw_rows(rng, n, part.stop - start)
        difference[part] += scores(first, counts).mean(axis=1) - scores(second, counts).mean(axis=1) - observed
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    means = float(a.mean()), float(b.mean())
    return Difference(task.metric, *means, float(low), float(high), n, min(len(a), len(b)))


@dataclass(frozen=True)
class Interval:
    """The mean score of the seeds, `scores` of each, and the interval [low, high]."""

    mean: float
    low: float
    high: float
    scores: tuple[float, ...]


def score_interval(
    models: Sequence[Predictions], task: Task, resamples: int = 5000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The bootstrap of `paired_bootstrap`, of a model by itself: rows and seeds are drawn, and the
    deviations of both draws from the observed mean add up.

    models: a model's predictions on the same dev rows, one item a seed; rows without a label are left out. Raises
    UserError when the rows are not the same.
    """
    labels = models[0].labels
    for found in models:
        if not np.array_equal(found.labels, labels, equal_nan=True):
            raise UserError("the predictions are not of the same dev rows; evaluate all seeds on the same data")
    labelled = ~np.isnan(labels) if task.regression else labels >= 0
    labels, n = labels[labelled], int(labelled.sum())
    rng = np.random.default_rng(seed)

    def scores(counts: np.ndarray) -> np.ndarray:
        return np.stack([resampled(m.logits[labelled], labels, task, counts) for m in models], axis=1)  # [B, seeds]

    observed = scores(np.ones((1, n)))[0]
    mean = observed.mean()
    drawn = _draw_means(rng, observed, resamples)
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn[part] += scores(_draw_rows(rng, n, part.stop - start)).mean(axis=1) - mean
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high), tuple(map(float, observed)))


def _draw_means(rng: np.random.Generator, of_seeds: np.ndarray, resamples: int) -> np.ndarray:
    """[resamples]: means of S - 1 of the S values, drawn with replacement."""
    return of_seeds[rng.integers(0, len(of_seeds), (resamples, max(1, len(of_seeds) - 1)))].mean(axis=1)


def _draw_rows(rng: np.random.Generator, rows: int, resamples: int) -> np.ndarray:
    """[resamples, rows]: how often each row is drawn."""
    drawn = rng.integers(0, rows, (resamples, rows)) + rows * np.arange(resamples)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=resamples * rows).reshape(resamples, rows)
