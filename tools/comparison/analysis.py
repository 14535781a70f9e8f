"""Where the students err, how sure they may be, and when to ask the teacher: flips, calibration, cascade.

Of each method the student that is kept, that of the first seed. Regression has none of the three.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data.tasks import Task
from distill.evaluation import calibration, cascade, flips
from distill.evaluation.predictions import Predictions
from distill.files import write_json
from tools.comparison.measure import Student

if TYPE_CHECKING:
    from distill.data.readers import Rows

EXAMPLES = 20
TOLERANCE = 0.5  # points below the teacher that a cascade may lose when --max_drop does not say


def analyse(
    students: Sequence[Student], teacher: Predictions, rows: "Rows", task: Task, tolerance: float
) -> dict[str, Any]:
    """{label of a method: {"flips", "calibration", "cascade"}} on the rows that have a label.

    tolerance: the score that a cascade may lose to the teacher, a share of 1.
    """
    if task.regression:
        return {}
    labelled = np.flatnonzero(teacher.labels >= 0)
    known, labels = rows.take(labelled), teacher.labels[labelled].astype(int)
    theirs = teacher.logits[labelled]
    found = {}
    for student in students:
        mine = student.distilled[0].logits[labelled]
        found[student.recipe.label] = {
            "method": student.recipe.name,
            "flips": flips_of(mine, theirs, labels, labelled, known, task),
            "calibration": calibration_of(mine, labels),
            "cascade": cascade_of(mine, theirs, labels, task, tolerance),
        }
    return found


def flips_of(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, numbers: np.ndarray, rows: "Rows", task: Task
) -> dict[str, Any]:
    """lost, gained; groups {kind: [Group]}; examples: of the lost rows those of which the student was surest.

    numbers: of the rows in the dev split, from 0.
    """
    lost, gained = flips.flipped(student, teacher, labels)
    unit = "characters" if task.language == "zh" else "words"
    kinds = {
        "class": (labels, task.labels),
        "length": flips.quartiles(flips.lengths(rows.text_a, rows.text_b, task.language), unit),
    }
    if rows.text_b is not None:
        kinds["words in common"] = flips.fifths(flips.overlaps(rows.text_a, rows.text_b, task.language))
    mine, theirs = (calibration.probabilities(logits) for logits in (student, teacher))
    wrong = np.flatnonzero(lost)
    surest = wrong[np.argsort(-mine[wrong].max(axis=1), kind="stable")][:EXAMPLES]
    return {
        "rows": len(labels),
        "lost": int(lost.sum()),
        "gained": int(gained.sum()),
        "groups": {kind: [asdict(g) for g in flips.grouped(*of, lost, gained)] for kind, of in kinds.items()},
        "lost_rows": [int(number) + 1 for number in numbers[wrong]],
        "examples": [
            {
                "row": int(numbers[i]) + 1,
                "text_a": rows.text_a[i],
                "text_b": None if rows.text_b is None else rows.text_b[i],
                "label": task.labels[labels[i]],
                "student": task.labels[mine[i].argmax()],
                "student_sure": float(mine[i].max()),
                "teacher_sure": float(theirs[i].max()),
            }
            for i in surest
        ],
    }


def calibration_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """before and after {"error", "rows", "confidence", "accuracy" of each bin}, after with each half's temperature
    fitted on the other half; temperature: fitted on all rows, for use."""
    ways = {"before": np.float64(1.0), "after": calibration.cross_fitted(logits, labels)}
    found: dict[str, Any] = {"temperature": calibration.fitted_temperature(logits, labels)}
    for name, temperature in ways.items():
        bins = calibration.reliability(calibration.probabilities(logits, temperature), labels)
        found[name] = {
            "error": bins.error,
            "rows": bins.rows.tolist(),
            **{key: [None if np.isnan(v) else float(v) for v in getattr(bins, key)] for key in _MEANS},
        }
    return found


_MEANS = ("confidence", "accuracy")


def cascade_of(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, task: Task, tolerance: float
) -> dict[str, Any]:
    """The curve; of the suggested point cascade_threshold, teacher_share and score; held_out: what thresholds chosen on
    one half of the rows do on the other."""
    found = cascade.curve(student, teacher, labels, task)
    point = found.suggested(tolerance)
    share, score = cascade.held_out(student, teacher, labels, task, tolerance)
    return {
        "thresholds": found.thresholds.tolist(),
        "shares": found.shares.tolist(),
        "scores": found.scores.tolist(),
        "tolerance": tolerance,
        "cascade_threshold": float(found.thresholds[point]),
        "teacher_share": float(found.shares[point]),
        "score": float(found.scores[point]),
        "held_out": {"teacher_share": share, "score": score},
    }


def write_cascades(analysis: dict[str, Any], folders: dict[str, str], teacher: str, task: Task, home: Path) -> None:
    """home/METHOD.json for each student: its cascade_threshold, and what it means; a bundle can carry it."""
    for label, found in analysis.items():
        cascade_found = found["cascade"]
        write_json(
            home / f"{found['method']}.json",
            {
                "cascade_threshold": cascade_found["cascade_threshold"],
                "rule": "ask the teacher when the student's largest softmax probability, at temperature 1, is at most "
                "cascade_threshold",
                "student": folders[label],
                "teacher": teacher,
                "task": task.name,
                "metric": task.metric,
                "rows": found["flips"]["rows"],
                **{key: cascade_found[key] for key in ("teacher_share", "score", "tolerance", "held_out")},
                "temperature": found["calibration"]["temperature"],
            },
        )
