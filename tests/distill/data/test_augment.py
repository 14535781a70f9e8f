"""Augmented copies come from their own row, at the stated rates, and depend on nothing but (seed, row, copy)."""

from dataclasses import replace

import numpy as np
import pytest

from distill.data.augment import Augmentation, Classes, UnitTable, augment, expand, uniform
from distill.data.ragged import Ragged

MASK = 999
HOW = Augmentation(copies=20, p_mask=0.1, p_replace=0.0, p_ngram=0.25, ngram=(2, 6), seed=3)


def rows_of(*sizes: int) -> list[list[int]]:
    """Rows whose units tell the row and the place: 100 * row + place + 1."""
    return [[100 * i + j + 1 for j in range(size)] for i, size in enumerate(sizes)]


def lists(rows: Ragged) -> list[list[int]]:
    return [rows.values[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def made(rows: list[list[int]], how: Augmentation = HOW, **more: object) -> list[list[int]]:
    return lists(augment(Ragged.from_lists(rows), how, MASK, **more))  # type: ignore[arg-type]


def test_each_copy_is_a_contiguous_piece_of_its_own_row_with_masks() -> None:
    rows = rows_of(8, 1, 5, 30)
    copies = made(rows)
    assert len(copies) == 20 * len(rows)
    for number, copy in enumerate(copies):
        source = rows[number // 20]
        fits = [
            start for start in range(len(source) - len(copy) + 1)
            if all(unit in (MASK, source[start + j]) for j, unit in enumerate(copy))
        ]  # fmt: skip
        assert copy and fits, (source, copy)


def test_without_masking_and_ngrams_the_copies_are_the_row() -> None:
    rows = rows_of(4, 2)
    assert made(rows, replace(HOW, copies=3, p_mask=0.0, p_ngram=0.0)) == [rows[0]] * 3 + [rows[1]] * 3


def test_at_probability_one_everything_is_masked_and_only_ngrams_are_left() -> None:
    copies = made(rows_of(12, 3), replace(HOW, p_mask=1.0, p_ngram=1.0))
    assert {unit for copy in copies for unit in copy} == {MASK}
    assert {len(copy) for copy in copies[:20]} <= {2, 3, 4, 5, 6} and len({len(copy) for copy in copies[:20]}) > 2
    assert {len(copy) for copy in copies[20:]} == {2, 3}  # n is at most the row


def test_rates_are_those_asked_for() -> None:
    copies = made(rows_of(*[40] * 500))
    units = np.concatenate([np.array(copy) for copy in copies])
    masked = np.mean(units == MASK)
    cut = np.mean([len(copy) < 40 for copy in copies])
    # 500 * 20 copies: four standard errors are 0.017 for the n-grams, 0.003 for more than 300,000 units.
    assert abs(masked - 0.1) < 0.003 and abs(cut - 0.25) < 0.018


def test_a_rows_copies_do_not_depend_on_the_rows_behind_it_and_differ_by_seed_and_stream() -> None:
    rows = rows_of(9, 7, 11)
    assert made(rows)[:40] == made(rows[:2])
    assert made(rows) != made(rows, replace(HOW, seed=4)) and made(rows) != made(rows, stream=1)


def test_the_blocks_in_which_rows_are_made_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(rows_of(*[5] * 9000), replace(HOW, copies=2))
    assert len(whole) == 18000 and len({tuple(copy) for copy in whole[2 * 8192 :]}) > 100
    assert whole[: 2 * 100] == made(rows_of(*[5] * 100), replace(HOW, copies=2))


def test_replacement_draws_from_the_class_by_frequency_and_leaves_units_without_class() -> None:
    classes = Classes(np.array([-1, 0, 0, 0, 1, 1, -1]), np.array([9, 1, 0, 3, 5, 5, 7]))
    how = Augmentation(copies=4000, p_mask=0.0, p_replace=1.0, p_ngram=0.0, seed=1)
    values = augment(Ragged.from_lists([[1, 4, 6]]), how, MASK, classes=classes).values.reshape(-1, 3)
    first, counts = np.unique(values[:, 0], return_counts=True)
    assert first.tolist() == [1, 3] and abs(counts[1] / 4000 - 0.75) < 0.03  # unit 2 never occurs in the data
    assert set(values[:, 1].tolist()) == {4, 5} and set(values[:, 2].tolist()) == {6}


def test_uniform_is_uniform_and_its_arguments_all_matter() -> None:
    rows, copies = np.repeat(np.arange(300), 50), np.tile(np.arange(50), 300)
    u = uniform(7, 0, rows, copies, 2)
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 750) ** 2 / 750).sum() < 43.8  # chi-square with 19 degrees of freedom, p = 0.001
    for other in (
        uniform(8, 0, rows, copies, 2),
        uniform(7, 1, rows, copies, 2),
        uniform(7, 0, rows + 1, copies, 2),
        uniform(7, 0, rows, copies, 3),
    ):
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.04


def test_units_expand_to_the_ids_of_each_model() -> None:
    table = UnitTable()
    rows = table.index([["good", "film"], [], ["film"]])
    assert table.units == ["[MASK]", "good", "film"] and lists(rows) == [[1, 2], [], [2]]
    ids = Ragged.from_lists([[103], [7, 8], [9]])
    assert lists(expand(rows, ids)) == [[7, 8, 9], [], [9]]
