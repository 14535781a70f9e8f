"""Word vectors: from files or a teacher's wordpiece table into an embedding matrix, and the nearest words by them."""

import functools
import math
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.wordpiece import WordPiece
from distill.data.words import PAD
from distill.errors import UserError
from distill.files import atomic_path, read_json, save_array, sha256, write_json
from distill.runtime import log

_SPECIALS = frozenset({PAD, "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"} | {b"BZh%d1AY&SY" % n: "bzip2" for n in range(1, 10)}
_SPARE = 16  # near ties that the float32 product may put in the wrong order
_QUERIES = 128  # queries a product: 51 MB of similarities to 100,000 words


def load_vectors(path: str | Path) -> Any:
    """Word vectors of a file as a gensim `KeyedVectors` (float32).

    Formats: word2vec binary (the name ends in .bin), word2vec text (first line "words dimension"), GloVe text (no such
    line). Of a repeated word the first line counts. Words of a text file that are not UTF-8 are left out, and their
    number is printed; a file of mostly such words is in another encoding.

    Raises UserError when there is no such file or a packed one, and (`path:line` in text files) for a line that is not
    a word and as many finite numbers as the header says or the other lines have, and for a file that is cut off or
    not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such word vector file")
    with open(path, "rb") as file:
        beginning = file.read(10)
    for magic, kind in _PACKED.items():
        if beginning.startswith(magic):
            raise UserError(f"{path}: packed ({kind}); unpack it first")
    if path.suffix == ".bin":
        return _load_binary(path)
    from gensim.models import KeyedVectors

    words, matrix = _read_text(path)
    vectors = KeyedVectors(matrix.shape[1])
    vectors.add_vectors(words, matrix)
    return vectors


def _load_binary(path: Path) -> Any:
    from gensim.models import KeyedVectors

    try:
        vectors = KeyedVectors.load_word2vec_format(os.fspath(path), binary=True)
    except (ValueError, EOFError, AssertionError, OverflowError, MemoryError) as error:
        reason = f"not whole or not word2vec binary ({error})"
        raise UserError(f"{path}: {reason}; download it again, or name a text file other than .bin") from None
    bad = np.flatnonzero(~np.isfinite(vectors.vectors).all(axis=1))
    if len(bad):
        word = vectors.index_to_key[bad[0]]
        raise UserError(f"{path}: the vector of {word!r} is not finite; download the file again")
    return vectors


def _read_text(path: Path) -> tuple[list[str], np.ndarray]:
    numbers: dict[str, int] = {}
    values = array("f")
    declared = None
    dimension = line = foreign = numbered = 0
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            fields = raw.removeprefix(b"\xef\xbb\xbf").rstrip(b" \t\r\n")
            if line == 1:
                declared = _header(fields)
                if declared is not None:
                    dimension = declared[1]
                    continue
                dimension = fields.count(b" ")
                if dimension == 0:
                    raise UserError(f"{path}:1: neither a header (words dimension) nor a word and its numbers")
            # From the right: a few GloVe words contain spaces.
            word_bytes, *parts = fields.rsplit(b" ", dimension)
            vector = _numbers(parts)
            doubtful = _has_number_at_end(word_bytes)
            numbered += doubtful
            if (
                vector is None
                or len(vector) != dimension
                or not word_bytes
                or b"\t" in word_bytes
                or (doubtful and declared is None)
            ):
                raise UserError(f"{path}:{line}: expected a word and {dimension} finite numbers with one space between")
            try:
                word = word_bytes.decode("utf-8")
            except UnicodeDecodeError:
                foreign += 1
                continue
            if word not in numbers:
                numbers[word] = line
                values.extend(vector)
    if 2 * foreign > line:  # not a few broken words, but another encoding
        raise UserError(f"{path}: {foreign:,} of {line:,} lines are not UTF-8; save the file as UTF-8")
    if not numbers:
        raise UserError(f"{path}: no word vectors in this file")
    if declared is not None and line - 1 < declared[0]:
        raise UserError(f"{path}:{line}: the file ends after {line - 1} of {declared[0]} words; download it again")
    if 2 * numbered > line - 1:  # not words such as `windows 10`
        raise UserError(f"{path}:1: the header says {dimension} numbers a word, and the lines have more; correct it")
    if foreign:
        log(f"{path}: {foreign:,} words that are not UTF-8 are left out")
    return list(numbers), np.frombuffer(values, np.float32).reshape(-1, dimension)


def _header(fields: bytes) -> tuple[int, int] | None:
    parts = fields.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts) and int(parts[1]) > 0:
        return int(parts[0]), int(parts[1])
    return None


def _numbers(parts: list[bytes]) -> list[float] | None:
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _has_number_at_end(word: bytes) -> bool:
    """A word with a space and then a number: without a header that says how many there are, one too many."""
    return b" " in word and _numbers([word.rsplit(b" ", 1)[1]]) is not None


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors of unit length, float32 [W, D], in memory or memory-mapped; frequent words first."""

    words: list[str]
    matrix: np.ndarray

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: i for i, word in enumerate(self.words)}


def mapped_vectors(path: str | Path, cache_dir: str | Path) -> WordVectors:
    """The word vectors of a file, memory-mapped from `cache_dir`, where the first call converts them.

    The converted form is addressed by the file's content. Raises UserError as `load_vectors` does, and when the disk
    is full.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such word vector file")
    folder = Path(cache_dir).expanduser() / "vectors" / sha256(path)[:16]
    if not (folder / "words.json").is_file():  # written last
        vectors = load_vectors(path)
        with atomic_path(folder / "matrix.npy") as temporary:
            save_array(temporary, unit_length(vectors.vectors))
        write_json(folder / "words.json", vectors.index_to_key)
    return WordVectors(read_json(folder / "words.json"), np.load(folder / "matrix.npy", mmap_mode="r"))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Each row [n, D] divided by its length, float32; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def nearest(matrix: np.ndarray, queries: np.ndarray, m: int) -> np.ndarray:
    """The rows of `matrix` [W, D] nearest to each query [q, D] by cosine: int64 [q, min(m, W)], the nearest first.

    Both hold rows of unit length. One matrix product in float32 finds more than `m` rows, float64 orders them, and of
    equal ones (to 1e-9) the lower row comes first: the result does not depend on threads, library or the other
    queries.
    """
    found = np.empty((len(queries), min(m, len(matrix))), np.int64)
    wide = min(m + _SPARE, len(matrix))
    for start in range(0, len(queries), _QUERIES):
        block = np.asarray(queries[start : start + _QUERIES], np.float32)
        rows = np.argpartition(block @ matrix.T, len(matrix) - wide, axis=1)[:, len(matrix) - wide :]
        rows.sort(axis=1)
        cosines = np.einsum("qd,qwd->qw", block.astype(np.float64), matrix[rows].astype(np.float64))
        order = np.argsort(-cosines.round(9), axis=1, kind="stable")
        found[start : start + len(block)] = np.take_along_axis(rows, order, axis=1)[:, : found.shape[1]]
    return found


def embedding_matrix(tokens: Sequence[str], vectors: Any, seed: int, scale: float = 0.1) -> tuple[np.ndarray, float]:
    """The vector of each token, float32 [V, D], and the coverage: the share of all but special tokens that have one.

    A token without a vector gets normal(0, `scale`) numbers that depend only on the seed, V, D and its row; '[PAD]'
    gets zeros. `vectors` is what `load_vectors` returns.
    """
    matrix = np.random.default_rng(seed).standard_normal((len(tokens), vectors.vector_size), np.float32)
    matrix *= scale
    index = vectors.key_to_index
    found = [i for i, token in enumerate(tokens) if token in index]
    matrix[found] = vectors.vectors[[index[tokens[i]] for i in found]]
    matrix[[i for i, token in enumerate(tokens) if token == PAD]] = 0
    words = sum(token not in _SPECIALS for token in tokens)
    covered = sum(tokens[i] not in _SPECIALS for i in found)
    return matrix, covered / max(words, 1)


def reduce_table(table: np.ndarray, dim: int, std: float = 0.5, pad_id: int | None = None) -> np.ndarray:
    """The first `dim` principal components of a table [V, H], float32 [V, dim], all scaled by one factor; where there
    are fewer, zeros beside them.

    The factor gives the entries the standard deviation `std`. Its default suits an LSTM's input: large enough that
    the gates see it from the first step and that an Adam step of 1e-3 changes a vector slowly. Float64 eigen
    decomposition of the covariance; the entry of largest magnitude in each component is made positive, so that the
    sign is not left to the linear algebra library. Row `pad_id` becomes zero.
    """
    table = np.asarray(table, np.float64)
    centred = table - table.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred / len(table))
    components = vectors[:, ::-1][:, :dim]  # eigh sorts upwards
    strongest = components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])]
    reduced = centred @ (components * np.sign(strongest))
    spread = reduced.std()
    if spread > 0:
        reduced *= std / spread
    if pad_id is not None:
        reduced[pad_id] = 0
    return np.pad(reduced, ((0, 0), (0, dim - reduced.shape[1]))).astype(np.float32)


def compose_words(words: Sequence[str], wordpiece: WordPiece, table: np.ndarray) -> np.ndarray:
    """Float32 [V, H]: for each word the mean of its pieces' rows of the wordpiece table [W, H]; '[PAD]' gets zeros.

    A word that the basic tokenisation drops whole gets the row of '[UNK]'.
    """
    pieces = [ids or [wordpiece.unk_id] for ids in wordpiece.pieces(words)]
    lengths = np.array([len(ids) for ids in pieces], np.int64)
    composed = np.zeros((len(words), table.shape[1]), np.float64)
    row = np.repeat(np.arange(len(words)), lengths)
    # Piece by place in the word: never more than one [V, H] block beside the result.
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat = np.fromiter((i for ids in pieces for i in ids), np.int64, len(row))
    for p in range(int(lengths.max(initial=0))):
        at = place == p
        composed[row[at]] += table[flat[at]]
    composed /= lengths[:, None]
    composed[[i for i, word in enumerate(words) if word == PAD]] = 0
    return composed.astype(np.float32)
