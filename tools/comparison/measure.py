"""What the students are worth: score, agreement with the teacher, size, latency, training; and the choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import runtime
from distill.data.tasks import Task
from distill.evaluation.predictions import Predictions, load_predictions, save_predictions
from distill.evaluation.statistics import Difference, paired_bootstrap, score_interval
from distill.files import read_json
from tools.comparison.finished import arms, result_of, shape
from tools.comparison.plan import Plan, Recipe, training_seconds, training_steps

if TYPE_CHECKING:
    from distill.data.readers import Rows


@dataclass(frozen=True)
class Student:
    """A method's finished runs: the folder that is kept, the dev predictions of its seeds and of its control arms."""

    recipe: Recipe
    folder: Path
    distilled: list[Predictions]
    alone: list[Predictions]


def read_students(plan: Plan, recipes: Sequence[Recipe], task: Task) -> list[Student]:
    """The students of a plan that is done."""

    def predictions(folders: Sequence[Path]) -> list[Predictions]:
        return [load_predictions(folder)[task.dev_splits[0]] for folder in folders]

    found = []
    for recipe in recipes:
        distilled, alone = arms(plan.student(recipe.name))
        found.append(Student(recipe, distilled[0], predictions(distilled), predictions(alone)))
    return found


def predict(
    folder: str | Path, rows: "Rows", max_length: int, batch_size: int, home: Path
) -> tuple[Predictions, int, int]:
    """(predictions of a finished model, its parameters, the bytes of its weights); the predictions are written to
    `home` as a run's are, and read again, so that their labels are spelled as the students' are."""
    from models.predictor import open_folder

    model = open_folder(folder, max_length)
    logits = model.logits(rows.text_a, rows.text_b, batch_size)
    save_predictions(home, {"dev": Predictions(logits, np.asarray(rows.labels))})
    parameters = sum(int(p.size) for p in model.model.parameters())
    return load_predictions(home)["dev"], parameters, model.weights.stat().st_size


def table_rows(
    students: Sequence[Student],
    teacher: tuple[str, Predictions, int, int],
    times: Mapping[str, dict[str, Any]],
    plan: Plan,
    task: Task,
) -> list[dict[str, Any]]:
    """A row for the teacher, (folder, predictions, parameters, bytes), and one for each student.

    times: what `tools.latency.side_by_side` gives for their folders. In a row:
    score {"mean", "low", "high", "seeds"}; to_teacher, the student's score less the teacher's, and control, less its
    control arm's, {"mean", "low", "high"} (control: "verdict", and "score" of the arm); agreement: share of rows with
    the teacher's answer (regression: Pearson's correlation with its answers), mean of the seeds; mark: best or tie.
    """
    folder, predictions, parameters, size = teacher
    rows: list[dict[str, Any]] = [
        {"label": "teacher", "folder": folder, "score": score_of([predictions], task), "parameters": parameters}
        | {"bytes": size, **shape(Path(folder)), **_times(times[folder])}
    ]
    for student in students:
        result = result_of(student.folder)
        control = paired_bootstrap(student.distilled, student.alone, task)
        _, alone = arms(student.folder)
        row: dict[str, Any] = {
            "label": student.recipe.label,
            "method": student.recipe.name,
            "folder": str(student.folder),
            "score": score_of(student.distilled, task),
            "to_teacher": difference_of(paired_bootstrap(student.distilled, [predictions], task)),
            "control": difference_of(control) | {"verdict": control.verdict, "score": score_of(student.alone, task)},
            "agreement": float(np.mean([agreement(p.logits, predictions.logits) for p in student.distilled])),
            "parameters": result["parameters"],
            "bytes": result["bytes"],
            **shape(student.folder),
            **_times(times[str(student.folder)]),
            "steps": training_steps(student.folder),
            "training_minutes": training_seconds(student.folder) / 60,
            "control_minutes": training_seconds(alone[0]) / 60,
            "minutes_in_all": plan.minutes[student.recipe.name],
            "seconds": read_json(student.folder / "run.json")["seconds"],
        }
        rows.append(row)
    mark(rows[1:], students, task)
    return rows


def agreement(student: np.ndarray, teacher: np.ndarray) -> float:
    """The share of rows [n, C] on which both answer the same; of scores [n, 1] Pearson's correlation, 0 for a
    constant."""
    if student.shape[1] > 1:
        return float((student.argmax(axis=1) == teacher.argmax(axis=1)).mean())
    x, y = (v[:, 0].astype(np.float64) for v in (student, teacher))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


def score_of(models: Sequence[Predictions], task: Task) -> dict[str, Any]:
    """{"mean", "low", "high"}, and "seeds": the score of each."""
    found = score_interval(models, task)
    return {"mean": found.mean, "low": found.low, "high": found.high, "seeds": list(found.scores)}


def difference_of(found: Difference) -> dict[str, Any]:
    """{"mean", "low", "high"}."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _times(found: dict[str, Any]) -> dict[str, Any]:
    return {"latency_ms": found["latency_ms"], "samples_per_second": found["samples_per_second"]}


def mark(rows: Sequence[dict[str, Any]], students: Sequence[Student], task: Task) -> None:
    """Put into each row its mark: `best`, the highest mean, `tie`, where the paired bootstrap has no evidence that it
    is worse, or None."""
    best = max(range(len(rows)), key=lambda number: rows[number]["score"]["mean"])
    rows[best]["mark"] = "best"
    for number, row in enumerate(rows):
        if number != best:
            found = paired_bootstrap(students[best].distilled, students[number].distilled, task)
            row["mark"] = "tie" if found.verdict == "no evidence" else None


def choose(rows: Sequence[dict[str, Any]], limits: Mapping[str, float]) -> dict[str, Any]:
    """The cheapest student that keeps the limits: the lowest p95 latency, of equals the fewest bytes.

    rows: of the students; limits: some of max_p95_ms (milliseconds), max_drop (points of 100 below the teacher, mean of
    the seeds) and max_mb (10^6 bytes of weights). Returns {"limits", "chosen": label or None, "broken": {label:
    [sentence for each limit that it breaks]}}.
    """
    values = {
        "max_p95_ms": lambda row: (row["latency_ms"]["p95"], "ms p95"),
        "max_drop": lambda row: (-100 * row["to_teacher"]["mean"], "points below the teacher"),
        "max_mb": lambda row: (row["bytes"] / 1e6, "MB"),
    }
    broken: dict[str, list[str]] = {row["label"]: [] for row in rows}
    for row in rows:
        for name, limit in limits.items():
            value, unit = values[name](row)
            if value > limit + 1e-9:
                broken[row["label"]].append(f"--{name} {limit:g}: {value:.4g} {unit}")
    cheapest = sorted(rows, key=lambda row: (row["latency_ms"]["p95"], row["bytes"]))
    fitting = [row["label"] for row in cheapest if not broken[row["label"]]]
    return {"limits": dict(limits), "chosen": fitting[0] if fitting else None, "broken": broken}


def verdict(choice: Mapping[str, Any]) -> list[str]:
    """The choice in lines: what was chosen, or why nothing, then what each other student breaks."""
    limits = ", ".join(f"--{name} {limit:g}" for name, limit in choice["limits"].items())
    if choice["chosen"]:
        lines = [f"chosen: {choice['chosen']}, the cheapest student within {limits}"]
    else:
        failing = [
            f"--{name}"
            for name in choice["limits"]
            if all(any(s.startswith(f"--{name} ") for s in broken) for broken in choice["broken"].values())
        ]
        why = f"{' and '.join(failing)}: no student keeps it" if failing else "each limit is kept, but not all by one"
        lines = [f"no student fits {limits} ({why})"]
    return lines + [f"{label} breaks {'; '.join(broken)}" for label, broken in choice["broken"].items() if broken]


def facts(task: Task, rows: int) -> dict[str, Any]:
    """What a result says of its task and of the machine."""
    return {
        "task": task.name,
        "metric": task.metric,
        "rows": rows,
        "versions": runtime.versions(),
        "hardware": runtime.hardware(),
    }
