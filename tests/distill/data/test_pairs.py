"""The layout of two texts by hand, against plain lists, and the same numbers whatever padding is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.wordpiece import WordPiece
from tests.tiny import VOCAB

PAD, CLS, SEP = 0, 2, 3
THE, FILM, GOOD, BAD = (VOCAB.index(word) for word in ("the", "film", "good", "bad"))


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return WordPiece(path, lowercase=True)


def encode(wordpiece, layout, *pairs):
    return layout.encode(wordpiece, Rows([a for a, _ in pairs], [b for _, b in pairs], None, "rows"))


@pytest.mark.parametrize(("first", "second", "joint"), [(130, 130, 259), (64, 328, 391)])
def test_the_fixed_layout_by_hand(wordpiece, first, second, joint):
    layout = PairLayout(first, second, fixed=True)
    assert layout.joint == joint
    batch = encode(wordpiece, layout, ("the film", "good"), ("bad " * first, "good " * second)).pad(np.arange(2))
    ids, mask, types = batch["input_ids"], batch["mask"], batch["token_type_ids"]
    assert ids.shape == (2, joint) and batch["input_ids_a"].shape == (2, first)
    short = [CLS, THE, FILM, *[PAD] * (first - 4), SEP, GOOD, *[PAD] * (second - 3), SEP]
    assert ids[0].tolist() == short
    assert mask[0].tolist() == [float(token != PAD) for token in short]
    assert ids[1].tolist() == [CLS, *[BAD] * (first - 2), SEP, *[GOOD] * (second - 2), SEP] and mask[1].all()
    assert types.tolist() == [[0] * first + [1] * (second - 1)] * 2
    assert batch["positions"].tolist() == [list(range(joint))] * 2
    # The towers stand where they stand in the pair: a at 1 on, b from the place after the first [SEP] on.
    assert batch["input_ids_a"].tolist() == ids[:, :first].tolist()
    assert batch["input_ids_b"][:, 1:].tolist() == ids[:, first:].tolist() and (batch["input_ids_b"][:, 0] == CLS).all()
    assert batch["positions_b"].tolist() == [list(range(second))] * 2
    assert batch["mask_b"].dtype == np.float32 and batch["mask_b"][0].sum() == 3


def test_padding_of_all_rows_is_left_out_and_the_rest_stays(wordpiece):
    layout = PairLayout(130, 130)
    batch = encode(wordpiece, layout, ("the film", "good"), ("bad", "bad good the")).pad([1, 0])
    assert batch["input_ids"].tolist() == [
        [CLS, BAD, PAD, SEP, BAD, GOOD, THE, SEP],
        [CLS, THE, FILM, SEP, GOOD, PAD, PAD, SEP],
    ]
    assert batch["positions"].tolist() == [[0, 1, 2, 129, 130, 131, 132, 258]] * 2
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2
    assert batch["input_ids_b"].tolist() == [[CLS, BAD, GOOD, THE, SEP], [CLS, GOOD, PAD, PAD, SEP]]
    assert batch["positions_b"].tolist() == [[0, 1, 2, 3, 129]] * 2
    assert batch["mask_a"].tolist() == [[1, 1, 0, 1], [1, 1, 1, 1]]


WORDS = st.lists(st.sampled_from([THE, FILM, GOOD, BAD]), max_size=7)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), st.integers(3, 8), st.integers(3, 8))
def test_rows_come_back_whatever_the_batch(wordpiece, texts, first, second):
    pairs = [tuple(" ".join(VOCAB[i] for i in text) for text in pair) for pair in texts]
    layout = PairLayout(first, second)
    rows = encode(wordpiece, layout, *pairs)
    cut = [(a[: first - 2], b[: second - 2]) for a, b in texts]
    assert rows.cut.tolist() == [[len(a) > first - 2, len(b) > second - 2] for a, b in texts]
    assert rows.extents.tolist() == [[len(a) + len(b) + 3, len(a), len(b)] for a, b in cut]
    fixed, free = (PairLayout(first, second, way).encode for way in (True, False))
    source = Rows([a for a, _ in pairs], [b for _, b in pairs], None, "rows")
    everything = np.arange(len(texts))
    full, batch = fixed(wordpiece, source).pad(everything), free(wordpiece, source).pad(everything)
    for i, (a, b) in enumerate(cut):
        for made in (full, batch):
            real = made["mask"][i] > 0
            assert made["input_ids"][i][real].tolist() == [CLS, *a, SEP, *b, SEP]
            last = first + second - 2
            places = [*range(len(a) + 1), first - 1, *range(first, first + len(b)), last]
            assert made["positions"][i][real].tolist() == places
            assert made["token_type_ids"][i][real].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_empty_texts_keep_a_column(wordpiece):
    rows = encode(wordpiece, PairLayout(9, 9), ("\u200b", "good"))
    assert rows.extents.tolist() == [[4, 0, 1]]
    batch = rows.pad([0])
    assert batch["input_ids"].tolist() == [[CLS, PAD, SEP, GOOD, SEP]] and batch["mask_a"].tolist() == [[1, 0, 1]]


def test_given_widths(wordpiece):
    rows = encode(wordpiece, PairLayout(9, 9), ("the film", "good"))
    assert rows.lay_out([0], widths=(3, 2))["input_ids"].tolist() == [[CLS, THE, FILM, PAD, SEP, GOOD, PAD, SEP]]
    with pytest.raises(ValueError, match="do not fit into the widths"):
        rows.lay_out([0], widths=(1, 2))
    with pytest.raises(ValueError, match="two widths"):
        rows.pad([0], width=9)


def test_rows_of_one_text_are_no_pairs(wordpiece):
    with pytest.raises(ValueError, match="one text"):
        PairLayout(9, 9).encode(wordpiece, Rows(["the film"], None, None, "rows"))
