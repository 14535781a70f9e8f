"""The scores of a set of predictions, by scikit-learn and scipy."""

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

from distill.data.tasks import Task
from distill.errors import UserError


def score(logits: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float]:
    """`regression` or `classification`, as the task is."""
    return regression(logits, labels) if task.regression else classification(logits, labels, task)


def classification(logits: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float]:
    """{'accuracy', 'MCC', 'precision', 'recall', 'f_1'} of the class with the highest logit: fractions; MCC -1 to 1.

    logits [n, C]; labels [n] integers, where -1 marks a row without a label, which is left out. Two classes:
    precision, recall and F1 of class 1, as GLUE reports MRPC and QQP; more: their unweighted mean over the classes
    that occur. A ratio whose denominator is 0 counts as 0.0. Raises UserError for a logit that is nan or infinite and
    when no row has a label.
    """
    classes = len(task.labels)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(f"{task.name} has {classes} labels, the logits are {logits.shape}")
    logits, labels = _checked(logits, labels, labels >= 0)
    predicted = logits.argmax(axis=1)
    which = {"average": "binary", "pos_label": 1} if classes == 2 else {"average": "macro"}
    precision, recall, f_1, _ = precision_recall_fscore_support(labels, predicted, zero_division=0, **which)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        # Where one class alone occurs scikit-learn gives 0.0 too, but with a warning.
        "MCC": float(matthews_corrcoef(labels, predicted)) if len(np.union1d(labels, predicted)) > 1 else 0.0,
        "precision": float(precision),
        "recall": float(recall),
        "f_1": float(f_1),
    }


def regression(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{'pearson', 'spearman', 'pearson_spearman'}: the correlations, -1 to 1, and their mean, by which STS-B is ranked.

    predictions [n, 1] or [n]; labels [n] floats, where nan marks a row without a label, which is left out. Ties share
    their mean rank. The correlation of predictions (or labels) that are all equal is undefined and reported as 0.0.
    Raises UserError for a prediction that is nan or infinite and when no row has a label.
    """
    x, y = _checked(predictions.reshape(len(labels), -1), labels, ~np.isnan(labels))
    if x.shape[1] != 1:
        raise ValueError(f"regression needs one prediction a row, not {x.shape[1]}")
    x, y = x[:, 0].astype(np.float64), y.astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        pearson = spearman = 0.0
    else:
        pearson, spearman = float(stats.pearsonr(x, y)[0]), float(stats.spearmanr(x, y)[0])
    return {"pearson": pearson, "spearman": spearman, "pearson_spearman": (pearson + spearman) / 2}


def _checked(logits: np.ndarray, labels: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(logits) != len(labels):
        raise ValueError(f"{len(logits)} predictions for {len(labels)} labels")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise UserError(
            f"{len(broken)} of {len(logits)} predictions are not finite numbers (first: data row {broken[0] + 1}), "
            "so there is no score: the model has diverged; train it again with a lower --learning_rate"
        )
    if not labelled.any():
        raise UserError("no row has a label, so there is no score: evaluate on a split with labels")
    return logits[labelled], labels[labelled]


def resampled(logits: np.ndarray, labels: np.ndarray, task: Task, counts: np.ndarray) -> np.ndarray:
    """The task's metric on B resamples of the rows, float64 [B]: what `score` gives for each, all at once.

    logits, labels: as for `score`, every row with a label; counts [B, n]: how often each row is in each resample.
    """
    weights = counts.astype(np.float64)
    if task.metric == "accuracy":
        return weights @ (logits.argmax(axis=1) == labels) / weights.sum(axis=1)
    if task.metric == "MCC":
        return _resampled_mcc(logits.argmax(axis=1), labels, len(task.labels), weights)
    x, y = logits.reshape(-1).astype(np.float64), labels.astype(np.float64)
    pearson = _correlation(np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape), weights)
    return (pearson + _correlation(_ranks(x, weights), _ranks(y, weights), weights)) / 2


def _resampled_mcc(predicted: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """Matthews' coefficient from the confusion matrices (Gorodkin 2004); 0 where its denominator is."""
    one_hot = np.eye(classes)
    said, true = weights @ one_hot[predicted], weights @ one_hot[labels.astype(int)]  # [B, classes]
    n, right = weights.sum(axis=1), weights @ (predicted == labels)
    spread = (n**2 - (said**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
    return np.divide(right * n - (said * true).sum(axis=1), np.sqrt(spread), out=np.zeros(len(n)), where=spread > 0)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[B, n]: the rank of each row within each resample, where equal values share their mean rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(weights[:, order], first, axis=1)  # of each group of equal values
    return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2)[:, group]


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each line of x and y [B, n] under its weights; 0 where one of them is constant."""
    n, drawn = weights.sum(axis=1, keepdims=True), (weights > 0).argmax(axis=1)[:, None]
    x, y = (v - np.take_along_axis(v, drawn, axis=1) for v in (x, y))  # exactly 0 where all that is drawn is equal
    x, y = (v - (weights * v).sum(axis=1, keepdims=True) / n for v in (x, y))
    covariance = (weights * x * y).sum(axis=1)
    spread = (weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)
    return np.divide(covariance, np.sqrt(spread), out=np.zeros(len(n)), where=spread > 0)
