"""Two ways in which the training of sentence vectors fails without a word: all vectors become alike, and the squared
error to a teacher of unit vectors is too small to learn from.

    scale = teacher_scale(vectors.batch(sample))      # before training: by what the teacher's vectors are multiplied

    def dev_scores():                                 # at each evaluation
        return scores | spread_scores(run, student_vectors, teacher_vectors)
"""

import json

import numpy as np

from distill.errors import UserError
from distill.runtime import log
from distill.training.fit import TrainingStopped
from distill.training.monitor import Run

LEAST_SHARE = 0.05  # a healthy student comes near 1, one that gives the mean vector for everything near 0
PATIENCE = 3  # a student begins by learning the mean vector: one look is not enough
_UNIT = 1e-3  # lengths of unit vectors differ from 1 by rounding, at most by that of half precision


def mean_cosine(vectors: np.ndarray) -> float:
    """The mean cosine of each two different rows of vectors [n, H], n at least 2, in float64; 1 when all point the same
    way, for random ones near 0. A row of zeros has the cosine 0 with every other."""
    n = len(vectors)
    if n < 2:
        raise ValueError(f"{n} vectors have no pair")
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    # The sum over all pairs is the squared length of the sum; the rows' products with themselves are taken off.
    return float(((unit.sum(axis=0) ** 2).sum() - (lengths > 0).sum()) / (n * (n - 1)))


def spread_scores(run: Run, student: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
    """{'mean_cosine', 'spread'}, to be returned among the dev scores: of the student's vectors, and
    (1 - mean cosine) / (1 - the teacher's).

    student [n, H], teacher [n, any]: of the same sentences, different ones, all in one language.
    Raises TrainingStopped when the spread is below 0.05 for the third evaluation running. The earlier ones are read
    from the run's metrics.jsonl, so a run that was killed and continued stops at the same step. Raises UserError for a
    teacher whose own vectors are all alike.
    """
    cosine, of_teacher = mean_cosine(student), mean_cosine(teacher)
    if 1 - of_teacher < 1e-6:
        raise UserError("the teacher gives all sentences the same vector, so there is nothing to learn; choose another")
    spread = (1 - cosine) / (1 - of_teacher)
    latest = [*_earlier(run), spread][-PATIENCE:]
    if len(latest) == PATIENCE and max(latest) < LEAST_SHARE:
        raise TrainingStopped(
            f"stopped: the student's vectors have become alike (mean cosine of two of {len(student):,} sentences "
            f"{cosine:.3f}, the teacher's {of_teacher:.3f}, at {PATIENCE} evaluations running); train anew with a "
            "lower learning rate, more rows a batch, or larger teacher vectors"
        )
    return {"mean_cosine": cosine, "spread": spread}


def _earlier(run: Run) -> list[float]:
    path = run.output_dir / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [row["dev"]["spread"] for row in map(json.loads, text.splitlines()) if "spread" in row.get("dev", {})]


def is_unit(vectors: np.ndarray) -> bool:
    """Whether all rows of vectors [n, H] have the length 1."""
    return bool((np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1) < _UNIT).all())


def teacher_scale(vectors: np.ndarray, scaled: bool = True) -> float:
    """By what to multiply a teacher's vectors, of which `vectors` [n, H] are some: 1, and for unit vectors sqrt(H).

    The numbers of unit vectors have the mean square 1/H, and so has about the squared error of a student that knows
    nothing: it learns next to nothing from it. With sqrt(H) the mean square is 1; directions, and so all cosines, stay.
    With scaled=False unit vectors stay as they are and a warning is printed.
    """
    if not is_unit(vectors):
        return 1.0
    size = vectors.shape[1]
    small = f"the teacher's vectors have the length 1, so that their squared error is of the size of 1/{size}"
    if not scaled:
        log(f"warning: {small} and teaches little; scale them, or take a teacher that does not normalise")
        return 1.0
    log(f"{small}: they are multiplied by the square root of {size}")
    return float(np.sqrt(size))
