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
