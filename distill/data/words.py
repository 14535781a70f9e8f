"""Words: BERT's basic tokenisation as one character table, Chinese words by jieba, and word vocabularies."""

import logging
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.files import write_atomic

PAD, UNK = "[PAD]", "[UNK]"

# CJK ideographs, each a word of its own (Hangul, Hiragana and Katakana are written with spaces or in runs and are not).
CJK_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
# Single characters that PaddleNLP splits off beside punctuation and Unicode symbols.
_EXTRA_SYMBOLS = frozenset("\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1")


class BasicTable(dict[int, str]):
    """A table for `str.translate` after which `str.split()` gives the words of PaddleNLP's `BasicTokenizer`.

    Every step of that tokenizer works on single characters (lower-case, drop control characters, space around CJK,
    decompose, drop accents, space around punctuation and symbols), so their composition is one table, filled as
    characters appear.

    Args:
        lowercase: lower-case all text.
        strip_accents: drop combining marks; None means as `lowercase` (original BERT).
    """

    def __init__(self, lowercase: bool, strip_accents: bool | None = None) -> None:
        super().__init__()
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents

    def __missing__(self, codepoint: int) -> str:
        char = chr(codepoint)
        out = "".join(map(self._character, char.lower() if self.lowercase else char))
        self[codepoint] = out
        return out

    def _character(self, char: str) -> str:
        if is_dropped(char):
            return ""
        if char.isspace():
            return " "
        is_cjk = any(low <= ord(char) <= high for low, high in CJK_RANGES)
        if self.strip_accents:
            char = "".join(c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
        out = "".join(f" {c} " if _stands_alone(c) else c for c in char)
        return f" {out} " if is_cjk else out

    def words(self, text: str) -> list[str]:
        """The basic tokens of one text."""
        return self.spaced(text).split()

    def spaced(self, text: str) -> str:
        """The text with its words separated by spaces."""
        spaced = text.translate(self)
        if self.strip_accents and not spaced.isascii():
            # The few combining marks that are not accents must still stand in canonical order.
            spaced = unicodedata.normalize("NFD", spaced)
        return spaced


def is_dropped(char: str) -> bool:
    """Whether basic tokenisation deletes the character: control, format, private, unassigned, surrogate, U+FFFD."""
    return char not in "\t\n\r" and (char == "\ufffd" or unicodedata.category(char)[0] == "C")


def _stands_alone(char: str) -> bool:
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char)[0] in "PS" or char in _EXTRA_SYMBOLS


def load_jieba() -> Any:
    """The module jieba with its dictionary, loaded without the lines that it prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba


def segment(texts: Sequence[str], language: str, lowercase: bool = True) -> list[list[str]]:
    """Words of each text: 'zh' as jieba cuts them (white space left out), 'en' BERT's basic tokens."""
    if language == "en":
        table = BasicTable(lowercase)
        return [table.words(text) for text in texts]
    if language != "zh":
        raise ValueError(f"language must be 'en' or 'zh', not {language!r}")
    cut = load_jieba().cut
    return [[word for word in cut(text) if not word.isspace()] for text in texts]


def parts_of_speech(words: Sequence[str], language: str, path: str | Path | None) -> list[str]:
    """The part of speech of each word, '' where it is not known: from a file of `word TAB tag` lines, in Chinese
    without one from jieba's dictionary.

    Raises UserError (`path:line`) for a file that cannot be read, and for English words without a file.
    """
    if path is not None:
        tags = {}
        for number, line in enumerate(read_vocabulary(path), start=1):
            word, _, tag = line.partition("\t")
            if not word or not tag:
                raise UserError(f"{path}:{number}: expected `word TAB part-of-speech`")
            tags[word] = tag
    elif language == "zh":
        load_jieba()
        import jieba.posseg

        tags = jieba.posseg.dt.word_tag_tab
    else:
        raise UserError("--p_pos: English words need --pos_file, a file of `word TAB part-of-speech` lines")
    return [tags.get(word, "") for word in words]


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens of a vocabulary file, one a line, UTF-8.

    Raises UserError (`path:line`) when the file is missing, empty, not UTF-8, or has an empty or repeated line.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such vocabulary file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the vocabulary as UTF-8, one token a line") from None
    # Not splitlines(): a token may hold U+2028 or U+0085.
    tokens = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if tokens == [""]:
        raise UserError(f"{path}:1: the vocabulary is empty; it must hold one token a line")
    way_out = "delete {} from a list of words; a model's vocabulary is damaged: copy it again"
    first: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise UserError(f"{path}:{number}: empty line in the vocabulary; {way_out.format('it')}")
        if first.setdefault(token, number) != number:
            there = f"already stands in line {first[token]}"
            raise UserError(f"{path}:{number}: token {token!r} {there}; {way_out.format('one')}")
    return tokens


class WordVocab:
    """Words and their ids. Id 0 is '[PAD]' and id 1 '[UNK]', whether or not, and wherever, the source had them."""

    pad_id = 0
    unk_id = 1

    def __init__(self, words: Iterable[str]) -> None:
        self.tokens = list(dict.fromkeys([PAD, UNK, *words]))
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def from_file(cls, path: str | Path, size: int | None = None) -> "WordVocab":
        """One word a line; `size` keeps so many tokens, with '[PAD]' and '[UNK]'. UserError as `read_vocabulary`."""
        return cls(read_vocabulary(path))._first(size)

    @classmethod
    def build(cls, token_lists: Iterable[Sequence[str]], size: int | None = None) -> "WordVocab":
        """All words, the most frequent first and equals in code-point order; `size` as in `from_file`."""
        counts: Counter[str] = Counter()
        for tokens in token_lists:
            counts.update(tokens)
        return cls(sorted(counts, key=lambda word: (-counts[word], word)))._first(size)

    def _first(self, size: int | None) -> "WordVocab":
        if size is None:
            return self
        if size < 3:
            raise UserError(f"--vocab_size {size}: must be at least 3, for {PAD}, {UNK} and one word")
        return WordVocab(self.tokens[:size])

    def save(self, path: str | Path) -> None:
        """Write one token a line, whole or not at all."""
        write_atomic(path, "".join(f"{token}\n" for token in self.tokens))

    def lookup(self, token_lists: Iterable[Sequence[str]]) -> list[list[int]]:
        """Ids of each list's words, `unk_id` for those not in the vocabulary."""
        get, unk = self._ids.get, self.unk_id
        return [[get(token, unk) for token in tokens] for tokens in token_lists]
