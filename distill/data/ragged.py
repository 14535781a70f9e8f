"""Rows of different lengths in one flat array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        flat = np.fromiter((value for row in rows for value in row), dtype=np.int32, count=int(offsets[-1]))
        return cls(flat, offsets)

    @classmethod
    def concat(cls, parts: Sequence["Ragged"]) -> "Ragged":
        lengths = [part.lengths for part in parts]
        offsets = np.concatenate(
            [np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]))]
        )
        return cls(np.concatenate([part.values for part in parts] or [np.zeros(0, np.int32)]), offsets)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: np.ndarray, starts: np.ndarray | int = 0, lengths: np.ndarray | None = None) -> "Ragged":
        """The rows given by index, each cut to `lengths` values from `starts` on (to all of them without `lengths`)."""
        lengths = self.lengths[rows] - starts if lengths is None else lengths
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        shift = np.repeat(self.offsets[rows] + starts - offsets[:-1], lengths)
        return Ragged(self.values[shift + np.arange(offsets[-1])], offsets)

    def padded(self, rows: np.ndarray, pad: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The chosen rows as int64 [B, longest], filled up with `pad`, and their lengths, int64 [B]."""
        chosen = self.take(rows)
        lengths = chosen.lengths
        real = np.arange(lengths.max(initial=0)) < lengths[:, None]
        filled = np.full(real.shape, pad, np.int64)
        filled[real] = chosen.values
        return filled, lengths
