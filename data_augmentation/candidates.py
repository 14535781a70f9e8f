"""The words that may take a word's place: what a masked LM reads there, or the word's neighbours among vectors."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_augmentation.data import Reader, Sentence
from distill.data.vectors import WordVectors, compose_words, mapped_vectors, nearest, unit_length
from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders.folder import word_embeddings
from distill.encoders.masked_lm import MaskedLM
from distill.errors import UserError

SEARCHED = 100_000  # neighbours are looked for among the first (most frequent) words of a file
_LONGEST = 4  # characters of a Chinese word that the masked LM is asked about; few dictionary words are longer
_CHUNK = 4096  # texts or words at a time: what is made of them exists for so many only
_BLOCK_TOKENS = 2**15  # tokens a block of answers stands for: a kill costs no more than one block


@dataclass(frozen=True)
class Blanks:
    """The words that may stand in a blank of k pieces: ids[k] int [W, k], and names[k], '' for what is no word."""

    ids: dict[int, np.ndarray]
    names: dict[int, list[str]]
    unk_id: int

    def asked(self, sentence: Sentence) -> list[int]:
        """The words of a sentence that the masked LM is asked about."""
        pieces = sentence.pieces
        return [i for i in sentence.open if len(pieces[i]) in self.ids and self.unk_id not in pieces[i]]


def blanks(reader: Reader, any_length: bool) -> Blanks:
    """English: any token for words of one piece; parts of words and special tokens are no words. Chinese: the lexicon's
    words by their number of characters, those of one character only unless `any_length`."""
    wordpiece = reader.wordpiece
    if reader.language != "zh":
        names = [
            "" if token.startswith("##") or (token[0], token[-1]) == ("[", "]") else token for token in wordpiece.tokens
        ]
        return Blanks({1: np.arange(wordpiece.size)[:, None]}, {1: names}, wordpiece.unk_id)
    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for word, pieces in zip(reader.lexicon, wordpiece.pieces(reader.lexicon), strict=True):
        if len(pieces) == len(word) <= (_LONGEST if any_length else 1) and wordpiece.unk_id not in pieces:
            by_length.setdefault(len(word), []).append((word, pieces))
    ids = {k: np.array([pieces for _, pieces in words]) for k, words in by_length.items()}
    return Blanks(ids, {k: [word for word, _ in words] for k, words in by_length.items()}, wordpiece.unk_id)


def vector_file(glove_embs: str) -> Path | None:
    """The file of --glove_embs, which exists, or None."""
    if glove_embs == "none":
        return None
    path = Path(glove_embs).expanduser()
    if not path.is_file():
        raise UserError(f"--glove_embs {glove_embs}: no such file; `none` takes the encoder's own wordpiece table")
    return path


def described(model: str, blanks: Blanks | None, vectors: Path | None, mode: str) -> str:
    """Who proposes which words, in one line."""
    source = f"neighbours in {vectors}" if vectors else f"neighbours in the wordpiece table of {model}"
    if blanks is None or not blanks.ids:
        why = "has no masked-LM head" if blanks is None else "has no whole Chinese words in its vocabulary"
        return f"{model} {why}: every word's candidates are its {source}"
    if max(blanks.ids) > 1:
        return f"words of up to {max(blanks.ids)} characters: masked LM of {model} ({mode}); others: {source}"
    return f"words of one piece: masked LM of {model} ({mode}); words of several pieces: {source}"


# The masked LM


def sequences(
    sentence: Sentence, asked: Sequence[int], mode: str, wordpiece: WordPiece, max_length: int
) -> Iterator[tuple[list[int], list[int], list[tuple[int, int]]]]:
    """`[CLS] masked sentence [SEP] sentence [SEP]` with token types 0 and 1: ids, types, and the blanks, each as its
    first place and its number of places.

    per_word: a sequence for each word asked about, which alone is masked. single_pass: one with all of them masked. Of
    a sentence that is too long the part around the masked words is read; in single_pass it comes in several parts.
    """
    flat = [piece for pieces in sentence.pieces for piece in pieces]
    ends = np.cumsum([len(pieces) for pieces in sentence.pieces])
    spans = [(int(ends[i]) - len(sentence.pieces[i]), int(ends[i])) for i in asked]
    room = (max_length - 3) // 2
    while spans:
        together = [span for span in spans if mode == "single_pass" and span[1] - spans[0][0] <= room] or spans[:1]
        spans = spans[len(together) :]
        first, last = together[0][0], together[-1][1]
        start = max(0, min(first - (room - (last - first)) // 2, len(flat) - room))
        plain = flat[start : start + room]
        masked = list(plain)
        for a, b in together:
            masked[a - start : b - start] = [wordpiece.mask_id] * (b - a)
        ids = [wordpiece.cls_id, *masked, wordpiece.sep_id, *plain, wordpiece.sep_id]
        types = [0] * (len(masked) + 2) + [1] * (len(plain) + 1)
        yield ids, types, [(a - start + 1, b - a) for a, b in together]


def read_blanks(
    texts: Sequence[str], mode: str, lm: MaskedLM, blanks: Blanks, reader: Reader, m: int, size: int
) -> np.ndarray:
    """For each word asked about, one text after the other, the numbers of the `m` words that the masked LM prefers in
    its place: int32 [n, m], see `MaskedLM.best`. size: sequences a forward pass."""
    rows, types, places = [], [], []
    for sentence in reader(texts):
        for ids, kinds, spans in sequences(sentence, blanks.asked(sentence), mode, reader.wordpiece, lm.max_length):
            places += [(len(rows), first, length) for first, length in spans]
            rows.append(ids)
            types.append(kinds)
    return lm.best(Encoded.from_rows(rows, types), np.array(places).reshape(-1, 3), blanks.ids, m, size)


def overlap(ours: np.ndarray, others: np.ndarray) -> float:
    """The mean share of the numbers in a row of `ours` [n, m] that are in the same row of `others`."""
    shares = [len(np.intersect1d(a, b)) / len(np.unique(a)) for a, b in zip(ours, others, strict=True)]
    return float(np.mean(shares))


@dataclass(frozen=True)
class Plan:
    """Which texts the masked LM is asked about: each distinct sentence once, in blocks of sentences of similar length.

    blocks: the numbers of each block's texts. block, start, count: for each text where the answers about it stand
    (block -1: nowhere), and how many words were asked about. words: those that are left to their neighbours. tokens:
    what the masked LM reads in all.
    """

    blocks: list[np.ndarray]
    block: np.ndarray
    start: np.ndarray
    count: np.ndarray
    words: list[str]
    tokens: int

    @property
    def asked(self) -> int:
        """Words that the masked LM is asked about."""
        return int(self.count[np.concatenate([np.zeros(0, np.int64), *self.blocks])].sum())

    def sample(self, size: int) -> np.ndarray:
        """The numbers of some texts of all lengths."""
        texts = np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.int64)
        return texts[np.linspace(0, len(texts) - 1, min(size, len(texts))).astype(np.int64)]


def make_plan(texts: Sequence[str], reader: Reader, blanks: Blanks | None, mode: str, max_length: int) -> Plan:
    """The plan, a function of its arguments alone; `blanks` None: nothing is asked."""
    n = len(texts)
    keys = np.zeros((n, 2), np.uint64)
    length, cost, count = (np.zeros(n, np.int64) for _ in range(3))
    others: set[str] = set()
    for begin in range(0, n, _CHUNK):
        for t, sentence in enumerate(reader(texts[begin : begin + _CHUNK]), begin):
            asked = blanks.asked(sentence) if blanks else []
            others.update(sentence.words[i] for i in set(sentence.open).difference(asked))
            if asked:
                content = [piece for pieces in sentence.pieces for piece in [*pieces, -1]] + asked
                digest = hashlib.blake2b(np.array(content, "<i4").tobytes(), digest_size=16).digest()
                keys[t] = np.frombuffer(digest, "<u8")
                count[t] = len(asked)
                length[t] = 2 * min(sum(map(len, sentence.pieces)), (max_length - 3) // 2) + 3
                cost[t] = length[t] * (len(asked) if mode == "per_word" else 1)
    some = np.flatnonzero(count)
    block, start = np.full(n, -1), np.zeros(n, np.int64)
    if not len(some):
        return Plan([], block, start, count, sorted(others), 0)
    _, first, inverse = np.unique(keys[some], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(length[some[first]], kind="stable")  # and of one length by key
    distinct = some[first[order]]
    block_of = np.cumsum(cost[distinct]) // _BLOCK_TOKENS
    block_of = np.unique(block_of, return_inverse=True)[1]
    begins = np.searchsorted(block_of, np.arange(block_of[-1] + 1))
    before = np.cumsum(count[distinct]) - count[distinct]
    turn = np.argsort(order)[inverse.ravel()]
    block[some], start[some] = block_of[turn], (before - before[begins[block_of]])[turn]
    return Plan(np.split(distinct, begins[1:]), block, start, count, sorted(others), int(cost[distinct].sum()))


# Neighbours

Lookup = Callable[[Sequence[str]], np.ndarray]
"""Words -> their vectors of unit length, float32 [n, D]; zeros where there is none."""


def vectors_of_file(path: Path, cache_dir: str) -> tuple[WordVectors, Lookup]:
    """The words among which neighbours are looked for, and the vector of any word of the file, also in lower case."""
    vectors = mapped_vectors(path, cache_dir)
    index = vectors.index

    def lookup(words: Sequence[str]) -> np.ndarray:
        rows = np.array([index.get(word, index.get(word.lower(), -1)) for word in words], np.int64)
        return np.where(rows[:, None] < 0, np.float32(0), vectors.matrix[rows])

    return WordVectors(vectors.words[:SEARCHED], vectors.matrix[:SEARCHED]), lookup


def vectors_of_table(model: Path, reader: Reader) -> tuple[WordVectors, Lookup]:
    """The same of a BERT's wordpiece table: the lexicon's words, and any word as the mean of its pieces."""
    table = word_embeddings(model)

    def lookup(words: Sequence[str]) -> np.ndarray:
        return unit_length(compose_words(words, reader.wordpiece, table))

    return WordVectors(reader.lexicon, lookup(reader.lexicon)), lookup


def neighbours(words: Sequence[str], searched: WordVectors, lookup: Lookup, m: int) -> dict[str, list[str]]:
    """For each word that has a vector the `m` words nearest to it, nearest first, itself in any spelling left out."""
    found = {}
    for start in range(0, len(words), _CHUNK):
        vectors = lookup(words[start : start + _CHUNK])
        known = np.flatnonzero(vectors.any(axis=1))
        for i, rows in zip(known, nearest(searched.matrix, vectors[known], 2 * m), strict=True):
            word = words[start + i]
            near = [searched.words[row] for row in rows]
            found[word] = [name for name in near if name.lower() != word.lower() and len(name.split()) == 1][:m]
    return found


# Both


def proposals(
    sentence: Sentence, blanks: Blanks | None, answers: np.ndarray, near: Mapping[str, list[str]]
) -> list[list[str]]:
    """The candidates for each open word, none where nothing was found, with the capitals of the word.

    answers: [words asked about, m], of `read_blanks`; near: of `neighbours`.
    """
    answered = dict(zip(blanks.asked(sentence), answers, strict=True)) if blanks else {}
    proposed = []
    for i in sentence.open:
        word = sentence.words[i]
        if blanks and i in answered:
            names = blanks.names[len(sentence.pieces[i])]
            found = [names[number] for number in answered[i] if number >= 0 and names[number]]
        else:
            found = near.get(word, [])
        proposed.append([_capitals(name, word) for name in found])
    return proposed


def _capitals(name: str, word: str) -> str:
    """`name` with the capitals of the word that it replaces: at the beginning, all or none."""
    if word.istitle():
        return name[:1].upper() + name[1:]
    # Else NASA gives way to nasa: a copy that an uncased model reads as the row itself.
    return name.upper() if word.isupper() else name
