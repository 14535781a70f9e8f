"""Text files into columns of text: tab-separated (raw tabs, no quoting), csv (quoting), jsonl and plain lines.

Every file is UTF-8, with or without BOM, with LF or CRLF line ends, and is read line by line. A row is named as
`path:line`, counted from 1, the header included. No row is ever left out: what cannot be read is a UserError that names
the row.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distill.errors import UserError

csv.field_size_limit(2**31 - 1)  # a text may be longer than the 131,072 characters that csv allows
NAMES_FIRST = "the first line of a .tsv or .csv must name the columns, such as"
_FORMATS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}


@dataclass
class Rows:
    """The rows of one split, by column.

    text_a: n texts; text_b: n texts, or None for tasks of one text; labels: int64 [n] (class indices, -1: unlabelled
    row) or float32 [n] (scores, nan: unlabelled row), or None where the whole split has no labels; source: the path,
    for messages.
    """

    text_a: list[str]
    text_b: list[str] | None
    labels: np.ndarray | None
    source: str

    def __post_init__(self) -> None:
        for column in (self.text_b, self.labels):
            if column is not None and len(column) != len(self.text_a):
                raise ValueError(f"columns of {len(self.text_a)} and {len(column)} rows")

    def __len__(self) -> int:
        return len(self.text_a)

    def digest(self) -> str:
        """SHA-256 of all texts and labels, as hexadecimal digits: equal digests mean equal rows in equal order."""
        content = hashlib.sha256()
        for column in (self.text_a, self.text_b or []):
            content.update("\0".join([*column, ""]).encode("utf-8", "surrogatepass") + b"\1")
        content.update(b"" if self.labels is None else np.ascontiguousarray(self.labels).tobytes())
        return content.hexdigest()

    def take(self, indices: Iterable[int]) -> Rows:
        """The rows at `indices`, in that order; a row may be taken more than once."""
        chosen = np.asarray(list(indices), dtype=np.int64)
        return Rows(
            [self.text_a[i] for i in chosen],
            None if self.text_b is None else [self.text_b[i] for i in chosen],
            None if self.labels is None else self.labels[chosen],
            self.source,
        )

    def concat(self, other: Rows) -> Rows:
        """These rows, then `other`'s; where one side has no labels, its rows are marked unlabelled (-1 or nan)."""
        if (self.text_b is None) != (other.text_b is None):
            raise ValueError(f"rows of one text and rows of two cannot be joined ({self.source}, {other.source})")
        text_b = None if self.text_b is None or other.text_b is None else self.text_b + other.text_b
        return Rows(self.text_a + other.text_a, text_b, _joined_labels(self, other), f"{self.source} + {other.source}")


def _joined_labels(first: Rows, second: Rows) -> np.ndarray | None:
    known = first.labels if first.labels is not None else second.labels
    if known is None:
        return None
    parts = []
    for rows in (first, second):
        labels = rows.labels
        if labels is None:
            labels = np.full(len(rows), -1 if known.dtype.kind == "i" else np.nan, known.dtype)
        elif labels.dtype != known.dtype:
            raise ValueError(f"labels of {labels.dtype} and {known.dtype}: {first.source}, {second.source}")
        parts.append(labels)
    return np.concatenate(parts)


def one_line(text: str, limit: int = 40) -> str:
    """The text as a message shows it: white space is single spaces, and `limit` characters are all."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shortened(names: Iterable[str], limit: int = 20) -> str:
    """The names, each in one line, with commas between them, the first `limit` of them."""
    names = list(names)
    return ", ".join(map(one_line, names[:limit])) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def column_names(path: str | Path) -> list[str]:
    """The header of a tsv or csv file, or the keys of the first object of a jsonl file, as `read_columns` takes them.

    Raises UserError when the file is missing, empty, not UTF-8 or of a kind that the suffix does not tell.
    """
    if file_format(path) == "jsonl":
        for number, line in numbered_lines(path):
            if line.strip():
                return _json_columns(json_object(path, number, line))
    else:
        for _, fields in numbered_records(path):
            return [name.strip() for name in fields]
    raise UserError(f"{path}: the file is empty")


def read_columns(
    path: str | Path, names: Sequence[str], header: Sequence[str] | None = None, short_row_help: str = ""
) -> tuple[list[list[str]], Sequence[int]]:
    """The columns called `names` as lists of stripped text, and the line number of each row.

    header: the columns' names of a file that has no header line itself; short_row_help: what to do about a row with too
    few columns. Numbers and booleans in jsonl become their JSON spelling ('1', 'true'), and 'label.cls' also names the
    key 'cls' of the object 'label'. Empty lines are accepted at the end only, and empty columns beyond the header's.

    Raises UserError for a missing file or column, a row with too few or too many columns, bytes that are not UTF-8,
    invalid csv or JSON, and a file without rows.
    """
    picked, numbers = [], []
    for number, values in stream_columns(path, names, header, short_row_help):
        picked.append(values)
        numbers.append(number)
    if not picked:
        raise UserError(f"{path}: the split is empty (no rows)")
    return [list(column) for column in zip(*picked, strict=True)], numbers


def stream_columns(
    path: str | Path,
    names: Sequence[str] | Callable[[Sequence[str]], Sequence[str]],
    header: Sequence[str] | None = None,
    short_row_help: str = "",
    kind: str | None = None,
    stream: BinaryIO | None = None,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """As `read_columns`, a row after the other in constant memory: its line number and its values.

    names: or a function that chooses them from the header (of jsonl, the first row's keys). kind: tsv, csv or jsonl,
    where the suffix does not tell. stream: an open file; `path` then is only what messages call it.
    """
    kind = kind or file_format(path)
    if kind == "jsonl":
        rows = _json_rows(path, names, stream)
    else:
        rows = _table_rows(path, names, header, short_row_help, kind, stream)
    for number, values in rows:
        yield number, tuple(map(str.strip, values))


def digests(rows: Mapping[str, Rows]) -> dict[str, str]:
    """What rows a run is made of: the digest of each split, `rows` that of train, `rows_SPLIT` those of the others."""
    return {"rows" if split == "train" else f"rows_{split}": found.digest() for split, found in rows.items()}


def read_rows(
    path: str | Path,
    text_a: str,
    text_b: str | None = None,
    label: str | None = None,
    *,
    labels: Sequence[str] = (),
    score_range: tuple[float, float] | None = None,
    header: Sequence[str] | None = None,
    empty_in_pairs: bool = False,
    short_row_help: str = "",
    test: bool = False,
    refuse_quoted: bool = False,
) -> tuple[Rows, int]:
    """Read one split by its columns' names; returns the rows and how many of them have one empty text.

    labels: the classes in index order; without any, the label column holds scores, within `score_range` if given.
    empty_in_pairs: a pair may have one empty text (never both); otherwise an empty text is refused. test: labels that
    are all empty or all -1 stand for none. refuse_quoted: of tab-separated files, texts in quotes with "" inside.

    Raises UserError as `read_columns` does, and for an unknown label, a score that is no finite number and an empty
    text.
    """
    wanted = [name for name in (text_a, text_b, label) if name is not None]
    columns, numbers = read_columns(path, wanted, header, short_row_help)
    first = columns[0]
    second = columns[1] if text_b is not None else None
    if refuse_quoted and file_format(path) == "tsv":
        for name, column in zip(wanted, columns[: 1 + (second is not None)], strict=False):
            _refuse_quoted(path, numbers, name, column)
    incomplete = 0
    if second is None or not empty_in_pairs:
        for name, column in zip(wanted, columns[: 1 + (second is not None)], strict=False):
            if not all(column):
                number = numbers[column.index("")]
                raise UserError(f"{path}:{number}: the text in '{name}' is empty; fill it or remove the row")
    elif not (all(first) and all(second)):
        for number, a, b in zip(numbers, first, second, strict=True):
            incomplete += not (a and b)
            if not (a or b):
                raise UserError(f"{path}:{number}: both texts are empty; remove the row")
    found = None
    if label is not None and not (test and _placeholders(columns[-1], labels)):
        found = (
            _classes(path, numbers, columns[-1], labels) if labels else _scores(path, numbers, columns[-1], score_range)
        )
    return Rows(first, second, found, str(path)), incomplete


def read_unlabelled(path: str | Path, pair: bool) -> Rows:
    """Rows without labels and without a header: one text a line, or for pairs text_a TAB text_b.

    Raises UserError for a missing or empty file, an empty text, and for pairs a line that has not exactly one tab.
    """
    first: list[str] = []
    second: list[str] = []
    empty = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            empty = empty or number
            continue
        if empty:
            raise UserError(f"{path}:{empty}: the text is empty; remove the line")
        if not pair:
            first.append(line.strip())
            continue
        texts = [text.strip() for text in line.split("\t")]
        if len(texts) != 2:
            raise UserError(f"{path}:{number}: {len(texts)} columns where 2 are needed (text_a TAB text_b)")
        if not all(texts):
            which = "second" if texts[0] else "first"
            raise UserError(f"{path}:{number}: the {which} text is empty; fill it or remove the line")
        first.append(texts[0])
        second.append(texts[1])
    if not first:
        raise UserError(f"{path}: the file is empty (no rows)")
    return Rows(first, second if pair else None, None, str(path))


def file_format(path: str | Path) -> str:
    """tsv, csv or jsonl, by the suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise UserError(f"{path}: the suffix does not tell the format; use .tsv, .csv or .jsonl")
    return _FORMATS[suffix]


def numbered_lines(path: str | Path, stream: BinaryIO | None = None) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines with their ends. Only LF ends a line: texts may hold U+2028, U+0085 and lone CR.

    stream: an open file; `path` then is only what messages call it.
    """
    if stream is None:
        try:
            stream = open(path, "rb")  # noqa: SIM115 (closed below; only the opening's errors belong to this block)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    place = 0
    with contextlib.closing(stream):
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = place + error.start
                raise UserError(f"{path}:{number}: not UTF-8 text (byte {byte}); save the file as UTF-8") from None
            place += len(raw)
            if number == 1:
                check_line_ends(path, line)
            yield number, line.removeprefix("\ufeff") if number == 1 else line


def check_line_ends(path: str | Path, first: str) -> None:
    """Raises UserError when the first line up to LF is a whole file of lines that end with CR alone."""
    if not first.endswith("\n") and "\r" in first.rstrip():
        raise UserError(f"{path}:1: lines end with CR alone; save the file with LF or CRLF")


def numbered_records(
    path: str | Path, kind: str | None = None, stream: BinaryIO | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The number of each row's first line, and its fields; an empty line has one field or none.

    kind: tsv or csv, where the suffix does not tell; stream: as in `numbered_lines`.
    """
    if (kind or file_format(path)) == "tsv":
        for number, line in numbered_lines(path, stream):
            yield number, line.rstrip("\r\n").split("\t")
        return
    reader = csv.reader((line for _, line in numbered_lines(path, stream)), strict=True)
    while True:
        number = reader.line_num + 1  # a quoted field may run over several lines
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = "lines end with CR alone; save it with LF or CRLF" if "new-line character" in str(error) else error
            raise UserError(f"{path}:{number}: not valid csv ({why})") from None
        yield number, fields


def _table_rows(
    path: str | Path,
    names: Sequence[str] | Callable[[Sequence[str]], Sequence[str]],
    header: Sequence[str] | None,
    short_row_help: str,
    kind: str,
    stream: BinaryIO | None,
) -> Iterator[tuple[int, Sequence[str]]]:
    records = numbered_records(path, kind, stream)
    if header is None:
        header = [name.strip() for name in next(records, (0, []))[1]]
    names = names(header) if callable(names) else names
    places = []
    for name in names:
        if header.count(name) != 1:
            what = "no column" if name not in header else "more than one column"
            raise UserError(f"{path}:1: {what} '{name}' (columns found: {shortened(header)})")
        places.append(header.index(name))
    # itemgetter of a single place gives the bare value; of a slice, a list with it.
    pick = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
    width, empty = len(header), 0
    for number, fields in records:
        if len(fields) != width or width == 1:
            if len(fields) <= 1 and not "".join(fields).strip():
                empty = empty or number
                continue
            if len(fields) < width:
                raise UserError(f"{path}:{number}: {len(fields)} columns where {width} are needed{short_row_help}")
            if any(field.strip() for field in fields[width:]):
                raise UserError(
                    f"{path}:{number}: {len(fields)} columns where {width} are needed; is there a separator in a text?"
                )
        if empty:
            raise UserError(f"{path}:{empty}: the row is empty; remove it")
        yield number, pick(fields)


def _json_rows(
    path: str | Path, names: Sequence[str] | Callable[[Sequence[str]], Sequence[str]], stream: BinaryIO | None
) -> Iterator[tuple[int, Sequence[str]]]:
    empty = 0
    for number, line in numbered_lines(path, stream):
        if not line.strip():
            empty = empty or number
            continue
        if empty:
            raise UserError(f"{path}:{empty}: the row is empty; remove it")
        row = json_object(path, number, line)
        names = names(_json_columns(row)) if callable(names) else names
        values = []
        for name in names:
            value = json_value(path, number, row, name)
            if not isinstance(value, str | int | float):
                raise UserError(f"{path}:{number}: '{name}' is neither text nor a number nor true or false")
            text = value if isinstance(value, str) else json.dumps(value)
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise UserError(f"{path}:{number}: '{name}' has half of a surrogate pair; write whole characters")
            values.append(text)
        yield number, values


def json_object(path: str | Path, number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line, parse_constant=lambda name: None)  # NaN and Infinity are no JSON: refused where read
    except json.JSONDecodeError as error:
        why = f"not valid JSON ({error.msg} at column {error.colno})"
        raise UserError(f"{path}:{number}: {why}; each line must be a JSON object") from None
    except (ValueError, RecursionError):  # more digits, or more brackets in each other, than Python takes
        raise UserError(f"{path}:{number}: JSON with a number too long or nested too deeply") from None
    if not isinstance(row, dict):
        example = '{"text": "...", "label": "..."}'
        raise UserError(f"{path}:{number}: not a JSON object; each line must be one, such as {example}")
    return row


def json_value(path: str | Path, number: int, row: dict[str, object], name: str) -> object:
    """The value of a key; 'label.cls' also names the key 'cls' of the object 'label'."""
    outer, _, inner = name.partition(".")
    nested = row.get(outer) if inner and name not in row else None
    within = row if nested is None else nested
    key = name if nested is None else inner
    if not isinstance(within, dict) or key not in within:
        raise UserError(f"{path}:{number}: no key '{name}' (keys found: {shortened(row)})")
    return within[key]


def _json_columns(row: dict[str, object]) -> list[str]:
    """The row's keys; in place of one that holds an object, which is no value of a column, those within it."""
    names = []
    for key, value in row.items():
        names.extend([f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key])
    return names


def _classes(path: str | Path, numbers: Sequence[int], column: list[str], labels: Sequence[str]) -> np.ndarray:
    index = {label: i for i, label in enumerate(labels)}
    try:
        return np.fromiter(map(index.__getitem__, column), np.int64, len(column))
    except KeyError as error:
        label = error.args[0]
    what = f"unknown label '{one_line(label)}'" if label else "the label is empty"
    raise UserError(f"{path}:{numbers[column.index(label)]}: {what} (known: {shortened(labels)})")


def _placeholders(column: list[str], labels: Sequence[str]) -> bool:
    """Whether all labels are one of the marks that stand for a label which is kept secret, and none is a class."""
    return column[0] in ("", "-1", "-1.0") and column[0] not in labels and len(set(column)) == 1


def _refuse_quoted(path: str | Path, numbers: Sequence[int], name: str, column: list[str]) -> None:
    """Raises UserError for a text that a csv writer has quoted: its quotes would be read as part of it."""
    for number, text in zip(numbers, column, strict=True):
        inner = text[1:-1]
        if text[:1] == text[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
            what = f'\'{name}\' is quoted as in csv ("" for "), and a file with tabs is read without quoting'
            raise UserError(
                f"{path}:{number}: {what}; save the rows as .csv, with commas, or with tabs and without quoting"
            )


def _scores(
    path: str | Path, numbers: Sequence[int], column: list[str], within: tuple[float, float] | None
) -> np.ndarray:
    low, high = within or (-np.inf, np.inf)
    wanted = "a finite number" if within is None else f"a number from {low:g} to {high:g}"
    scores = np.empty(len(column), np.float32)
    for i, text in enumerate(column):
        try:
            score = float(text)
        except ValueError:
            score = np.nan
        if not (np.isfinite(score) and low <= score <= high):
            raise UserError(f"{path}:{numbers[i]}: the score '{one_line(text)}' is not {wanted}")
        scores[i] = score
    return scores
