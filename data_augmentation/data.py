"""From a text to its words and back: which of them may be replaced, and the copies in which some are."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from distill.data.augment import uniform
from distill.data.readers import Rows
from distill.data.wordpiece import WordPiece
from distill.data.words import CJK_RANGES, BasicTable, is_dropped, load_jieba, parts_of_speech, segment

if TYPE_CHECKING:
    from distill.teachers.teacher import Teacher

# The function words that the published code spares (NLTK's English list); words with an apostrophe are several here.
STOP_WORDS = frozenset(
    """i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
    it its itself they them their theirs themselves what which who whom this that these those am is are was were be been
    being have has had having do does did doing a an the and but if or because as until while of at by for with about
    against between into through during before after above below to from up down in out on off over under again further
    then once here there when where why how all any both each few more most other some such no nor not only own same so
    than too very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma
    mightn mustn needn shan shouldn wasn weren won wouldn""".split()
)
# In Chinese the part of speech tells: nouns, verbs, adjectives, idioms, and words that the dictionary does not have ...
_CONTENT = frozenset("nvailzbjts")
# ... but not these verbs, of which some negate.
_CHINESE_STOP_WORDS = frozenset(
    "是 有 没 没有 无 会 能 能够 可能 应该 要 想 得 让 使 到 去 来 说 做 不是 不会 不能 不要 没能 无法 不可".split()
)
_ENGLISH = re.compile("[a-z]+")
_CHINESE = re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in CJK_RANGES) + "]+")
_LEXICON = 50_000  # of jieba's dictionary
_NOTHING: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True)
class Sentence:
    """A text cut into words.

    words: as they stand in the text; gaps: what stands before, between and after them, one more than words; pieces: the
    encoder's ids of each word; open: indices of the words that may be replaced.
    """

    words: list[str]
    gaps: list[str]
    pieces: list[list[int]]
    open: list[int]

    def text(self, replaced: Mapping[int, str] = _NOTHING) -> str:
        """The text with other words in some places, all else, spaces included, as it was."""
        words = [replaced.get(i, word) for i, word in enumerate(self.words)]
        return self.gaps[0] + "".join(word + gap for word, gap in zip(words, self.gaps[1:], strict=True))


class Reader:
    """Cuts texts into the basic words of BERT's tokenizer, in Chinese into whole words by jieba."""

    def __init__(self, wordpiece: WordPiece, language: str) -> None:
        self.wordpiece, self.language = wordpiece, language
        self._basic = BasicTable(lowercase=False)

    def __call__(self, texts: Sequence[str]) -> list[Sentence]:
        texts = [_visible(text) for text in texts]
        if self.language == "zh":
            cut = segment(texts, "zh")
        else:
            cut = [self._basic.words(text) for text in texts]
        flat = [word for words in cut for word in words]
        pieces, may = iter(self.wordpiece.pieces(flat)), iter(self.may_replace(flat))
        sentences = []
        for text, words in zip(texts, cut, strict=True):
            ids = [next(pieces) for _ in words]
            is_open = [next(may) for _ in words]
            sentences.append(Sentence(words, _gaps(text, words), ids, [i for i, yes in enumerate(is_open) if yes]))
        return sentences

    def may_replace(self, words: Sequence[str]) -> list[bool]:
        """Whether each is a word of letters (of ideographs) and no function word."""
        if self.language == "zh":
            tags = parts_of_speech(words, "zh", None)
            return [
                tag[:1] in _CONTENT | {""} and word not in _CHINESE_STOP_WORDS and bool(_CHINESE.fullmatch(word))
                for word, tag in zip(words, tags, strict=True)
            ]
        lowered = [word.lower() for word in words]
        return [bool(_ENGLISH.fullmatch(word)) and word not in STOP_WORDS for word in lowered]

    @functools.cached_property
    def lexicon(self) -> list[str]:
        """Words that may be replaced themselves: of the vocabulary, in Chinese jieba's most frequent ones."""
        if self.language != "zh":
            return self._replaceable(self.wordpiece.tokens)
        counts = load_jieba().dt.FREQ
        words = sorted(counts, key=lambda word: (-counts[word], word))
        return self._replaceable([word for word in words if counts[word]])[:_LEXICON]

    def _replaceable(self, words: Sequence[str]) -> list[str]:
        return [word for word, may in zip(words, self.may_replace(words), strict=True) if may]


def _visible(text: str) -> str:
    """Without the characters that tokenisation drops; tabs and line ends as spaces."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if char in "\t\r\n" else char for char in text if not is_dropped(char))


def _gaps(text: str, words: Sequence[str]) -> list[str]:
    gaps, end = [], 0
    for word in words:
        start = text.index(word, end)
        gaps.append(text[end:start])
        end = start + len(word)
    return [*gaps, text[end:]]


def copies(
    sentence: Sentence, candidates: Sequence[Sequence[str]], tries: int, p: float, seed: int, row: int, side: int
) -> list[str]:
    """Distinct copies of the sentence, without the sentence itself: at most `tries`.

    In each try every open word is replaced with probability `p` by one of its `candidates`, all equally likely. The
    draws depend on (seed, row, side, try, place) and on nothing else; side: 0 for the first text of a row, 1 for the
    second.
    """
    places = [i for i, words in zip(sentence.open, candidates, strict=True) if words]
    if not places:
        return []
    proposed = [words for words in candidates if words]
    counts = np.array([len(words) for words in proposed])
    where = np.array([row]), np.arange(tries)[:, None], np.array(places)
    replaced = uniform(seed, 2 * side, *where) < p
    chosen = (uniform(seed, 2 * side + 1, *where) * counts).astype(np.int64)
    made = dict.fromkeys(
        sentence.text({places[j]: proposed[j][picks[j]] for j in np.flatnonzero(which)})
        for which, picks in zip(replaced, chosen, strict=True)
    )
    made.pop(sentence.text(), None)
    return list(made)


def with_copies(rows: Rows, copied: Sequence[Sequence[Sequence[str]]]) -> tuple[Rows, np.ndarray]:
    """Each row, then its copies: those of its first text beside the second text, and the other way round. Also the
    index of each one's own row, int64 [n].

    copied: for each text of a row, for each row, the copies of that text.
    """
    text_a: list[str] = []
    text_b: list[str] = []
    counts = []
    for i, first in enumerate(rows.text_a):
        others = copied[0][i]
        text_a += [first, *others]
        if rows.text_b is not None:
            second, swapped = rows.text_b[i], copied[1][i]
            text_a += [first] * len(swapped)
            text_b += [second] * (1 + len(others)) + list(swapped)
        counts.append(len(text_a) - sum(counts))
    own = np.repeat(np.arange(len(rows)), counts)
    labels = None if rows.labels is None else rows.labels[own]
    return Rows(text_a, text_b if rows.text_b is not None else None, labels, rows.source), own


def logits(teacher: "Teacher", rows: Rows) -> np.ndarray:
    """The teacher's logits of the rows, [n, C], by way of its cache."""
    outputs = teacher.outputs(teacher.encode(rows))
    batches = np.array_split(np.arange(len(rows)), -(-len(rows) // 64))
    return np.concatenate([outputs.batch(batch)["logits"] for batch in batches])


def stays_confident(logits: np.ndarray, own: np.ndarray, least: float) -> np.ndarray:
    """Whether the teacher gives a copy the class that it gives the copy's row with a probability of at least `least`.

    logits: [n, C] of rows and copies in the order of `with_copies`, own: as it returns. Rows themselves always stay.
    """
    first = np.searchsorted(own, own)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    rows = np.arange(len(own))
    return (chances[rows, logits[first].argmax(axis=1)] >= least) | (rows == first)
