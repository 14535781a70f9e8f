"""Put finished models beside each other: layers, sizes, the time for a whole dev set, and a score for each task.

    python tools/compare.py --folders my_teacher my_student --task_name SST-2 --data_dir data/glue_data
    python tools/compare.py results/compare.yaml --data_dir data/glue_data --output_dir results

The YAML names the models, the reference first, each with the folder of its run for every task: the runs of further
seeds and the control arms that --control has put into that folder are found there. The models of --task_name are timed
side by side, on the same rows, in this process. Written are NAME.json (everything that was found), and from it NAME.md,
.csv, .html and .png; such a JSON in place of the YAML is only written out again.

    models:
      - label: BERT_base (reported)
        scores: {SST-2: 0.927, MRPC: 0.886}
      - label: teacher
        runs: {SST-2: models/teacher_model/SST-2/ID, MRPC: models/teacher_model/MRPC/ID}
"""

import csv
import html
import io
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.files import atomic_path, read_json, write_atomic, write_json
from distill.options import RuntimeOptions, TaskOptions, option

if TYPE_CHECKING:
    from distill.data.tasks import Task

TIE = "≈"
_WORDS = {
    "en": {
        "heads": ("model", "layers", "hidden", "feed-forward", "parameters", "time", "ms a text"),
        "alone": ", labels alone",
        "times": "Times: {what}, {rows} rows in batches of {batch_size}, and one text at a time; all models in one "
        "run on {cores} cores, in turn, median of {rounds}.",
        "marks": "Bold: the best below the reference; ≈ no evidence that it is worse (paired bootstrap, 95 %).",
        "control": "{label}, {task}, with the teacher less alone: {0:+.1f} points ({1:+.1f} to {2:+.1f}): {verdict}",
        "verdicts": {"helps": "helps", "no evidence": "no evidence", "hurts": "hurts"},
    },
    "zh": {
        "heads": ("模型", "层数", "隐层", "前馈层", "参数量", "时间", "每条毫秒"),
        "alone": "，仅标签",
        "times": "时间：{what}，{rows} 条，批大小 {batch_size}，以及逐条；所有模型在同一次运行中轮流测量，"
        "{cores} 核，取 {rounds} 次的中位数。",
        "marks": "加粗：参照模型以下的最好成绩；≈ 没有证据表明更差（配对自助法，95 %）。",
        "control": "{label}，{task}，有教师减去仅标签：{0:+.1f} 点（{1:+.1f} 至 {2:+.1f}）：{verdict}",
        "verdicts": {"helps": "有帮助", "no evidence": "没有证据", "hurts": "有害"},
    },
}
_BOLD = ("<b>", "</b>")
_DIFFERENCES = ("difference", "low_difference", "high_difference")


@dataclass
class CompareArgs(TaskOptions, RuntimeOptions):
    """Compare finished models."""

    source: str = field(default="", positional=True, nargs="?", help="YAML of the models, or JSON of a comparison")
    folders: list[str] = field(default_factory=list, help="instead of a YAML: folders of models of --task_name")
    output_dir: str = option(".", "where the results are written")
    name: str = option("", "name of the results; without it the YAML's, or compare")
    rounds: int = option(3, "each model is timed this often, in turn; the median counts", low=1)
    eval_batch_size: int = option(128, "rows a batch, for the time of the whole dev set", low=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what the JSON holds."""
    args = parse(CompareArgs, argv, __doc__)
    if bool(args.source) == bool(args.folders):
        raise UserError(
            "give a YAML of the models, or --folders: python tools/compare.py --folders TEACHER STUDENT ..."
        )
    if args.source.endswith(".json"):
        result = read_json(args.source)
        if not isinstance(result, dict) or not {"models", "timed", "hardware"} <= set(result):
            raise UserError(f"{args.source}: not a comparison that this tool has written")
        write_tables(result, Path(args.source).with_suffix(""))
        return dict(result)
    runtime.start(args.device)
    from distill.data.tasks import load_task

    timed = load_task(args)
    models = read_models(args.source) if args.source else of_folders(args.folders, timed.name)
    result = {"models": gather(models, timed), "timed": time_them(models, timed, args)}
    for row, model in zip(result["models"], models, strict=True):
        row.update(result["timed"]["models"].get(model["runs"].get(timed.name), {}))
    del result["timed"]["models"]
    command = shlex.join(["python", *sys.argv])
    result |= {"command": command, "versions": runtime.versions(), "hardware": runtime.hardware()}
    path = Path(args.output_dir) / (args.name or (Path(args.source).stem if args.source else "compare"))
    write_json(f"{path}.json", result)
    write_tables(result, path)
    print(markdown(result))
    return result


def read_models(path: str) -> list[dict[str, Any]]:
    """The models of a YAML, tasks by their official names. UserError for what is not as the head of this file says."""
    from distill.data.tasks import get_task

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
        if model["label"] in labels:
            raise UserError(f"{path}: model {number}: `{model['label']}` is there twice")
        labels.add(model["label"])
        for key in ("runs", "scores"):
            model[key] = {get_task(task).name: value for task, value in model.get(key, {}).items()}
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


def arms(folder: Path) -> tuple[list[Path], list[Path]]:
    """Runs of all seeds of the model in `folder`, and its control arms."""
    control = folder / "control"
    return [folder, *sorted(control.glob("distilled_seed-*"))], sorted(control.glob("alone_seed-*"))


def gather(models: Sequence[dict[str, Any]], timed: "Task") -> list[dict[str, Any]]:
    """A row for each model: label; layers, hidden, feed_forward, parameters (of its run for the timed task, or its
    first); and scores, for each task {"mean", "low", "high", "seeds", "metric", "folder", "best", "tie", "control"}.

    best: the highest below the first row that has runs; tie: the paired bootstrap has no evidence that it is worse.
    control: the same of the control arms, the difference with its interval, and the verdict on the teacher.
    """
    from distill.data.tasks import get_task
    from distill.training.control import compare

    def task_named(name: str) -> "Task":
        return timed if name == timed.name else get_task(name)

    rows, runs = [], []
    for model in models:
        row: dict[str, Any] = {name: model[name] for name in ("label", "label_zh") if name in model}
        row["scores"] = {task: {"mean": score} for task, score in model["scores"].items()}
        mine = {task: arms(Path(folder)) for task, folder in model["runs"].items()}
        for task, (distilled, alone) in mine.items():
            metric = _result(distilled[0])["metric"]
            row["scores"][task] = score = _summary(distilled, metric) | {"folder": str(distilled[0])}
            if alone and len(alone) == len(distilled):
                found = compare(distilled, alone, task_named(task))
                values = (found.mean, found.low, found.high, found.verdict)
                score["control"] = _summary(alone, metric) | dict(zip((*_DIFFERENCES, "verdict"), values, strict=True))
        if mine:
            folder = mine[timed.name if timed.name in mine else next(iter(mine))][0][0]
            row |= shape(folder) | {"parameters": _result(folder)["parameters"]}
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
                found = compare(runs[best][task][0], runs[number][task][0], task_named(task))
                rows[number]["scores"][task]["tie"] = found.verdict == "no evidence"
    return rows


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "results_eval.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; evaluate the model first: python tools/evaluate.py {folder} ...")
    return dict(read_json(path))


def _summary(folders: Sequence[Path], metric: str) -> dict[str, Any]:
    scores = [_result(folder)[metric] for folder in folders]
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


def time_them(models: Sequence[dict[str, Any]], task: "Task", args: CompareArgs) -> dict[str, Any]:
    """{"models": {folder: {"seconds" for the dev set, "latency_ms" of one text}}}, and on what they were timed."""
    from distill.data.tasks import load_rows
    from tools.latency import side_by_side

    folders = [model["runs"][task.name] for model in models if task.name in model["runs"]]
    if not folders:
        raise UserError(f"--task_name {task.name}: no model has a run for it to be timed")
    rows = load_rows(args, task, task.dev_splits[0])
    found = side_by_side(folders, rows, args.rounds, args.eval_batch_size, args.max_seq_length)
    times = {
        folder: {"seconds": len(rows) / values["samples_per_second"], "latency_ms": values["latency_ms"]["p50"]}
        for folder, values in found.items()
    }
    facts = {"task": task.name, "metric": task.metric, "what": f"{task.name} dev", "rows": len(rows)}
    return {"models": times, **facts, "rounds": args.rounds, "batch_size": args.eval_batch_size}


def write_tables(result: dict[str, Any], path: Path) -> None:
    """Write `path`.md, .csv, .html and, where models were timed and have a score, .png."""
    write_atomic(f"{path}.md", markdown(result) + "\n")
    write_atomic(f"{path}.csv", comma_separated(result))
    write_atomic(f"{path}.html", page(result))
    timed = result["timed"]
    points = {
        row["label"]: (row["latency_ms"], row["scores"][timed["task"]]["mean"], row["parameters"])
        for row in result["models"]
        if "latency_ms" in row and row["scores"]
    }
    if points:
        chart(points, Path(f"{path}.png"), f"{timed['what']} {timed['metric']}", timed["what"])


def tasks(result: dict[str, Any]) -> list[str]:
    """The tasks in the order in which they first occur."""
    return list(dict.fromkeys(task for row in result["models"] for task in row["scores"]))


def markdown(result: dict[str, Any], language: str = "en") -> str:
    """The table, a line for each model and one for its control arm, and what its marks mean."""
    columns, words = tasks(result), _WORDS[language]
    heads = [*words["heads"], *columns]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row, figures in zip(result["models"], _figures(result), strict=True):
        name, scores = row.get(f"label_{language}", row["label"]), [row["scores"].get(task, {}) for task in columns]
        lines.append("| " + " | ".join([name, *figures, *map(_cell, scores)]) + " |")
        if any("control" in score for score in scores):
            controls = [_cell(score.get("control", {})) for score in scores]
            lines.append("| " + " | ".join([name + words["alone"], *[""] * len(figures), *controls]) + " |")
    said = notes(result, language)
    return "\n".join([*lines, "", *(f"*{line}*  " for line in said[:-1]), f"*{said[-1]}*"])


def notes(result: dict[str, Any], language: str = "en") -> list[str]:
    """Sentences below the table."""
    words = _WORDS[language]
    lines = [words["times"].format(cores=result["hardware"]["cores"], **result["timed"])]
    if any("tie" in score for row in result["models"] for score in row["scores"].values()):
        lines.append(words["marks"])
    for row in result["models"]:
        for task, score in row["scores"].items():
            if "control" in score:
                points = [100 * score["control"][key] for key in _DIFFERENCES]
                verdict = words["verdicts"][score["control"]["verdict"]]
                label = row.get(f"label_{language}", row["label"])
                lines.append(words["control"].format(*points, label=label, task=task, verdict=verdict))
    return lines


def _figures(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """For each row what stands between label and scores; ratios are relative to the first row that has them."""
    rows = result["models"]
    reference = {key: next((row for row in rows if key in row), {}) for key in ("parameters", "seconds")}

    def ratio(row: dict[str, Any], key: str) -> str:
        return "(1×)" if row is reference[key] else f"({reference[key][key] / row[key]:.1f}×)"

    return [
        (
            str(row.get("layers", "")),
            str(row.get("hidden", "")),
            str(row.get("feed_forward", "")),
            f"{row['parameters'] / 1e6:.4g}M {ratio(row, 'parameters')}" if "parameters" in row else "",
            f"{row['seconds']:.2f}s {ratio(row, 'seconds')}" if "seconds" in row else "",
            f"{row['latency_ms']:.2f}" if "latency_ms" in row else "",
        )
        for row in rows
    ]


def _cell(score: dict[str, Any], bold: tuple[str, str] = ("**", "**")) -> str:
    if not score:
        return ""
    text = f"{100 * score['mean']:.1f}%"
    if score.get("best"):
        text = bold[0] + text + bold[1]
    if score.get("seeds", 1) > 1:
        text += f" ({100 * score['low']:.1f} to {100 * score['high']:.1f}, {score['seeds']} seeds)"
    return text + (f" {TIE}" if score.get("tie") else "")


def comma_separated(result: dict[str, Any]) -> str:
    """The same as numbers: shares of 1, seconds, milliseconds; `mark` is best or tie; empty where there is none."""
    columns, text = tasks(result), io.StringIO()
    figures = ("layers", "hidden", "feed_forward", "parameters", "seconds", "latency_ms")
    parts = ("mean", "low", "high", "seeds")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *figures, *(f"{task} {part}" for task in columns for part in (*parts, "mark"))])

    def line(label: str, row: dict[str, Any], scores: Sequence[dict[str, Any]]) -> None:
        marks = ["best" if score.get("best") else "tie" if score.get("tie") else None for score in scores]
        cells = [cell for score, mark in zip(scores, marks, strict=True) for cell in (*map(score.get, parts), mark)]
        writer.writerow([label, *map(row.get, figures), *cells])

    for row in result["models"]:
        scores = [row["scores"].get(task, {}) for task in columns]
        line(row["label"], row, scores)
        if any("control" in score for score in scores):
            line(row["label"] + _WORDS["en"]["alone"], {}, [score.get("control", {}) for score in scores])
    return text.getvalue()


def page(result: dict[str, Any]) -> str:
    """An HTML page with the table in its published form: five lines for each model beside its scores."""
    columns = tasks(result)
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Models compared</title>',
        "<style>table {border-collapse: collapse} th, td {border: 1px solid #999; padding: 2px 8px}</style></head>",
        "<body>",
        "<table>",
        "<thead><tr>",
        '  <th colspan="3">Model</th>',
        *(f"  <th>{html.escape(task)}</th>" for task in columns),
        "</tr></thead>",
        "<tbody>",
    ]
    names = ("Layers", "Hidden Size", "Feed-forward Size", "Model Size", "Inference Time")
    for row, figures in zip(result["models"], _figures(result), strict=True):
        label, scores = html.escape(row["label"]), [row["scores"].get(task, {}) for task in columns]
        if "parameters" in row:
            for name, figure in zip(names, figures, strict=False):
                first, last = [], []
                if name == names[0]:
                    first = [f'  <td rowspan="{len(names)}">{label}</td>']
                    last = [f'  <td rowspan="{len(names)}">{_cell(score, _BOLD)}</td>' for score in scores]
                lines += ["<tr>", *first, f"  <td>{name}</td>", f"  <td>{figure}</td>", *last, "</tr>"]
        else:
            lines += _plain_line(label, scores)
        if any("control" in score for score in scores):
            lines += _plain_line(label + _WORDS["en"]["alone"], [score.get("control", {}) for score in scores])
    lines += ["</tbody>", "</table>"]
    lines += [f"<p>{html.escape(line)}</p>" for line in notes(result)]
    return "\n".join([*lines, "</body></html>", ""])


def _plain_line(label: str, scores: Sequence[dict[str, Any]]) -> list[str]:
    cells = [f"  <td>{_cell(score, _BOLD)}</td>" for score in scores]
    return ["<tr>", f'  <td colspan="3">{label}</td>', *cells, "</tr>"]


def chart(points: dict[str, tuple[float, float, int]], path: Path, score: str, source: str) -> None:
    """A PNG of score against latency. points: {label: (milliseconds a text, score, parameters)}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(figsize=(9, 4.2), dpi=150)
    for number, (label, (milliseconds, value, parameters)) in enumerate(points.items()):
        told = f"{label}\n{value:.3f}, {milliseconds:.2f} ms, {parameters / 1e6:.1f} M parameters"
        axes.scatter(milliseconds, value, s=60, marker="osD^v"[number // 10 % 5], label=told)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.25)
    axes.set(xlabel="milliseconds a text, one at a time (log scale)", ylabel=score, title="Score against latency")
    axes.grid(alpha=0.3)
    # Beside the picture: names on top of points that lie close together could not be read.
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False, labelspacing=1.0)
    figure.text(0.01, 0.01, f"Data: {source}", fontsize=6)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


if __name__ == "__main__":
    run(main)
