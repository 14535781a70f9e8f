"""Wordpiece ids, identical to PaddleNLP's `BertTokenizer`, in flat arrays.

A corpus has few distinct words: each is cut into pieces once, by the `tokenizers` library, and a row is then a lookup.
The basic tokenisation (`words.BasicTable`) and the truncation of pairs are our own, because that library differs from
PaddleNLP on symbols, on newer Unicode, and on which text of a pair keeps the odd token.
"""

import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.ragged import Ragged
from distill.data.words import CJK_RANGES, BasicTable, is_dropped, read_vocabulary
from distill.errors import UserError
from distill.files import read_settings, write_atomic, write_json
from distill.runtime import log
from distill.tokenizer_json import SPECIALS, read_tokenizer

_CHUNK = 10_000  # texts at a time: Python objects exist for so many only
_MAX_CACHED_WORDS = 1 << 20

# Control characters that mark a row's end and the special tokens found in a text, while it is cut into words.
_ROW_END = "\0"
_MARKS = {token: chr(i) for i, token in enumerate(SPECIALS, start=1)}
_MARK_IN_TEXT = re.compile("[\1-\5]")
_HARMLESS = dict.fromkeys(range(len(_MARKS) + 1), "\x0e")  # dropped later like them, but no mark
_SPECIAL = re.compile("|".join(map(re.escape, SPECIALS)))
_NO_BORDER = "[^\\s\1-\5" + "".join(f"{chr(low)}-{chr(high)}" for low, high in CJK_RANGES) + "\0]"
_LONE_SPECIAL = re.compile(f"(?<!{_NO_BORDER})(?:{_SPECIAL.pattern})(?!{_NO_BORDER})")


class Encoded:
    """Rows of different lengths in flat arrays.

    ids: int32, all rows one after the other; types: uint8, token types, as long as ids; offsets: int64 [n+1], row i is
    ids[offsets[i]:offsets[i+1]]; cut: bool [n], the rows that were longer; without it none was.
    """

    def __init__(self, ids: np.ndarray, types: np.ndarray, offsets: np.ndarray, cut: np.ndarray | None = None) -> None:
        self.ids = ids
        self.types = types
        self.offsets = offsets
        self.cut = np.zeros(len(offsets) - 1, bool) if cut is None else cut

    @classmethod
    def from_rows(cls, rows: Sequence[Any], types: Sequence[Any] | None = None) -> "Encoded":
        """From each row's ids (special tokens included) and, unless all are 0, each row's token types.

        Raises ValueError when types and ids differ in length.
        """
        ids, lengths = _flatten(rows)
        if types is None:
            return cls(ids, np.zeros(len(ids), np.uint8), _offsets(lengths))
        flat_types, type_lengths = _flatten(types)
        if not np.array_equal(lengths, type_lengths):
            raise ValueError("each row needs as many token types as ids")
        return cls(ids, flat_types.astype(np.uint8), _offsets(lengths))

    @classmethod
    def joined(cls, parts: Sequence["Encoded"]) -> "Encoded":
        """All rows of the parts, in order."""
        if not parts:
            return cls.from_rows([])
        lengths = np.concatenate([part.lengths for part in parts])
        ids = np.concatenate([part.ids for part in parts])
        types, cut = (np.concatenate([getattr(part, name) for part in parts]) for name in ("types", "cut"))
        return cls(ids, types, _offsets(lengths), cut)

    def concat(self, other: "Encoded") -> "Encoded":
        return Encoded.joined([self, other])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def extents(self) -> np.ndarray:
        """What a row's inner tensors grow with, int64 [n, 1]: its length. Of pairs [n, 3]: and those of its texts."""
        return self.lengths[:, None]

    def row(self, i: int) -> np.ndarray:
        """Ids of row i, a view."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def take(self, indices: Any) -> "Encoded":
        """The chosen rows, in the given order."""
        indices = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        at = _spread(self.offsets[indices], lengths)
        return Encoded(self.ids[at], self.types[at], _offsets(lengths), self.cut[indices])

    def pad(self, indices: Any, pad_id: int = 0, width: int | None = None) -> dict[str, np.ndarray]:
        """A batch of the chosen rows, padded to the longest of them or to `width`.

        Returns input_ids int64 [B,L], token_type_ids int64 [B,L], mask float32 [B,L] (1 at real tokens) and lengths
        int64 [B]. Raises ValueError when a row is longer than `width`.
        """
        rows = self.take(indices)
        lengths = rows.lengths
        longest = int(lengths.max(initial=0))
        if width is None:
            width = longest
        elif width < longest:
            raise ValueError(f"a row has {longest} tokens, more than the width {width}")
        real = np.arange(width) < lengths[:, None]
        input_ids = np.full(real.shape, pad_id, np.int64)
        token_type_ids = np.zeros(real.shape, np.int64)
        input_ids[real] = rows.ids
        token_type_ids[real] = rows.types
        return {
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "mask": real.astype(np.float32),
            "lengths": lengths,
        }

    def keys(self) -> np.ndarray:
        """Content address of each row, [n] of dtype V16: 128-bit BLAKE2b of its tokens, type << 24 | id as '<u4'.

        Raises ValueError when an id does not fit into 24 bits.
        """
        if len(self.ids) and (self.ids.min() < 0 or self.ids.max() >= 1 << 24):
            raise ValueError("ids must lie in [0, 2^24)")
        content = self.types.astype("<u4")
        content <<= 24
        content |= self.ids.astype("<u4")
        data = content.view(np.uint8).data
        keys = np.empty(len(self), "V16")
        blake2b = hashlib.blake2b
        for start in range(0, len(self), _CHUNK):
            bounds = (4 * self.offsets[start : start + _CHUNK + 1]).tolist()
            digests = [blake2b(data[a:b], digest_size=16).digest() for a, b in itertools.pairwise(bounds)]
            keys[start : start + len(digests)] = np.frombuffer(b"".join(digests), "V16")
        return keys


def report_cut(what: str, cut: np.ndarray, limit: str) -> None:
    """Print how many of `what` are longer than the flag `limit` says, if any are. cut: bool [n]."""
    if cut.any():
        log(f"{cut.sum():,} of {len(cut):,} {what} are longer than {limit} and are cut")


class WordPiece:
    """BERT's tokenizer: a vocabulary and whether text is lower-cased.

    Args:
        vocab_file: one token a line; the line number, from 0, is the id.
        tokens: those of the file where it is none of lines.
        lowercase: lower-case the text (and drop accents, unless `strip_accents` says otherwise).
        strip_accents: None as `lowercase`.

    Raises UserError for a vocabulary that cannot be read (see `words.read_vocabulary`) or lacks a special token.
    """

    def __init__(
        self,
        vocab_file: str | Path,
        lowercase: bool,
        strip_accents: bool | None = None,
        tokens: list[str] | None = None,
    ) -> None:
        self.vocab_file = Path(vocab_file)
        self.lowercase = lowercase
        self.tokens = read_vocabulary(vocab_file) if tokens is None else tokens
        self.size = len(self.tokens)
        ids = {token: i for i, token in enumerate(self.tokens)}
        missing = [token for token in SPECIALS if token not in ids]
        if missing:
            raise UserError(f"{vocab_file}: no token {missing[0]}; this is not a BERT vocabulary")
        self.pad_id, self.unk_id, self.mask_id = ids["[PAD]"], ids["[UNK]"], ids["[MASK]"]
        self.cls_id, self.sep_id = ids["[CLS]"], ids["[SEP]"]
        self._table = BasicTable(lowercase, strip_accents)
        self._table.update({ord(mark): f" {mark} " for mark in (_ROW_END, *_MARKS.values())})
        self._words = _PieceCache(ids)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "WordPiece":
        """Of a model folder: vocab.txt with the settings of tokenizer_config.json; or, where it is missing,
        tokenizer.json.

        Without a `do_lower_case` there, text is lower-cased unless the vocabulary has words with capitals.
        """
        folder = Path(folder)
        vocab_file, config_file, whole = (
            folder / name for name in ("vocab.txt", "tokenizer_config.json", "tokenizer.json")
        )
        if not vocab_file.is_file() and not whole.is_file():
            raise UserError(
                f"{vocab_file}: no such file, nor a {whole.name}; a model folder must hold the model's vocabulary"
            )
        config = read_settings(config_file) if config_file.is_file() else {}
        if config.get("tokenize_chinese_chars") is False or config.get("do_basic_tokenize") is False:
            raise UserError(
                f"{config_file}: tokenize_chinese_chars and do_basic_tokenize must be true, as in original BERT"
            )
        if not vocab_file.is_file():
            tokens, lower, strip = read_tokenizer(whole)
            for name, value in (("do_lower_case", lower), ("strip_accents", strip)):
                if config.get(name, value) != value:
                    what = f"{name} is {config[name]}, in {whole.name} {value}"
                    raise UserError(f"{config_file}: {what}; correct the one that is not the model's")
            return cls(whole, lower, strip, tokens)
        lowercase = config.get("do_lower_case")
        if lowercase is None:
            capital = re.compile("(##)?[a-z]*[A-Z][A-Za-z]+")
            lowercase = not any(map(capital.fullmatch, read_vocabulary(vocab_file)))
        return cls(vocab_file, lowercase, config.get("strip_accents"))

    def encode(self, text_a: Sequence[str], text_b: Sequence[str] | None, max_length: int) -> Encoded:
        """[CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token types 0 and 1, of at most `max_length` tokens.

        Ids are those of PaddleNLP's `BertTokenizer.from_pretrained(folder)`, called with (a, b, max_length=max_length,
        truncation="longest_first"); like there, "[MASK]" or "[SEP]" written in a text is that special token. Raises
        UserError when `max_length` leaves no room for a token of each text.
        """
        _check_max_length(max_length, text_b is not None)
        if text_b is not None and len(text_a) != len(text_b):
            raise ValueError(f"{len(text_a)} first texts but {len(text_b)} second texts")
        parts = []
        for start in range(0, len(text_a), _CHUNK):
            a = self._flat_pieces(text_a[start : start + _CHUNK])
            b = self._flat_pieces(text_b[start : start + _CHUNK]) if text_b is not None else None
            parts.append(self._assemble(a, b, max_length))
        return Encoded.joined(parts)

    def from_pieces(self, pieces_a: Ragged, pieces_b: Ragged | None = None, *, max_length: int) -> Encoded:
        """As `encode`, from rows of piece ids without special tokens, such as `pieces` makes and augmentation
        changes."""
        _check_max_length(max_length, pieces_b is not None)
        parts = []
        for start in range(0, len(pieces_a), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(pieces_a)))
            a, b = pieces_a.take(rows), pieces_b.take(rows) if pieces_b is not None else None
            parts.append(
                self._assemble((a.values, a.lengths), (b.values, b.lengths) if b is not None else None, max_length)
            )
        return Encoded.joined(parts)

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """Basic tokens of each text: what is then cut into pieces."""
        return [self._table.words(text) for text in texts]

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Piece ids of each text, without special tokens and untruncated."""
        rows = []
        for start in range(0, len(texts), _CHUNK):
            flat, lengths = self._flat_pieces(texts[start : start + _CHUNK])
            ids = flat.tolist()
            rows += [ids[a:b] for a, b in itertools.pairwise(_offsets(lengths).tolist())]
        return rows

    def save(self, folder: str | Path, **settings: Any) -> None:
        """Write vocab.txt and tokenizer_config.json (with `settings` added), from which `from_folder` and PaddleNLP
        make the same tokenizer."""
        write_atomic(Path(folder) / "vocab.txt", "".join(f"{token}\n" for token in self.tokens))
        own = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self._table.strip_accents,
        }
        write_json(Path(folder) / "tokenizer_config.json", own | settings)

    def digest(self) -> str:
        """SHA-256 of the vocabulary and the settings, as hexadecimal digits: equal digests give equal ids."""
        content = [self.lowercase, self._table.strip_accents, self.tokens]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _flat_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Piece ids of all texts in one array, and the number of pieces of each text."""
        joined = _ROW_END.join([*texts, ""])
        if joined.count(_ROW_END) != len(texts) or _MARK_IN_TEXT.search(joined):
            joined = _ROW_END.join([*(text.translate(_HARMLESS) for text in texts), ""])
        if "[" in joined:
            joined = _SPECIAL.sub(_mark, joined)
            if not self.lowercase and "[" in joined:
                # PaddleNLP looks for special tokens again after it has dropped the control characters inside them.
                joined = _LONE_SPECIAL.sub(_mark, _without_dropped(joined))
        return self._words.flat_pieces(self._table.words(joined))

    def _assemble(
        self, a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray] | None, max_length: int
    ) -> Encoded:
        flat_a, lengths_a = a
        if b is None:
            keep_a = np.minimum(lengths_a, max_length - 2)
            cut = keep_a < lengths_a
            offsets = _offsets(keep_a + 2)
        else:
            flat_b, lengths_b = b
            keep_a, keep_b = _longest_first(lengths_a, lengths_b, max_length - 3)
            cut = (keep_a < lengths_a) | (keep_b < lengths_b)
            offsets = _offsets(keep_a + keep_b + 3)
        starts = offsets[:-1]
        ids = np.full(offsets[-1], self.sep_id, np.int32)  # what is not overwritten below is a [SEP]
        types = np.zeros(offsets[-1], np.uint8)
        ids[starts] = self.cls_id
        ids[_spread(starts + 1, keep_a)] = flat_a[_spread(_offsets(lengths_a)[:-1], keep_a)]
        if b is not None:
            starts_b = starts + keep_a + 2
            ids[_spread(starts_b, keep_b)] = flat_b[_spread(_offsets(lengths_b)[:-1], keep_b)]
            types[_spread(starts_b, keep_b + 1)] = 1
        return Encoded(ids, types, offsets, cut)


class _PieceCache(dict[str, int]):
    """Word -> its number; word i has the pieces[ends[i-1]:ends[i]]. Number 0 is the row end, which has no piece."""

    def __init__(self, ids: dict[str, int]) -> None:
        from tokenizers.models import WordPiece as Model

        super().__init__()
        self._ids = ids
        self._cut = Model(ids, unk_token="[UNK]", max_input_chars_per_word=100).tokenize
        self._reset()

    def _reset(self) -> None:
        self.clear()
        self[_ROW_END] = 0
        self._pieces = array("i")
        self._ends = array("q", [0])
        for token, mark in _MARKS.items():
            self._add(mark, [self._ids[token]])

    def _add(self, word: str, pieces: list[int]) -> int:
        number = self[word] = len(self._ends)
        self._pieces.extend(pieces)
        self._ends.append(len(self._pieces))
        return number

    def __missing__(self, word: str) -> int:
        return self._add(word, [token.id for token in self._cut(word)])

    def flat_pieces(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Pieces of all words in one array, and the number of pieces of each row (rows end with the row-end word)."""
        if len(self) > _MAX_CACHED_WORDS:
            self._reset()
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        bounds = np.concatenate([[0], np.array(self._ends, np.int64)])
        starts, counts = bounds[numbers], np.diff(bounds)[numbers]
        flat = np.array(self._pieces, np.int32)[_spread(starts, counts)]
        return flat, np.diff(np.cumsum(counts)[numbers == 0], prepend=0)


def _mark(match: re.Match[str]) -> str:
    return _MARKS[match[0]]


def _without_dropped(text: str) -> str:
    kept = {_ROW_END, *_MARKS.values()}
    return text.translate({ord(char): None for char in set(text) if is_dropped(char) and char not in kept})


def _check_max_length(max_length: int, pair: bool) -> None:
    least = 5 if pair else 3
    if max_length < least:
        need = "the special tokens and one of each text"
        raise UserError(f"--max_seq_length {max_length}: must be at least {least}, {need}")


def _longest_first(a: np.ndarray, b: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths after removing one token at a time, from `a` where it is longer, else from `b`, until a + b <= room."""
    half = room // 2
    keep_a = np.where(b <= half, room - b, room - half)
    keep_a = np.minimum(a, keep_a)
    return keep_a, np.minimum(b, room - keep_a)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The positions starts[i], ..., starts[i] + counts[i] - 1, for one i after the other."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def _flatten(rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    if len(rows) and isinstance(rows[0], np.ndarray):
        return np.concatenate(rows).astype(np.int32, copy=False), lengths
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths
