"""The comparison's pictures: score against latency, cascades, and a reliability diagram for each student.

Drawn once, as PNG for files and VisualDL and as SVG for the report; small, so that their words can be read on a phone.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP*X"
_TEACHER = "#444444"


def score_latency(rows: Sequence[Mapping[str, Any]], metric: str, path: Path) -> str:
    """Score with its interval against p50 latency with a line to p95; the first row is the teacher. Returns SVG."""

    def draw(axes: "Axes") -> None:
        for number, row in enumerate(rows):
            score, times = row["score"], row["latency_ms"]
            colour = _TEACHER if not number else f"C{number - 1}"
            errors = [[100 * (score["mean"] - score["low"])], [100 * (score["high"] - score["mean"])]]
            axes.errorbar(
                times["p50"], 100 * score["mean"], yerr=errors, xerr=[[0], [max(0, times["p95"] - times["p50"])]],
                fmt="*" if not number else _MARKERS[(number - 1) % len(_MARKERS)], markersize=9 if not number else 7,
                color=colour, elinewidth=1, capsize=3, label=row["label"],
            )  # fmt: skip
        axes.set_xscale("log")
        _plain_logarithm(axes)
        axes.margins(x=0.1, y=0.1)
        axes.set(xlabel="ms a text, p50 to p95 (log scale)", ylabel=f"dev {metric}, points, 95 % interval")

    return _draw(draw, path, legend=True)


def cascades(analysis: Mapping[str, Any], metric: str, path: Path) -> str:
    """Score against share of teacher calls, the suggested points ringed. Returns SVG."""

    def draw(axes: "Axes") -> None:
        for number, (label, found) in enumerate(analysis.items()):
            cascade = found["cascade"]
            shares, scores = [100 * s for s in cascade["shares"]], [100 * s for s in cascade["scores"]]
            axes.plot(shares, scores, color=f"C{number}", linewidth=1.6, label=label)
            point = 100 * cascade["teacher_share"], 100 * cascade["score"]
            axes.plot(*point, "o", markersize=9, markerfacecolor="none", markeredgewidth=1.8, color=f"C{number}")
        axes.axhline(scores[-1], color=_TEACHER, linestyle=":", linewidth=1.2, label="teacher alone")
        axes.set(xlabel="rows that the teacher answers, %", ylabel=f"dev {metric}, points", xlim=(-2, 102))

    return _draw(draw, path, legend=True)


def reliability(found: Mapping[str, Any], path: Path) -> str:
    """Share of right answers against sureness, before and after temperature scaling. Returns SVG."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color="#999999", linewidth=1, linestyle="--", label="right as often as sure")
        for name, colour, marker in (("before", "C3", "o"), ("after", "C0", "s")):
            bins = found[name]
            held = [i for i, rows in enumerate(bins["rows"]) if rows]
            sure, right = ([100 * bins[key][i] for i in held] for key in ("confidence", "accuracy"))
            sizes = [15 + 120 * bins["rows"][i] / sum(bins["rows"]) for i in held]
            axes.plot(sure, right, color=colour, linewidth=1.2)
            axes.scatter(sure, right, s=sizes, marker=marker, color=colour, label=f"{name}: {_points(bins['error'])}")
        low = min(90, *(100 * c for n in ("before", "after") for c in found[n]["confidence"] if c is not None))
        axes.set(xlabel="sure of its answer, %", ylabel="right, %", xlim=(low - 3, 103), ylim=(-3, 103))

    return _draw(draw, path, legend=True, columns=1)


def _points(error: float) -> str:
    return f"off by {100 * error:.1f} points"


def _plain_logarithm(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw(draw: Callable[["Axes"], None], path: Path, legend: bool, columns: int = 3) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(4.8, 4.0), layout="constrained")
        draw(axes)
        axes.grid(alpha=0.25)
        if legend:
            figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=180)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()
