"""Sentences and their translations: files `English TAB target [TAB target ...]`, one language each; and pairs of
sentences with a score of likeness (STS), within a language and across two.

    train = load_parallel(["parallel-sentences/TED2020-en-de-train.tsv.gz", ...], max_sentences=500_000)
    plan = InterleavedBatches(lengths, train, batch_size=64, seed=42)
    fit(..., Batches(plan, load), ...)

A file is read line by line, gzip as it is unpacked, and no further than is asked for.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.batching import _POOL, BucketBatches, _mix
from distill.data.readers import Rows, check_line_ends, one_line, read_rows
from distill.errors import UserError
from distill.runtime import log

SOURCE = "en"
_NAMED = re.compile(rf"(?:^|[._-]){SOURCE}-([a-z]{{2,3}}(?:-(?:[a-z]{{2}}|hans|hant|latn|cyrl))?)(?=[._-])")
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
_STS_COLUMNS = ("sentence1", "sentence2", "score")


@dataclass(frozen=True)
class Parallel:
    """Pairs of a source sentence and one translation of it; a sentence with several translations has a row for each.

    sources, targets: n texts; languages: the targets', such as `de`; files: where they were read.
    """

    sources: list[str]
    targets: list[str]
    languages: list[str]
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def digest(self) -> str:
        """SHA-256 of all texts and languages, as hexadecimal digits: equal digests mean equal rows in equal order."""
        content = hashlib.sha256()
        for column in (self.sources, self.targets, self.languages):
            content.update("\0".join([*column, ""]).encode() + b"\1")
        return content.hexdigest()

    def take(self, indices: Any) -> "Parallel":
        """The rows at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64).tolist()
        sources, targets, languages = (
            [column[i] for i in chosen] for column in (self.sources, self.targets, self.languages)
        )
        return Parallel(sources, targets, languages, self.files)

    def by_language(self) -> dict[str, "Parallel"]:
        """The rows of each language, by its name; languages in the order in which they first occur."""
        languages = np.array(self.languages)
        return {name: self.take(np.flatnonzero(languages == name)) for name in dict.fromkeys(self.languages)}


def load_parallel(
    files: Sequence[str | Path], max_sentences: int | None = None, max_characters: int | None = None
) -> Parallel:
    """All rows of the tsv or tsv.gz files, one file after the other.

    max_sentences: lines taken of each file, from its beginning; max_characters: lines in which a text is longer are
    left out, and counted in a line that is printed. A file's language is told by its name: `...en-de...`.

    Raises UserError, naming file and line, for a missing or empty file, a name that tells no language, a line without a
    tab, with an empty text or with the numbers or licences of an export, and bytes that are not UTF-8.
    """
    if not files:
        raise UserError("no file of parallel sentences is given")
    sources: list[str] = []
    targets: list[str] = []
    languages: list[str] = []
    known: dict[str, str] = {}  # the same sentence in the files of several languages is held once
    for file in map(Path, files):
        language = language_of(file)
        taken = long = 0
        for texts in _texts(file):
            if max_characters is not None and max(map(len, texts)) > max_characters:
                long += 1
                continue
            source = known.setdefault(texts[0], texts[0])
            for target in texts[1:]:
                sources.append(source)
                targets.append(target)
                languages.append(language)
            taken += 1
            if taken == max_sentences:
                break
        if not taken:
            why = f"all {long:,} lines have texts of more than {max_characters} characters" if long else "no text in it"
            raise UserError(f"{file}: {why}; one line is `English TAB translation`")
        if long:
            log(f"{file}: {long:,} lines with more than {max_characters} characters in a text are left out")
    return Parallel(sources, targets, languages, tuple(map(str, files)))


def language_of(file: str | Path) -> str:
    """`de` for stsb_train.en-de.tsv, `zh-cn` for TED2020-en-zh-cn-train.tsv.gz. UserError when the name tells none."""
    found = _NAMED.search(Path(file).name)
    if found is None:
        raise UserError(f"{file}: the name does not tell the language; it must hold {SOURCE}-de, {SOURCE}-fr or so")
    return found[1]


def check_apart(splits: Mapping[str, Parallel]) -> None:
    """Print for each split how many of its pairs occur in an earlier one, if any do.

    Raises UserError when one file stands in two splits: what is reported must not be what was trained on or chosen by.
    """
    owners: dict[Path, str] = {}
    earlier: dict[tuple[str, str], str] = {}
    for name, rows in splits.items():
        for file in rows.files:
            owner = owners.setdefault(Path(file).resolve(), name)
            if owner != name:
                raise UserError(f"{file}: stands in {owner} and in {name}; give each split files of its own")
        pairs = list(zip(rows.sources, rows.targets, strict=True))
        for other in dict.fromkeys(earlier.values()):
            shared = sum(earlier.get(pair) == other for pair in pairs)
            if shared:
                log(f"{name}: {shared:,} of its {len(pairs):,} pairs occur in {other} too")
        for pair in pairs:
            earlier.setdefault(pair, name)


class InterleavedBatches(BucketBatches):
    """Batches of row indices in which every language has its share, bucketed by length, otherwise as `BucketBatches`.

    In each step each language has as many rows as its share of all rows makes, to within one or two where that is no
    whole number, and rows that are about as long within their language as the others' are within theirs. The rows of
    one source sentence (its translations in several files or columns) stand far from each other in the epoch, so that
    they do not meet in a step, where they would be taken for different sentences.

    Args:
        lengths: tokens of each row, [n], best of the longer of source and target (measured: least padding).
        rows: the pairs.
        batch_size, seed, rank, world_size: as for `BucketBatches`.

    Raises UserError as `BucketBatches` does.
    """

    def __init__(
        self, lengths: Any, rows: Parallel, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(lengths, batch_size, seed, True, rank, world_size)
        if len(rows) != len(self.lengths):
            raise ValueError(f"{len(rows)} rows but {len(self.lengths)} lengths")
        self._language, self._source = numbered(rows.languages), numbered(rows.sources)
        counts = np.bincount(self._source)[self._source]
        self._turn = _number_in_group(self._source) / counts
        # Short enough that a usual sentence's rows, about an epoch / count apart, lie in different pools.
        self._pool = max(1, min(_POOL, int(0.75 * len(self) / np.median(counts))))

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps, sizes = len(self), self._sizes()
        rng = np.random.default_rng([self.seed, epoch])
        # Each sentence has a random place in the epoch, its further rows the places evenly spaced from there.
        sentences = int(self._source.max()) + 1
        place = rng.permutation(sentences)[self._source] / sentences
        order = np.argsort((place + self._turn) % 1, kind="stable")
        order = order[_interleaved(self._language[order])]
        # Within a pool of steps each language is sorted by length, then they are interleaved again.
        pool = np.repeat(np.arange(steps) // self._pool, sizes)
        sort = np.lexsort((self.lengths[order], pool))
        group = pool * (self._language.max() + 1) + self._language[order]
        order = order[sort][_interleaved(group[sort], pool)]
        _mix(order, sizes, rng)  # languages take turns, and so do ranks when a step is dealt out
        return order, sizes, rng.permutation(steps)


class GroupedBatches(BucketBatches):
    """Batches of row indices in which a sentence stands beside its translations, bucketed by length, otherwise as
    `BucketBatches`: a model reads the sentence once for all of them.

    For losses that compare nothing across rows; the others want `InterleavedBatches`.

    Args:
        lengths: tokens of each row, [n].
        sources: the number of each row's sentence, int [n], from 0.
        batch_size, seed, rank, world_size: as for `BucketBatches`.
    """

    def __init__(
        self, lengths: Any, sources: np.ndarray, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(lengths, batch_size, seed, True, rank, world_size)
        self._source = sources
        self._longest = np.zeros(int(sources.max()) + 1, np.int64)
        np.maximum.at(self._longest, sources, self.lengths)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps, sizes = len(self), self._sizes()
        rng = np.random.default_rng([self.seed, epoch])
        place = rng.permutation(len(self._longest))[self._source]
        order = np.argsort(place, kind="stable")
        pool = np.repeat(np.arange(steps) // _POOL, sizes)
        order = order[np.lexsort((place[order], self._longest[self._source[order]], pool))]
        _mix(order, sizes, rng)
        return order, sizes, rng.permutation(steps)


def numbered(texts: Sequence[str]) -> np.ndarray:
    """The number of each text among the distinct ones, in the order in which they first occur, int64 [n]."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)


def _number_in_group(groups: np.ndarray) -> np.ndarray:
    """How many rows of the same group stand before each, int64 [n]."""
    by_group, counts = np.argsort(groups, kind="stable"), np.bincount(groups)
    numbers = np.empty(len(groups), np.int64)
    numbers[by_group] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers


def _interleaved(groups: np.ndarray, pools: np.ndarray | None = None) -> np.ndarray:
    """The order, int64 [n], in which each group's members, theirs kept, are spread evenly; pools [n] stay together, in
    order.

    groups: int [n]; a group lies in one pool.
    """
    place = (_number_in_group(groups) + 0.5) / np.bincount(groups)[groups]
    return np.lexsort((groups, place) if pools is None else (groups, place, pools))


def read_sts(path: str | Path) -> Rows:
    """Pairs of sentences with scores from 0 to 5: a csv without a header, `sentence1,sentence2,score`.

    Raises UserError, naming file and row, for a missing or empty file, an empty text, a row that has not three columns,
    and what is no score from 0 to 5.
    """
    rows, _ = read_rows(path, *_STS_COLUMNS, score_range=(0.0, 5.0), header=_STS_COLUMNS)
    return rows


def load_sts(folder: str | Path, split: str, languages: Sequence[str]) -> dict[str, Rows]:
    """The pairs of every two languages: `en-en`, `en-de`, `de-en`, ...: the first sentence in one, the second in the
    other.

    folder: holds stsb-LANGUAGE-SPLIT.csv for each language, the same rows in translation. Raises UserError for a file
    that cannot be read, as `read_sts` does, and for two whose rows or scores differ.
    """
    files = {language: Path(folder).expanduser() / f"stsb-{language}-{split}.csv" for language in languages}
    wrong = [language for language in languages if not re.fullmatch("[a-z]+", language)]
    if wrong or not files:
        raise UserError(f"{wrong[0] if wrong else 'no language'}: languages are given by letters such as en, de or zh")
    rows = {language: read_sts(file) for language, file in files.items()}
    first = next(iter(rows.values()))
    for language, other in rows.items():
        if len(other) != len(first):
            raise UserError(
                f"{files[language]}: {len(other):,} rows, {first.source} has {len(first):,}; they must be translations"
            )
        differing = np.flatnonzero(_scores(other) != _scores(first))
        if len(differing):
            row = int(differing[0]) + 1
            raise UserError(f"{files[language]}: data row {row}: another score than in {first.source}")
    return {
        f"{a}-{b}": Rows(rows[a].text_a, rows[b].text_b, first.labels, f"{rows[a].source} + {rows[b].source}")
        for a in rows
        for b in rows
    }


def _scores(rows: Rows) -> np.ndarray:
    assert rows.labels is not None
    return rows.labels


def _texts(file: Path) -> Iterator[list[str]]:
    """The texts of each line, without white space around them. Empty lines are accepted at the end only."""
    empty = 0
    for number, raw in _raw_lines(file):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{file}:{number}: not UTF-8 text; save the file as UTF-8") from None
        if not line.strip():
            empty = empty or number
            continue
        if empty:
            raise UserError(f"{file}:{empty}: the row is empty; remove it")
        if number == 1:
            check_line_ends(file, line)
        texts = [text.strip() for text in line.split("\t")]
        if len(texts) == 1:
            raise UserError(f"{file}:{number}: no tab; one line is `English TAB translation` ({one_line(texts[0])})")
        if not all(texts):
            where = "the English text" if not texts[0] else f"translation {texts.index('')}"
            raise UserError(f"{file}:{number}: {where} is empty; fill it or remove the row")
        # Told by the first line: further on a number may be a sentence.
        if number == 1 and len(texts) == 4 and texts[0].isdecimal() and texts[2].isdecimal():
            raise UserError(f"{file}:1: number, text, number, text, as in Tatoeba; keep the texts: cut -f2,4")
        if number == 1 and [_NUMBER.fullmatch(text) is not None for text in texts] == [True, False, False]:
            raise UserError(f"{file}:1: number, text, text, as in WikiMatrix; keep the texts: cut -f2,3")
        if len(texts) == 3 and texts[2].startswith("CC-BY"):
            raise UserError(f"{file}:{number}: text, text, licence, as in manythings.org; keep the texts: cut -f1,2")
        yield texts


def _raw_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    packed = file.suffix == ".gz"
    number = 0
    try:
        with gzip.open(file) if packed else open(file, "rb") as handle:
            for number, raw in enumerate(handle, 1):
                yield number, raw
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file}:{number + 1}: not whole as a gzip file ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
