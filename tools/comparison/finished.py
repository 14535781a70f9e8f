"""What is known of finished models: shapes, sizes, scores with their seeds and control arms, and times."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from distill import runtime
from distill.errors import UserError
from distill.files import read_json
from distill.options import TaskOptions
from tools.comparison.tables import DIFFERENCES

if TYPE_CHECKING:
    from distill.data.tasks import Task


def task_named(name: str, timed: "Task") -> "Task":
    """The timed task, which may be own data, or one of the table. UserError for any other."""
    from distill.data.tasks import get_task

    return timed if name == timed.name else get_task(name)


_VALUES = {"runs": "folder", "scores": "a share of 1, such as 0.927"}
_VALID: dict[str, Callable[[Any], bool]] = {
    "runs": lambda value: isinstance(value, str),
    "scores": lambda value: isinstance(value, (int, float)) and -1 <= value <= 1,
}


def read_models(path: str, timed: "Task") -> list[dict[str, Any]]:
    """The models of a YAML, tasks by their official names. UserError for what is not as the head of compare.py says."""
    try:
        models = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["models"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise UserError(f"{path}:{line}: expected `models:` with a list of `label` and `runs` or `scores`") from None
    labels = set()
    for number, model in enumerate(models or (), start=1):
        if not isinstance(model, dict) or not {"label"} < set(model) <= {"label", "label_zh", "runs", "scores"}:
            raise UserError(f"{path}: model {number}: it has a label, and runs or scores ({{task: folder or number}})")
        model["label"] = str(model["label"])
        if model["label"] in labels:
            raise UserError(f"{path}: model {number}: `{model['label']}` is there twice")
        labels.add(model["label"])
        for key in ("runs", "scores"):
            values = model.get(key) or {}
            if not isinstance(values, dict) or not all(_VALID[key](value) for value in values.values()):
                raise UserError(f"{path}: model {number}: `{key}` is {{task: {_VALUES[key]}}}")
            model[key] = {task_named(task, timed).name: value for task, value in values.items()}
    if not models:
        raise UserError(f"{path}: no models in it")
    return list(models)


def of_folders(folders: Sequence[str], task: str) -> list[dict[str, Any]]:
    """The models of some folders, called by as much of their paths as tells them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    depth = next((n for n in range(1, 9) if len({"/".join(p[-n:]) for p in parts}) == len(parts)), None)
    if depth is None:
        raise UserError("--folders: a folder is given twice")
    return [
        {"label": "/".join(p[-depth:]), "runs": {task: f}, "scores": {}} for p, f in zip(parts, folders, strict=True)
    ]


def require_results(models: Sequence[dict[str, Any]]) -> None:
    """Raises UserError for a run without results, and for one of another task: its score would be in a wrong column."""
    for model in models:
        for task, folder in model["runs"].items():
            result_of(Path(folder))
            facts = Path(folder) / "run.json"
            of = read_json(facts).get("task", task) if facts.is_file() else task
            if of != task:
                raise UserError(
                    f"{folder}: a run for {of}, not for {task}; name that of {task}, or pass --task_name {of}"
                )


def arms(folder: Path) -> tuple[list[Path], list[Path]]:
    """Runs of all seeds of the model in `folder`, and its control arms, both by rising seed."""

    def seed(run: Path) -> int:
        return int(run.name.rpartition("-")[2])

    found = [run for run in (folder / "control").glob("*_seed-*") if run.name.rpartition("-")[2].isdigit()]
    of = {arm: sorted((r for r in found if r.name.startswith(f"{arm}_")), key=seed) for arm in ("distilled", "alone")}
    return [folder, *of["distilled"]], of["alone"]


def gather(models: Sequence[dict[str, Any]], timed: "Task") -> list[dict[str, Any]]:
    """A row for each model: label; layers, hidden, feed_forward, parameters (of its run for the timed task, or its
    first); and scores, for each task {"mean", "low", "high", "seeds", "metric", "folder", "best", "tie", "control"}.

    best: the highest below the first row that has runs; tie: the paired bootstrap has no evidence that it is worse.
    control: the same of the control arms, the difference with its interval, and the verdict on the teacher.
    """
    from distill.training.control import compare

    rows, runs = [], []
    for model in models:
        row: dict[str, Any] = {name: model[name] for name in ("label", "label_zh") if name in model}
        row["scores"] = {task: {"mean": score} for task, score in model["scores"].items()}
        mine = {task: arms(Path(folder)) for task, folder in model["runs"].items()}
        for task, (distilled, alone) in mine.items():
            metric = result_of(distilled[0])["metric"]
            row["scores"][task] = score = _summary(distilled, metric) | {"folder": str(distilled[0])}
            if alone and len(alone) == len(distilled):
                found = compare(distilled, alone, task_named(task, timed))
                values = (found.mean, found.low, found.high, found.verdict)
                score["control"] = _summary(alone, metric) | dict(zip((*DIFFERENCES, "verdict"), values, strict=True))
            elif alone:
                runtime.log(
                    f"{distilled[0]}: {len(distilled)} seeds and {len(alone)} control arms, which are left out; train "
                    "the missing ones with --control"
                )
        if mine:
            folder = mine[timed.name if timed.name in mine else next(iter(mine))][0][0]
            row |= shape(folder) | {"parameters": result_of(folder)["parameters"]}
        rows.append(row)
        runs.append(mine)
    below = [number for number, mine in enumerate(runs) if mine][1:]
    for task in dict.fromkeys(task for mine in runs for task in mine):
        mean = {number: rows[number]["scores"][task]["mean"] for number in below if task in runs[number]}
        best = max(mean, key=mean.__getitem__, default=None)
        for number in mean if len(mean) > 1 else ():
            if number == best:
                rows[number]["scores"][task]["best"] = True
            else:
                found = compare(runs[best][task][0], runs[number][task][0], task_named(task, timed))
                rows[number]["scores"][task]["tie"] = found.verdict == "no evidence"
    return rows


def result_of(folder: Path) -> dict[str, Any]:
    path = folder / "results_eval.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; evaluate the model first: python tools/evaluate.py {folder} ...")
    return dict(read_json(path))


def _summary(folders: Sequence[Path], metric: str) -> dict[str, Any]:
    scores = [result_of(folder)[metric] for folder in folders]
    mean, low, high = statistics.mean(scores), min(scores), max(scores)
    return {"mean": mean, "low": low, "high": high, "seeds": len(scores), "metric": metric}


def shape(folder: Path) -> dict[str, int]:
    """{"layers", "hidden", "feed_forward"}: layers without embeddings and head; of a BiLSTM the units in each direction
    and of the layer before the last."""
    from distill.encoders.folder import find_model

    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type") == "bilstm":
        hidden = config["hidden_size"]
        return {"layers": config["num_layers"], "hidden": hidden, "feed_forward": hidden}
    config = find_model(folder).config
    names = {"layers": "num_hidden_layers", "hidden": "hidden_size", "feed_forward": "intermediate_size"}
    return {ours: config[theirs] for ours, theirs in names.items()}


def time_them(
    models: Sequence[dict[str, Any]], task: "Task", args: TaskOptions, rounds: int, batch_size: int
) -> dict[str, Any]:
    """{"models": {folder: {"seconds" for the dev set, "latency_ms" of one text}}}, and on what they were timed.

    Raises UserError for a model that was scored on other rows.
    """
    from distill.data.tasks import load_rows
    from distill.training.control import dev_predictions
    from tools.latency import side_by_side

    folders = [model["runs"][task.name] for model in models if task.name in model["runs"]]
    if not folders:
        raise UserError(f"--task_name {task.name}: no model has a run for it to be timed")
    rows = load_rows(args, task, task.dev_splits[0])
    labels = np.asarray(rows.labels)
    for folder in folders:
        result_of(Path(folder))
        scored = dev_predictions(Path(folder), task).labels.astype(labels.dtype)
        if not np.array_equal(scored, labels):
            raise UserError(f"{folder}: was scored on other rows than {rows.source}; evaluate it again")
    found = side_by_side(folders, rows, rounds, batch_size, args.max_seq_length)
    times = {
        folder: {"seconds": len(rows) / values["samples_per_second"], "latency_ms": values["latency_ms"]["p50"]}
        for folder, values in found.items()
    }
    facts = {"task": task.name, "metric": task.metric, "what": f"{task.name} dev", "rows": len(rows)}
    return {"models": times, **facts, "rounds": rounds, "batch_size": batch_size}
