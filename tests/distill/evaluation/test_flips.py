"""Flips by hand, and the groups they are counted in."""

import numpy as np
import pytest

from distill.evaluation.flips import fifths, flipped, grouped, lengths, overlaps, quartiles


def test_flipped_by_hand():
    labels = np.array([0, 0, 1, 1])
    teacher, student = np.eye(2)[[0, 0, 0, 1]], np.eye(2)[[0, 1, 1, 0]]
    lost, gained = flipped(student, teacher, labels)
    assert lost.tolist() == [False, True, False, True] and gained.tolist() == [False, False, True, False]


def test_groups():
    lost = np.array([True, True, False, False, False])
    found = grouped(np.array([0, 2, 2, 2, 0]), ("a", "b", "c"), lost, ~lost)
    assert [(g.name, g.rows, g.lost, g.gained) for g in found] == [("a", 2, 1, 1), ("c", 3, 1, 2)]
    # Wilson's interval of 1 in 2.
    assert (found[0].low, found[0].high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_lengths_of_words_and_of_chinese_characters():
    assert lengths(["a b c", "a"], None, "en").tolist() == [3, 1]
    assert lengths(["a b c", "a"], ["d", "d e"], "en").tolist() == [4, 3]
    assert lengths(["房间 很好"], None, "zh").tolist() == [4]


def test_overlaps():
    assert overlaps(["a b c", "The end", "x"], ["b c d", "the END", "y"], "en").tolist() == [0.5, 1, 0]
    assert overlaps(["很好"], ["不好"], "zh").tolist() == pytest.approx([1 / 3])
    assert overlaps([""], [""], "en").tolist() == [0]


def test_quartiles():
    number, names = quartiles(np.arange(1, 9), "words")
    assert number.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert names == ["1 to 2 words", "3 to 4 words", "5 to 6 words", "7 to 8 words"]


@pytest.mark.parametrize("values", [[5] * 7, [1, 1, 1, 9], [3, 1, 2], [7]])
def test_quartiles_keep_equal_values_together(values):
    values = np.array(values)
    number, names = quartiles(values, "words")
    assert all(len(set(number[values == value])) == 1 for value in set(values.tolist()))
    for value, group in zip(values, number, strict=True):
        low, *rest = names[group].removesuffix(" words").split(" to ")
        assert int(low) <= value <= int((rest or [low])[0])


def test_fifths():
    number, names = fifths(np.array([0, 0.19, 0.2, 0.6, 3 / 5, 0.99, 1]))
    assert number.tolist() == [0, 0, 1, 3, 3, 4, 4] and names[0] == "0 to 20 %" and names[-1] == "80 to 100 %"
