"""Ragged rows: cutting, joining and padding against plain lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.data.ragged import Ragged

ROWS = st.lists(st.lists(st.integers(0, 50), max_size=6), min_size=1, max_size=8)


def lists(rows: Ragged) -> list[list[int]]:
    return [rows.values[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


@given(ROWS, st.data())
def test_take_equals_indexing_and_slicing_of_lists(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    starts = np.array([data.draw(st.integers(0, len(rows[i]))) for i in chosen], np.int64)
    lengths = np.array(
        [data.draw(st.integers(0, len(rows[i]) - s)) for i, s in zip(chosen, starts, strict=True)], np.int64
    )
    taken = Ragged.from_lists(rows).take(np.array(chosen, np.int64), starts, lengths)
    assert lists(taken) == [rows[i][s : s + n] for i, s, n in zip(chosen, starts, lengths, strict=True)]


@given(ROWS, ROWS)
def test_concat_keeps_all_rows_in_order(first: list[list[int]], second: list[list[int]]) -> None:
    joined = Ragged.concat([Ragged.from_lists(first), Ragged.from_lists(second)])
    assert lists(joined) == first + second


def test_concat_of_nothing_has_no_rows() -> None:
    assert len(Ragged.concat([])) == 0


def test_padded_fills_up_to_the_longest_chosen_row() -> None:
    rows = Ragged.from_lists([[5, 6, 7], [8], [1, 2, 3, 4]])
    filled, lengths = rows.padded(np.array([1, 0]), pad=9)
    assert filled.tolist() == [[8, 9, 9], [5, 6, 7]] and filled.dtype == np.int64
    assert lengths.tolist() == [1, 3]
