"""Alignment by IBM model 1: golden values of a plain float64 form, and what it has to find."""

from collections import defaultdict

import numpy as np
import pytest

from distill.data import alignment
from distill.data.alignment import translations
from distill.data.wordpiece import Encoded

CLS, SEP = 0, 1


def rows(*texts):
    return Encoded.from_rows([[CLS, *text, SEP] for text in texts])


def plainly(source, target, rounds):
    """{(target token, source token): probability}, token by token, from the formulas of the paper."""
    pairs = [(list(source.row(i)[1:-1]), list(target.row(i)[:-1])) for i in range(len(source))]
    p = {(t, s): 1.0 for english, other in pairs for s in english for t in other}
    for _ in range(rounds):
        counts, sums = defaultdict(float), defaultdict(float)
        for english, other in pairs:
            for s in english:
                total = sum(p[t, s] for t in other)
                for t in other:
                    counts[t, s] += p[t, s] / total
                    sums[t] += p[t, s] / total
        p = {(t, s): count / sums[t] for (t, s), count in counts.items()}
    return p


def found(source, target, rounds=5):
    return {(int(t), int(s)): p for t, s, p in zip(*translations(source, target, rounds), strict=True)}


# the house, the book, a book; das Haus, das Buch, ein Buch
ENGLISH, GERMAN = rows((2, 3), (2, 4), (5, 4)), rows((12, 13), (12, 14), (15, 14))


def test_one_round_by_hand():
    """One round deals each English word out evenly to the row's two words and [CLS]; then each word's are shared."""
    p = found(ENGLISH, GERMAN, 1)
    assert p[13, 2] == pytest.approx(1 / 2) and p[13, 3] == pytest.approx(1 / 2)
    assert p[12, 2] == pytest.approx(2 / 4) and p[12, 3] == pytest.approx(1 / 4) and p[12, 4] == pytest.approx(1 / 4)
    assert p[CLS, 4] == pytest.approx(2 / 6)
    assert (13, 4) not in p and (SEP, 2) not in p and (12, CLS) not in p


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_like_the_plain_form(rounds):
    rng = np.random.default_rng(rounds)
    source = rows(*(rng.integers(2, 9, rng.integers(1, 6)) for _ in range(30)))
    target = rows(*(rng.integers(10, 18, rng.integers(0, 7)) for _ in range(30)))
    want, have = plainly(source, target, rounds), found(source, target, rounds)
    assert have.keys() == want.keys()
    for key, value in want.items():
        assert have[key] == pytest.approx(value, rel=1e-12)


def test_words_are_found_and_add_up_to_one():
    t, s, p = translations(ENGLISH, GERMAN, 30)
    for token in np.unique(t):
        assert p[t == token].sum() == pytest.approx(1)
    best = {int(token): int(s[t == token][p[t == token].argmax()]) for token in np.unique(t)}
    assert best[12] == 2 and best[14] == 4 and best[13] == 3 and best[15] == 5


def test_the_order_of_the_rows_does_not_matter():
    order = [2, 0, 1]
    one, other = found(ENGLISH, GERMAN), found(ENGLISH.take(order), GERMAN.take(order))
    assert one.keys() == other.keys() and all(other[key] == pytest.approx(one[key]) for key in one)


def test_rows_of_more_pairs_than_fit_are_left_out_evenly(monkeypatch):
    source, target = rows(*([2 + i] for i in range(100))), rows(*([200 + i] for i in range(100)))
    assert len(found(source, target)) == 200  # each word with its own, and [CLS] with all
    monkeypatch.setattr(alignment, "MOST_LINKS", 100)
    kept = [s for (t, s) in found(source, target) if t == CLS]
    assert len(kept) == 50 and min(kept) == 2 and max(kept) == 101
