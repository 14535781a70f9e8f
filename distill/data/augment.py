"""Augmented copies of rows: masking, replacement by a word of the same class, n-gram sampling.

Source: Tang et al. 2019 (arXiv 1903.12136), section 3.3. Each copy is made of its own row's units and of nothing
else. All draws are hashes of (seed, number of the row, copy, position), so a row's copies are the same whatever
the other rows are. A unit is a wordpiece or a word; `UnitTable` gives each distinct unit the ids that each
model reads, so both models always see the same masked positions and the same n-gram.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.ragged import Ragged

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))


def uniform(
    seed: int, stream: int, rows: np.ndarray, copies: np.ndarray, positions: np.ndarray | int = 0
) -> np.ndarray:
    """Numbers in [0, 1), float64, one for each (row, copy, position): a function of the arguments and of nothing
    else."""
    state = np.full(1, seed % 2**64, np.uint64)
    for part in (np.full(1, stream), rows, copies, np.asarray(positions)):
        state = _mixed((state ^ part.astype(np.uint64)) + _STEP)
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


class UnitTable:
    """Numbers the distinct units of a data set; unit 0 stands for a masked one."""

    def __init__(self) -> None:
        self.units: list[str] = ["[MASK]"]
        self._index: dict[str, int] = {}

    def index(self, rows: Iterable[Sequence[str]]) -> Ragged:
        """Rows of units as rows of numbers; unseen units are added."""
        numbered = []
        for row in rows:
            for unit in row:
                if unit not in self._index:
                    self._index[unit] = len(self.units)
                    self.units.append(unit)
            numbered.append([self._index[unit] for unit in row])
        return Ragged.from_lists(numbered)


def expand(rows: Ragged, ids_of_unit: Ragged) -> Ragged:
    """Each row's units replaced by the ids that a model reads for them; `ids_of_unit` has one row for each unit."""
    ids = ids_of_unit.take(rows.values)
    return Ragged(ids.values, ids.offsets[rows.offsets])


@dataclass(frozen=True)
class Classes:
    """Units by class (part of speech) with their counts, to draw a unit of the same class by its frequency.

    class_of_unit: [units] int, -1 where a unit has no class and stays; counts: [units].
    """

    class_of_unit: np.ndarray
    counts: np.ndarray

    def draw(self, units: np.ndarray, u: np.ndarray) -> np.ndarray:
        """For each unit one of its class; `u` in [0, 1) chooses. A unit without a class is returned as it is."""
        order = np.argsort(self.class_of_unit, kind="stable")
        cumulated = np.cumsum(self.counts[order])
        sorted_classes = self.class_of_unit[order]
        classes = self.class_of_unit[units]
        first = np.searchsorted(sorted_classes, classes, side="left")
        last = np.searchsorted(sorted_classes, classes, side="right") - 1
        low = cumulated[first] - self.counts[order[first]]
        chosen = order[
            np.clip(np.searchsorted(cumulated, low + u * (cumulated[last] - low), side="right"), first, last)
        ]
        return np.where(classes < 0, units, chosen)


@dataclass(frozen=True)
class Augmentation:
    """How copies are made: probabilities of masking and of replacing a unit and of keeping an n-gram only, and its
    length."""

    copies: int = 20
    p_mask: float = 0.1
    p_replace: float = 0.0
    p_ngram: float = 0.25
    ngram: tuple[int, int] = (2, 6)
    seed: int = 0


def augment(rows: Ragged, how: Augmentation, mask: int = 0, stream: int = 0, classes: Classes | None = None) -> Ragged:
    """`copies * n` rows of units: the copies of row 0, then those of row 1, and so on; the rows themselves are not
    among them.

    One uniform draw decides for each unit (below p_mask: `mask` takes its place; below p_mask + p_replace: a unit of
    its class), another for each copy whether only an n-gram is kept. `stream` keeps the two texts of a pair
    independent.
    """
    block = 8192  # rows at a time: the working arrays stay small whatever the size of the data set
    starts = range(0, len(rows), block)
    parts = [_block(rows.take(np.arange(i, min(i + block, len(rows)))), how, mask, stream, classes, i) for i in starts]
    return Ragged.concat(parts)


def _block(rows: Ragged, how: Augmentation, mask: int, stream: int, classes: Classes | None, first_row: int) -> Ragged:
    source = np.repeat(np.arange(len(rows)), how.copies)
    copy = np.tile(np.arange(how.copies), len(rows))
    row_id = source + first_row
    lengths = rows.lengths[source]

    def draw(which: int, chosen: np.ndarray | slice = slice(None), positions: np.ndarray | int = 0) -> np.ndarray:
        return uniform(how.seed, 5 * stream + which, row_id[chosen], copy[chosen], positions)

    shortest, longest = how.ngram
    kept = np.minimum(lengths, shortest + (draw(0) * (longest - shortest + 1)).astype(np.int64))
    start = (draw(1) * (lengths - kept + 1)).astype(np.int64)
    cut = draw(2) < how.p_ngram
    kept, start = np.where(cut, kept, lengths), np.where(cut, start, 0)
    out = rows.take(source, start, kept)

    of_copy = np.repeat(np.arange(len(out)), kept)
    position = np.arange(len(out.values)) - (out.offsets[:-1] - start)[of_copy]
    u = draw(3, of_copy, position)
    values = np.where(u < how.p_mask, np.int32(mask), out.values)
    if how.p_replace and classes is not None:
        replaced = np.flatnonzero((u >= how.p_mask) & (u < how.p_mask + how.p_replace))
        values[replaced] = classes.draw(out.values[replaced], draw(4, of_copy[replaced], position[replaced]))
    return Ragged(values, out.offsets)
