"""A model's logits on the dev rows as a file beside its results, so that models can be compared row by row later."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import UserError
from distill.files import write_atomic

NAME = "dev_predictions.tsv"


@dataclass(frozen=True)
class Predictions:
    """logits [n, C] float32 of the rows in their order; labels [n], -1 or nan where a row has none."""

    logits: np.ndarray
    labels: np.ndarray


def save_predictions(folder: str | Path, splits: Mapping[str, Predictions]) -> None:
    """Write `folder`/dev_predictions.tsv: split, row from 1, label and a column for each logit, digits enough to read
    the same float32 back. Raises UserError when it cannot be written.
    """
    outputs = next(iter(splits.values())).logits.shape[1]
    lines = ["\t".join(["split", "row", "label", *(f"logit_{i}" for i in range(outputs))])]
    for split, found in splits.items():
        logits = found.logits.astype(np.float32).astype(str)
        for row, (label, values) in enumerate(zip(found.labels.astype(str), logits, strict=True), start=1):
            lines.append("\t".join([split, str(row), label, *values]))
    write_atomic(Path(folder) / NAME, "\n".join(lines) + "\n")


def load_predictions(folder: str | Path) -> dict[str, Predictions]:
    """What `save_predictions` wrote into `folder`, by split. Raises UserError naming file and line."""
    path = Path(folder) / NAME
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; evaluate the model again: its predictions are written beside its scores"
        )
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except ValueError:
        header, lines = "", []
    if not lines:
        raise UserError(f"{path}: no rows in it; evaluate the model again")
    columns = len(header.split("\t"))
    found: dict[str, tuple[list[list[float]], list[float]]] = {}
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        try:
            split, label, *logits = cells[0], *map(float, cells[2:])
        except ValueError:
            raise UserError(f"{path}:{number}: not a number") from None
        if len(cells) != columns or columns < 4:
            raise UserError(f"{path}:{number}: {len(cells)} columns, its head has {columns}")
        rows, labels = found.setdefault(split, ([], []))
        rows.append(logits)
        labels.append(label)
    return {split: Predictions(np.array(rows, np.float32), np.array(labels)) for split, (rows, labels) in found.items()}
