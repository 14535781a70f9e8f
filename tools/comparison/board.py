"""The comparison for VisualDL: its pictures, its table as texts, and a line of hyper-parameters for each student."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.comparison.students import explanations, heads, of_numbers, student_cells


def write_board(result: Mapping[str, Any], images: Sequence[Path], folder: Path) -> None:
    """Write `folder` anew: report/ with the pictures and the texts, and METHOD/ with each student's figures.

    images: PNG files; their tags are `comparison/NAME`.
    """
    from matplotlib import image
    from visualdl import LogWriter

    shutil.rmtree(folder, ignore_errors=True)
    with LogWriter(str(folder / "report")) as writer:
        for path in images:
            pixels = (255 * image.imread(path)[..., :3]).round().astype("uint8")
            writer.add_image(f"comparison/{path.stem}", pixels, 0)
        for tag, text in texts(result).items():
            writer.add_text(tag, text, 0)
    metric = f"comparison/{result['metric']}"
    for row in result["students"]:
        figures = {
            metric: row["score"]["mean"],
            "comparison/less_control": row["control"]["mean"],
            "comparison/agreement": row["agreement"],
            "comparison/p50_ms": row["latency_ms"]["p50"],
            "comparison/p95_ms": row["latency_ms"]["p95"],
        }
        settings = {"method": row["method"], "layers": row["layers"], "hidden": row["hidden"], "steps": row["steps"]}
        settings |= {"parameters": row["parameters"], "seeds": len(row["score"]["seeds"])}
        with LogWriter(str(folder / row["method"])) as writer:
            writer.add_hparams(settings, list(figures))
            for tag, value in figures.items():
                writer.add_scalar(tag, value, 0)


def texts(result: Mapping[str, Any]) -> dict[str, str]:
    """The table by tags, each row a line, as the page knows neither tables nor line breaks, and what it says below."""
    found = {}
    for row in (result["teacher"], *result["students"]):
        cells = zip(heads(result), student_cells(row, of_numbers(result), bold=("", "")), strict=True)
        found[f"comparison/{row.get('method', 'teacher')}"] = "; ".join(
            f"{head}: {cell}" for head, cell in cells if cell
        )
    return found | {f"notes/{number}": line for number, line in enumerate(explanations(result), start=1)}
