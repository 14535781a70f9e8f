"""The report of a comparison: table, choice, pictures, flips, calibration and cascades in one HTML file.

Everything is inside the file, pictures too: it asks no server for anything. Below 700 pixels the main table's rows
become cards. Texts of the data are escaped.
"""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.files import write_atomic
from tools.comparison import pictures
from tools.comparison.students import explanations, heads, of_numbers, student_cells

_STYLE = """
:root { color-scheme: light; --line: #d9dee5; --soft: #f4f6f9; --ink: #1c2733; --faint: #5b6875; --good: #0a6b3d;
  --bad: #a32121; }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif }
h1, p, li, blockquote, summary { overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem }
p, li { max-width: 46rem }
.faint, figcaption { color: var(--faint); font-size: .9rem }
.choice { background: var(--soft); border-left: 4px solid var(--good); padding: .6rem .9rem; margin: 1rem 0 }
.choice.none { border-color: var(--bad) }
.whole { white-space: nowrap }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; background: var(--soft) }
td small { white-space: nowrap; color: var(--faint) }
.cards td:first-child { font-weight: 600 }
.bars td:last-child { min-width: 7rem; vertical-align: middle }
.bars td:last-child span { display: block; height: .7rem; background: #c8553d; border-radius: 2px }
figure { margin: 1rem 0; max-width: 34rem }
figure img { width: 100%; height: auto; display: block }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem }
details { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .8rem; margin: .6rem 0 }
summary { cursor: pointer; font-weight: 600 }
blockquote { margin: .5rem 0; padding: .3rem .8rem; border-left: 3px solid var(--line) }
@media (max-width: 700px) {
  table.cards thead { display: none }
  table.cards, table.cards tbody, table.cards tr, table.cards td { display: block }
  table.cards tr { border: 1px solid var(--line); border-radius: 6px; margin: .7rem 0; padding: .3rem .7rem }
  table.cards td { border: 0; padding: .15rem 0; display: flex; justify-content: space-between; gap: 1rem;
    text-align: right }
  table.cards td::before { content: attr(data-head); color: var(--faint); text-align: left; flex: 0 0 42% }
  table.cards td:first-child { text-align: left; border-bottom: 1px solid var(--line) }
  table.cards td:first-child::before, table.cards td:empty, .bars th:last-child, .bars td:last-child { display: none }
}
"""


def write_report(result: Mapping[str, Any], analysis: Mapping[str, Any], path: Path) -> list[Path]:
    """Write `path`, and the pictures as PNG into `path`'s folder pictures/; returns the pictures."""
    rows, metric, home = [result["teacher"], *result["students"]], result["metric"], path.parent / "pictures"
    drawn = {"score_latency": pictures.score_latency(rows, metric, home / "score_latency.png")}
    if analysis:
        drawn["cascade"] = pictures.cascades(analysis, metric, home / "cascade.png")
    for found in analysis.values():
        name = f"reliability_{found['method']}"
        drawn[name] = pictures.reliability(found["calibration"], home / f"{name}.png")
    write_atomic(path, page(result, analysis, drawn))
    return [home / f"{name}.png" for name in drawn]


def page(result: Mapping[str, Any], analysis: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """The HTML; drawn: the pictures' SVG by name."""
    data = "your own data" if result["task"] == "own" else result["task"]
    title, rows = f"Students of one teacher on {data}", (result["teacher"], *result["students"])
    lines = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        f'<p class="faint">{result["rows"]} dev rows, {_text(result["metric"])}; {_text(_machine(result))}.</p>',
        *_choice(result),
        '<div id="students">' + _table(heads(result), [_student(row, of_numbers(result)) for row in rows], "cards"),
        "</div>",
        *(f'<p class="faint">{_line(line)}</p>' for line in explanations(result)),
    ]
    lines += ["<h2>Score and latency</h2>", _figure(drawn["score_latency"], "Score against latency", "chart")]
    if analysis:
        lines += [*_cascades(analysis, drawn), *_flips(analysis), *_calibration(analysis, drawn)]
    else:
        lines.append("<p>The task asks for a score: flips, calibration and cascades need classes.</p>")
    lines += [
        "<h2>How this was made</h2>",
        f"<p><code>{_line(result['command'])}</code></p>",
        f'<p class="faint">{_text(", ".join(f"{k} {v}" for k, v in result["versions"].items()))}</p>',
    ]
    return "\n".join([*lines, "</body></html>", ""])


def _student(row: Mapping[str, Any], correlation: bool) -> list[str]:
    """The cells, intervals small."""
    first, *others = student_cells(row, correlation, bold=("<b>", "</b>"), escape=html.escape)
    shown = [re.sub(r"(\([^)]*\)):?", r"<small>\1</small>", cell).replace(" %", "\u00a0%") for cell in others]
    return [first, *(f"<span>{cell}</span>" if cell else "" for cell in shown)]


def _choice(result: Mapping[str, Any]) -> list[str]:
    choice = result["choice"]
    if not choice:
        return []
    first, *rest = choice["said"]
    kind = "choice" if choice["chosen"] else "choice none"
    broken = "".join(f"<li>{_line(line)}</li>" for line in rest)
    return [f'<div class="{kind}"><b>{_line(first)}</b>' + (f"<ul>{broken}</ul>" if rest else "") + "</div>"]


def _cascades(analysis: Mapping[str, Any], drawn: Mapping[str, str]) -> list[str]:
    tolerance = next(iter(analysis.values()))["cascade"]["tolerance"]
    body = []
    for label, found in analysis.items():
        cascade = found["cascade"]
        held = cascade["held_out"]
        share = cascade["teacher_share"]
        told = "student alone" if share == 0 else "teacher alone" if share == 1 else _percent(share)
        cells = [
            _text(label), f"{cascade['cascade_threshold']:.4f}", told, f"{100 * cascade['score']:.1f}",
            f"{100 * held['score']:.1f} with {_percent(held['teacher_share'])}",
        ]  # fmt: skip
        body.append(cells)
    return [
        "<h2>Cascade: the student answers when it is sure, else the teacher</h2>",
        _figure(drawn["cascade"], "Score against share of teacher calls, suggested thresholds ringed", "cascade"),
        f"<p>Suggested is the lowest threshold at which the cascade is at most {100 * tolerance:g} points below the "
        "teacher. The student is sure when its largest probability is above the threshold. The last column is the fair "
        "estimate: the threshold of each half of the rows chosen on the other half.</p>",
        _table(("student", "threshold", "rows to the teacher", "score", "on rows it was not chosen on"), body, "cards"),
    ]


def _flips(analysis: Mapping[str, Any]) -> list[str]:
    lines = [
        "<h2>Flips: the teacher is right and the student wrong</h2>",
        '<p class="faint">Of the student of the first seed. Gained are the rows that only the student has right; '
        "shares with Wilson's 95\u00a0% interval.</p>",
    ]
    counted = [g for found in analysis.values() for groups in found["flips"]["groups"].values() for g in groups]
    widest = max(g["lost"] / g["rows"] for g in counted) or 1  # one scale for all students
    for label, found in analysis.items():
        flips = found["flips"]
        body = [
            [
                _text(f"{kind}: {g['name']}"), str(g["rows"]), str(g["lost"]),
                f"{_percent(g['lost'] / g['rows'])} <small>({100 * g['low']:.0f} to {100 * g['high']:.0f})</small>",
                str(g["gained"]), f'<span style="width:{100 * g["lost"] / g["rows"] / widest:.0f}%"></span>',
            ]
            for kind, groups in flips["groups"].items()
            for g in groups
        ]  # fmt: skip
        lines += [
            f"<h3>{_text(label)}: {flips['lost']} of {flips['rows']} rows lost, {flips['gained']} gained</h3>",
            _table(("rows with", "rows", "lost", "share", "gained", ""), body, "bars"),
        ]
        if flips["examples"]:
            shown = len(flips["examples"])
            head = f"{shown} of {flips['lost']}, those of which {label} was surest" if shown < flips["lost"] else "all"
            lines += [f"<details><summary>The texts ({_text(head)})</summary>"]
            lines += [_example(example) for example in flips["examples"]]
            lines.append("</details>")
    return lines


def _example(example: Mapping[str, Any]) -> str:
    texts = "<br>".join(_text(example[key]) for key in ("text_a", "text_b") if example[key] is not None)
    said = f"row {example['row']}: {example['label']}; student: {example['student']}"
    sure = f"{_percent(example['student_sure'])} sure, the teacher {_percent(example['teacher_sure'])}"
    return f'<blockquote>{texts}<br><span class="faint">{_text(f"{said}, {sure}")}</span></blockquote>'


def _calibration(analysis: Mapping[str, Any], drawn: Mapping[str, str]) -> list[str]:
    body, figures = [], []
    for label, found in analysis.items():
        calibration = found["calibration"]
        errors = [f"{100 * calibration[way]['error']:.1f}" for way in ("before", "after")]
        body.append([_text(label), *errors, f"{calibration['temperature']:.2f}"])
        figures.append(_figure(drawn[f"reliability_{found['method']}"], f"{label}", "reliability"))
    return [
        "<h2>Calibration: is it right as often as it is sure?</h2>",
        "<p>Expected calibration error in points, 10 bins: before, and after temperature scaling, where each half of "
        "the dev rows is scaled by the temperature that was fitted on the other half. The temperature beside it, for "
        "use, is fitted on all dev rows.</p>",
        _table(("student", "error before", "error after", "temperature"), body),
        '<div class="grid">',
        *figures,
        "</div>",
    ]


def _table(names: Sequence[str], body: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose cells are HTML; it scrolls within itself where it is too wide.

    kind: `cards`, whose rows become cards on a narrow screen; `bars`, whose last column is a bar, left out there.
    """
    rows = []
    for cells in body:
        named = zip(names, cells, strict=True)
        rows.append("<tr>" + "".join(f'<td data-head="{_text(name)}">{cell}</td>' for name, cell in named) + "</tr>")
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _figure(svg: str, caption: str, name: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img class="{name}" alt="{_text(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _machine(result: Mapping[str, Any]) -> str:
    hardware = result["hardware"]
    return f"{hardware['processor']}, {hardware['cores']} cores" + (f", {hardware['gpu']}" if "gpu" in hardware else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _text(value: str) -> str:
    """Escaped, each % on the line of its number."""
    return html.escape(str(value)).replace(" %", "\u00a0%")


def _line(value: str) -> str:
    """As `_text`, each flag on one line with its dashes and its number."""
    return re.sub(r"--\w+( [\d.]+\b)?", r'<span class="whole">\g<0></span>', _text(value))
