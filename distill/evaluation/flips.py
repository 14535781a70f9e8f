"""Flips: rows on which the teacher is right and the student is wrong, and in which groups of rows they gather."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Group:
    """Of some rows: their name and number, the flips among them, and the rows that only the student has right.

    low, high: Wilson's 95 % interval of the share of flips.
    """

    name: str
    rows: int
    lost: int
    gained: int
    low: float
    high: float


def flipped(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(teacher right and student wrong, the reverse), bool [n] each, from logits [n, C] and class indices [n]."""
    mine, theirs = student.argmax(axis=1) == labels, teacher.argmax(axis=1) == labels
    return theirs & ~mine, mine & ~theirs


def grouped(numbers: np.ndarray, names: Sequence[str], lost: np.ndarray, gained: np.ndarray) -> list[Group]:
    """A Group for each name that has rows; numbers [n]: the index of each row's name; lost, gained: see `flipped`."""
    found = []
    for number, name in enumerate(names):
        rows = numbers == number
        if rows.any():
            n, flips = int(rows.sum()), int(lost[rows].sum())
            interval = binomtest(flips, n).proportion_ci(method="wilson")
            found.append(Group(name, n, flips, int(gained[rows].sum()), float(interval.low), float(interval.high)))
    return found


def units(text: str, language: str) -> list[str]:
    """The lower-cased words between spaces; of Chinese, `zh`, which has none, the characters."""
    words = text.lower().split()
    return list("".join(words)) if language == "zh" else words


def lengths(text_a: Sequence[str], text_b: Sequence[str] | None, language: str) -> np.ndarray:
    """The number of `units` of each row, of both texts together, int64 [n]."""
    pairs = zip(text_a, text_b if text_b is not None else [""] * len(text_a), strict=True)
    return np.array([len(units(a, language)) + len(units(b, language)) for a, b in pairs], np.int64)


def overlaps(text_a: Sequence[str], text_b: Sequence[str], language: str) -> np.ndarray:
    """Jaccard's index of the two texts' `units`, float64 [n]: 0 nothing in common, 1 the same words."""
    sets = [(set(units(a, language)), set(units(b, language))) for a, b in zip(text_a, text_b, strict=True)]
    return np.array([len(a & b) / max(1, len(a | b)) for a, b in sets])


def quartiles(values: np.ndarray, unit: str) -> tuple[np.ndarray, list[str]]:
    """(group [n], names): integers in up to four groups of about as many rows; equal values stay together.

    unit: the word after the numbers, such as `words`: `1 to 9 words`, `25 words`.
    """
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    number = np.searchsorted(edges, values, side="left")
    names = []
    for group in range(len(edges) + 1):
        members = values[number == group]
        low, high = (int(members.min()), int(members.max())) if len(members) else (0, 0)
        names.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    return number, names


def fifths(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(group [n], names): shares from 0 to 1 in five groups of equal width, `0 to 20 %` the first; an edge belongs to
    the group above it."""
    number = np.clip((values * 5 + 1e-9).astype(int), 0, 4)
    return number, [f"{20 * group} to {20 * group + 20} %" for group in range(5)]
