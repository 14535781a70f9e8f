"""Pairs whose texts are padded each on its own, so that a text stands in the pair where it stands alone.

    tower   [CLS] w .. PAD .. [SEP]               [SEP] has the last of its L positions; token types 0
    joint   [CLS] a .. PAD .. [SEP] b .. PAD .. [SEP]   the towers of both without the second [CLS]; types 0 up to and
            with the first [SEP], then 1

With towers of 130 and 130 positions the joint row has 259: a at 1 to 128, [SEP] at 129, b at 130 to 257, [SEP] at 258.
Columns that are padding in all rows of a batch are left out; what remains keeps its positions, so nothing else changes.

Source: VIRT, Li et al. 2022 (arXiv 2112.04195), by its published code.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.data.ragged import Ragged
from distill.data.readers import Rows
from distill.data.wordpiece import Encoded, WordPiece


@dataclass(frozen=True)
class PairLayout:
    """first, second: positions of the two towers, [CLS] and [SEP] counted; fixed: no column of padding is left out."""

    first: int
    second: int
    fixed: bool = False

    @property
    def joint(self) -> int:
        """Positions of the joint row."""
        return self.first + self.second - 1

    def encode(self, wordpiece: WordPiece, rows: Rows) -> "Pairs":
        """The rows, each text cut to its tower. Raises ValueError for rows of one text."""
        if rows.text_b is None:
            raise ValueError(f"{rows.source}: rows of one text are no pairs")
        texts, room = (rows.text_a, rows.text_b), (self.first - 2, self.second - 2)
        pieces = [wordpiece.pieces(column) for column in texts]
        cut = np.array([[len(row) > n for row in column] for column, n in zip(pieces, room, strict=True)], bool).T
        kept = [Ragged.from_lists([row[:n] for row in column]) for column, n in zip(pieces, room, strict=True)]
        return Pairs(wordpiece.from_pieces(*kept, max_length=self.joint), self, cut)


class Pairs(Encoded):
    """Rows `[CLS] a [SEP] b [SEP]` without padding, which come in batches of the layout.

    cut: bool [n, 2], the first and the second texts that were longer than their towers.
    """

    def __init__(self, rows: Encoded, layout: PairLayout, cut: np.ndarray) -> None:
        super().__init__(rows.ids, rows.types, rows.offsets, cut)
        self.layout = layout
        of_type_1 = np.concatenate([[0], np.cumsum(self.types, dtype=np.int64)])
        second = np.diff(of_type_1[self.offsets]) - 1
        self._texts = np.stack([self.lengths - second - 3, second], axis=1)

    @property
    def extents(self) -> np.ndarray:
        if self.layout.fixed:
            return np.tile((self.layout.joint, self.layout.first - 2, self.layout.second - 2), (len(self), 1))
        return np.concatenate([super().extents, self._texts], axis=1)

    def pad(self, indices: Any, pad_id: int = 0, width: int | None = None) -> dict[str, np.ndarray]:
        """See `lay_out`, which knows two widths instead of the one."""
        if width is not None:
            raise ValueError("pairs are padded to two widths: use lay_out")
        return self.lay_out(indices, pad_id)

    def lay_out(self, indices: Any, pad_id: int = 0, widths: Any = None) -> dict[str, np.ndarray]:
        """A batch of the chosen rows.

        widths: tokens of the longest first and second text, special ones not counted; without them those of the
        longest in the batch, or of the layout where it is fixed; 1 at least.

        Returns for the towers `input_ids_a` int64 [B, La], `mask_a` float32 (1 at real tokens), `positions_a` int64,
        and the same for b; for the joint row [B, La + Lb - 1] `input_ids`, `token_type_ids`, `mask` and `positions`.
        Raises ValueError when a text is longer than its width.
        """
        indices = np.asarray(indices, np.int64)
        texts = self._texts[indices]
        longest = texts.max(axis=0, initial=1)
        if widths is None:
            widths = (self.layout.first - 2, self.layout.second - 2) if self.layout.fixed else longest
        if (longest > widths).any():
            raise ValueError(f"texts of {tuple(longest)} tokens do not fit into the widths {tuple(widths)}")
        rows, starts = Ragged(self.ids, self.offsets), (np.ones_like(texts[:, 0]), texts[:, 0] + 2)
        a, b = (
            self._tower(rows.take(indices, starts[i], texts[:, i]), indices, int(widths[i]), length, pad_id)
            for i, length in enumerate((self.layout.first, self.layout.second))
        )
        joint = {name: np.concatenate([a[name], b[name][:, 1:]], axis=1) for name in a}
        of_b = np.arange(joint["mask"].shape[1]) >= a["mask"].shape[1]
        joint["positions"] += (self.layout.first - 1) * of_b
        joint["token_type_ids"] = np.tile(of_b.astype(np.int64), (len(indices), 1))
        return joint | {f"{name}_a": a[name] for name in a} | {f"{name}_b": b[name] for name in b}

    def _tower(self, texts: Ragged, indices: np.ndarray, width: int, length: int, pad_id: int) -> dict[str, np.ndarray]:
        """input_ids, mask and positions, each [B, width + 2]."""
        real = np.arange(width) < texts.lengths[:, None]
        ids = np.full((len(indices), width + 2), pad_id, np.int64)
        ids[:, 0], ids[:, -1] = self.ids[self.offsets[indices]], self.ids[self.offsets[indices + 1] - 1]
        ids[:, 1:-1][real] = texts.values
        mask = np.ones(ids.shape, np.float32)
        mask[:, 1:-1] = real
        positions = np.tile(np.append(np.arange(width + 1), length - 1), (len(indices), 1))
        return {"input_ids": ids, "mask": mask, "positions": positions}
