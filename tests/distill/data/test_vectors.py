import bz2
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from distill.data.vectors import (
    compose_words,
    embedding_matrix,
    load_vectors,
    mapped_vectors,
    nearest,
    reduce_table,
    unit_length,
)
from distill.data.wordpiece import WordPiece
from distill.errors import UserError

WORDS = ["the", "好", "caf\u00e9", ". . ."]
VALUES = np.array([[1, -2.5, 0.125], [0, 1e-3, 4], [-1, 2, 3], [0.5, 0.25, 7]], np.float32)
LINES = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, VALUES.tolist(), strict=True)]


def assert_loaded(path, words=WORDS, values=VALUES):
    vectors = load_vectors(path)
    assert vectors.index_to_key == list(words)
    assert vectors.vectors.dtype == np.float32
    assert np.array_equal(vectors.vectors, values)
    assert np.array_equal(vectors[words[1]], values[1])


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_glove_text(tmp_path):
    assert_loaded(write(tmp_path / "glove.txt", "\n".join(LINES) + "\n"))


def test_word2vec_text_with_header_crlf_trailing_spaces_and_a_repeated_word(tmp_path):
    lines = ["5 3", *LINES, "the 9 9 9"]
    assert_loaded(write(tmp_path / "w2v.txt", " \r\n".join(lines)))


def test_word2vec_binary(tmp_path):
    path = tmp_path / "w2v.bin"
    rows = zip(WORDS[:3], VALUES, strict=False)
    body = b"".join(word.encode() + b" " + struct.pack("<3f", *row) + b"\n" for word, row in rows)
    path.write_bytes(b"3 3\n" + body)
    assert_loaded(path, WORDS[:3], VALUES[:3])
    path.write_bytes(b"4 3\n" + body)
    with pytest.raises(UserError, match=r"w2v\.bin: not whole or not word2vec binary"):
        load_vectors(path)
    path.write_bytes(b"\x00\x01\x02\n\x03")
    with pytest.raises(UserError, match=r"w2v\.bin: not whole or not word2vec binary"):
        load_vectors(path)
    path.write_bytes(b"1 3\nthe " + struct.pack("<3f", 1, float("nan"), 2))
    with pytest.raises(UserError, match=r"w2v\.bin: the vector of 'the' is not finite"):
        load_vectors(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2 3", "a 1 2"], "v.txt:2: expected a word and 3 finite numbers"),
        (["the 1 2 3", "a 1 2 3 4"], "v.txt:2: expected a word and 3 finite numbers"),
        (["2 3", "the 1 2 3", "a 1 x 3"], "v.txt:3: expected a word and 3 finite numbers"),
        (["2 3", "the 1 2 3 4", "a 1 2 3 4"], "v.txt:1: the header says 3 numbers a word, and the lines have more"),
        (["the\t9 1 2 3", "a 1 2 3"], "v.txt:1: expected a word and 3 finite numbers"),
        (["the 1 2 3", "a 1 nan 3"], "v.txt:2: expected a word and 3 finite numbers"),
        (["the 1 2 3", "", "a 1 2 3"], "v.txt:2: expected a word and 3 finite numbers"),
        (["3 3", "the 1 2 3", "a 1 2 3"], "v.txt:3: the file ends after 2 of 3 words"),
        (["hello"], "v.txt:1: neither a header"),
        (["2 3"], "v.txt: no word vectors"),
        ([], "v.txt: no word vectors"),
    ],
)
def test_bad_text_files(tmp_path, lines, message):
    with pytest.raises(UserError) as error:
        load_vectors(write(tmp_path / "v.txt", "\n".join(lines)))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_words_that_are_not_utf8_are_left_out_and_counted(tmp_path, capsys):
    path = tmp_path / "v.txt"
    path.write_bytes(b"4 3\nthe 1 2 3\ncaf\xe9 1 2 3\n\xff 1 2 3\na 4 5 6\n")
    vectors = load_vectors(path)
    assert vectors.index_to_key == ["the", "a"] and vectors["a"].tolist() == [4, 5, 6]
    assert capsys.readouterr().out == f"{path}: 2 words that are not UTF-8 are left out\n"


def test_a_file_of_another_encoding_is_refused(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes("the 1 2 3\n你好 1 2 3\n再见 4 5 6\n".encode("gbk"))
    with pytest.raises(UserError, match="2 of 3 lines are not UTF-8; save the file as UTF-8"):
        load_vectors(path)


def test_the_header_says_where_a_word_ends(tmp_path):
    vectors = load_vectors(write(tmp_path / "v.txt", "3 3\nthe 1 2 3\nwindows 10 4 5 6\na 7 8 9\n"))
    assert vectors.index_to_key == ["the", "windows 10", "a"] and vectors["windows 10"].tolist() == [4, 5, 6]


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2")])
@pytest.mark.parametrize("name", ["v.txt", "v.bin"])
def test_packed_and_missing_files(tmp_path, pack, kind, name):
    (tmp_path / name).write_bytes(pack("\n".join(LINES).encode()))
    with pytest.raises(UserError, match=rf"{name}: packed \({kind}\); unpack it first"):
        load_vectors(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.txt: no such word vector file"):
        load_vectors(tmp_path / "none.txt")


def test_embedding_matrix(tmp_path):
    vectors = load_vectors(write(tmp_path / "glove.txt", "\n".join(LINES) + "\n"))
    tokens = ["[PAD]", "[UNK]", "好", "missing", "the", *(f"w{i}" for i in range(4000))]
    matrix, coverage = embedding_matrix(tokens, vectors, seed=3, scale=0.2)
    assert matrix.shape == (4005, 3) and matrix.dtype == np.float32
    assert coverage == 2 / 4003
    assert np.array_equal(matrix[[2, 4]], VALUES[[1, 0]])
    assert not matrix[0].any() and matrix[1].any()
    assert abs(matrix[5:].std() - 0.2) < 0.01 and abs(matrix[5:].mean()) < 0.01
    again, _ = embedding_matrix(tokens, vectors, seed=3, scale=0.2)
    other, _ = embedding_matrix(tokens, vectors, seed=4, scale=0.2)
    assert np.array_equal(matrix, again) and not np.array_equal(matrix[5:], other[5:])


def test_reduce_table_by_hand():
    # Coordinates -2, 0, 2 along (3, 4)/5 and 1, -2, 1 along (-4, 3)/5, across it; the two are uncorrelated.
    along, off = np.array([-2.0, 0, 2]), np.array([1.0, -2, 1])
    table = np.outer(along, [0.6, 0.8]) + np.outer(off, [-0.8, 0.6]) + [10, 20]
    one = reduce_table(table, 1, std=1.0)
    assert one.dtype == np.float32
    # Largest variance: along (8/3 against 6/3); its largest entry, 0.8, is positive. Std of (-2, 0, 2) is sqrt(8/3).
    np.testing.assert_allclose(one[:, 0], along / np.sqrt(8 / 3), rtol=1e-6, atol=1e-6)
    # The largest entry of the second component is -0.8, so its sign is turned. Std of all six: sqrt((8 + 6) / 6).
    two = np.stack([along, -off], 1) / np.sqrt(14 / 6)
    np.testing.assert_allclose(reduce_table(table, 2, std=1.0), two, rtol=1e-6, atol=1e-6)


def test_reduce_table_properties():
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(200, 20)) * np.linspace(1, 3, 20)).astype(np.float32)
    reduced = reduce_table(table, 6)
    assert reduced.shape == (200, 6)
    assert abs(reduced.astype(np.float64).std() - 0.5) < 1e-6
    covariance = np.cov(reduced.astype(np.float64).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-6
    assert (np.diff(np.diag(covariance)) < 0).all()
    # All dimensions kept: a rotation, so distances stay in proportion.
    full = reduce_table(table, 20).astype(np.float64)
    ratio = np.linalg.norm(full[1:] - full[0], axis=1) / np.linalg.norm(table[1:].astype(np.float64) - table[0], axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    padded = reduce_table(table, 6, pad_id=7)
    assert not padded[7].any() and np.array_equal(np.delete(padded, 7, 0), np.delete(reduced, 7, 0))


def test_a_table_narrower_than_the_embeddings_keeps_its_components_beside_zeros():
    table = np.random.default_rng(0).normal(size=(9, 4))
    wide = reduce_table(table, 7)
    assert wide.shape == (9, 7) and wide.dtype == np.float32
    assert np.array_equal(wide[:, :4], reduce_table(table, 4)) and not wide[:, 4:].any()


def test_compose_words(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "中", "国", "a"]
    wordpiece = WordPiece(write(tmp_path / "vocab.txt", "\n".join(tokens) + "\n"), True)
    table = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    words = ["[PAD]", "[UNK]", "Unaffable", "中国", "zzz", "\u200b", "a"]
    composed = compose_words(words, wordpiece, table)
    expected = [0 * table[0], table[1], table[5:8].mean(0), table[8:10].mean(0), table[1], table[1], table[10]]
    np.testing.assert_allclose(composed, expected, rtol=1e-6, atol=1e-7)
    assert composed.dtype == np.float32
    assert compose_words([], wordpiece, table).shape == (0, 5)


@pytest.mark.skipif("DISTILL_DATA" not in os.environ, reason="DISTILL_DATA is not set: no real word vectors")
def test_real_excerpt():
    from gensim.models import KeyedVectors

    folder = Path(os.environ["DISTILL_DATA"])
    path = folder / "word_vectors" / "googlenews_word2vec_top1000_300d.txt"
    vectors, theirs = load_vectors(path), KeyedVectors.load_word2vec_format(str(path))
    assert vectors.index_to_key == theirs.index_to_key
    assert np.array_equal(vectors.vectors, theirs.vectors)
    wordpiece = WordPiece(folder / "vocab" / "bert-base-uncased-vocab.txt", True)
    matrix, coverage = embedding_matrix(wordpiece.tokens, vectors, seed=0)
    assert matrix.shape == (30522, 300)
    # 1000 cased words at most, of 30517.
    assert 0.02 < coverage < 0.0328
    assert np.array_equal(matrix[wordpiece.tokens.index("in")], theirs["in"])


def write_glove(path, words, matrix):
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, matrix.tolist(), strict=True)]
    return write(path, "\n".join(lines) + "\n")


def test_mapped_vectors_are_converted_once(tmp_path, monkeypatch):
    path = write(tmp_path / "glove.txt", "\n".join(LINES) + "\nzero 0 0 0\n")
    vectors = mapped_vectors(path, tmp_path / "cache")
    assert vectors.words == [*WORDS, "zero"] and vectors.index["好"] == 1
    assert isinstance(vectors.matrix, np.memmap) and vectors.matrix.dtype == np.float32
    expected = VALUES.astype(np.float64) / np.linalg.norm(VALUES.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.matrix[:4], expected, rtol=1e-6)
    assert not vectors.matrix[4].any()
    monkeypatch.setattr("distill.data.vectors.load_vectors", None)
    again = mapped_vectors(path, tmp_path / "cache")
    assert again.words == vectors.words and np.array_equal(again.matrix, vectors.matrix)
    with pytest.raises(TypeError):  # another content is converted anew
        mapped_vectors(write(path, "the 1 2\n"), tmp_path / "cache")


def test_a_conversion_that_was_killed_is_made_again(tmp_path):
    path = write(tmp_path / "glove.txt", "\n".join(LINES) + "\n")
    mapped_vectors(path, tmp_path / "cache")
    (words,) = (tmp_path / "cache").rglob("words.json")
    words.unlink()
    words.with_name("matrix.npy").write_bytes(b"half")
    assert mapped_vectors(path, tmp_path / "cache").words == WORDS


def test_mapped_vectors_refuse_what_load_vectors_refuses(tmp_path):
    path = write(tmp_path / "v.txt", "the 1 2 3\na 1 2\n")
    with pytest.raises(UserError, match=r"v\.txt:2: expected a word and 3 finite numbers"):
        mapped_vectors(path, tmp_path / "cache")
    with pytest.raises(UserError, match=r"none\.txt: no such word vector file"):
        mapped_vectors(tmp_path / "none.txt", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_nearest_by_hand():
    matrix = unit_length(np.array([[1, 0], [0, 1], [1, 1], [-1, 0], [2, 0], [0, 0]], np.float32))
    # Cosines with (1, 0): 1, 0, 0.71, -1, 1, 0; equal ones in the order of the rows.
    assert nearest(matrix, matrix[:1], 4).tolist() == [[0, 4, 2, 1]]
    assert nearest(matrix, matrix[[1, 3]], 6).tolist() == [[1, 2, 0, 3, 4, 5], [3, 1, 5, 2, 0, 4]]
    assert nearest(matrix, matrix[:2], 9).shape == (2, 6) and nearest(matrix, matrix[:0], 3).shape == (0, 3)


def test_nearest_is_that_of_float64_whatever_stands_beside():
    rng = np.random.default_rng(0)
    matrix = unit_length(rng.normal(size=(5000, 20)))
    matrix[1000:1020] = matrix[7]  # ties over the border of what is asked for
    queries = matrix[rng.permutation(5000)[:300]]
    queries[0] = matrix[7]
    cosines = queries.astype(np.float64) @ matrix.T.astype(np.float64)
    expected = np.argsort(-cosines.round(9), axis=1, kind="stable")[:, :10]
    found = nearest(matrix, queries, 10)
    np.testing.assert_array_equal(found, expected)
    assert found[0].tolist() == [7, *range(1000, 1009)]
    for part in (slice(0, 1), slice(100, 107)):
        np.testing.assert_array_equal(nearest(matrix, queries[part], 10), found[part])
