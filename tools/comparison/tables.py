"""The table of finished models as Markdown, comma-separated values, HTML and a picture."""

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.files import atomic_path, write_atomic

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
DIFFERENCES = ("difference", "low_difference", "high_difference")


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
                points = [100 * score["control"][key] for key in DIFFERENCES]
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
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<style>body {font: 15px/1.5 system-ui, sans-serif; color: #1c2733; margin: 1rem; max-width: 60rem}",
        "table {border-collapse: collapse} th, td {border: 1px solid #b8c0ca; padding: 2px 8px; text-align: left}",
        "</style></head>",
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
