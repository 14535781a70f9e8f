"""A cascade of two models: the student answers when it is surer than a threshold, the teacher answers the rest.

The student runs on every row, so a row costs the student's time, and the teacher's too on the share that it passes on.
Sureness is the largest softmax probability of the student's logits, at temperature 1.
"""

from dataclasses import dataclass

import numpy as np

from distill.data.tasks import Task
from distill.evaluation.calibration import halves, probabilities
from distill.evaluation.metrics import resampled


@dataclass(frozen=True)
class Curve:
    """Points of rising threshold, from the student alone (threshold 0) to the teacher alone (threshold 1).

    thresholds, shares (of the rows that go to the teacher) and scores (the task's metric), float64 [points].
    """

    thresholds: np.ndarray
    shares: np.ndarray
    scores: np.ndarray

    def suggested(self, tolerance: float) -> int:
        """The number of the first point whose score is at most `tolerance` below the teacher's."""
        return int(np.argmax(self.scores >= self.scores[-1] - tolerance))


def answers(student: np.ndarray, teacher: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The cascade's logits [n, C], and whether each row went to the teacher [n], from both models' logits [n, C]."""
    asked = probabilities(student).max(axis=1) <= threshold
    return np.where(asked[:, None], teacher, student), asked


def curve(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, task: Task, points: int = 101) -> Curve:
    """Score against share of teacher calls.

    student, teacher: logits [n, C] of the same rows; labels: class indices [n], every row with one; points: about as
    many, evenly over the rows. Thresholds lie midway between neighbouring rows' sureness, so that rounding elsewhere
    moves no row. Raises ValueError without rows, for shapes that differ, and for regression, which has no sureness.
    """
    if task.regression:
        raise ValueError("a cascade needs classes: a score has no probability")
    if student.shape != teacher.shape or len(student) != len(labels) or not len(labels):
        raise ValueError(f"logits {student.shape} and {teacher.shape}, labels {labels.shape}")
    sure = np.unique(probabilities(student).max(axis=1))
    between = (sure[1:] + sure[:-1]) / 2
    if len(between) > points - 2:
        between = between[np.linspace(0, len(between) - 1, points - 2).astype(int)]
    thresholds = np.array([0.0, *between, 1.0])
    shares, scores = np.empty(len(thresholds)), np.empty(len(thresholds))
    once = np.ones((1, len(labels)))
    for number, threshold in enumerate(thresholds):
        logits, asked = answers(student, teacher, threshold)
        shares[number], scores[number] = asked.mean(), resampled(logits, labels, task, once)[0]
    return Curve(thresholds, shares, scores)


def held_out(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, task: Task, tolerance: float, seed: int = 0
) -> tuple[float, float]:
    """(share of teacher calls, score) when the threshold of each half of the rows is the one suggested on the other.

    What a threshold does to rows that it was not chosen on. Arguments as in `curve` and `Curve.suggested`.
    """
    half = halves(labels, seed)
    joined, asked = np.empty_like(student), np.empty(len(labels), bool)
    for number in (0, 1):
        seen, unseen = half != number, half == number
        found = curve(student[seen], teacher[seen], labels[seen], task)
        threshold = found.thresholds[found.suggested(tolerance)]
        joined[unseen], asked[unseen] = answers(student[unseen], teacher[unseen], threshold)
    return float(asked.mean()), float(resampled(joined, labels, task, np.ones((1, len(labels))))[0])
