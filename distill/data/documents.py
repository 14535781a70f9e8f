"""A collection of texts, each with a name, read one after the other: it may be larger than memory."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.data.readers import (
    NAMES_FIRST,
    column_names,
    file_format,
    json_object,
    json_value,
    numbered_lines,
    numbered_records,
    one_line,
    shortened,
)
from distill.data.tasks import TEXT_NAMES
from distill.errors import UserError

_UNWRITABLE = re.compile("[\t\r\n\ud800-\udfff]")  # JSON can hold half of a surrogate pair, UTF-8 cannot


def read_documents(
    path: str | Path, column: str | None = None, id_column: str | None = None
) -> Iterator[tuple[str, str]]:
    """The (name, text) of each row of a file, in order.

    .txt: a text a line; .tsv and .csv with a header, and .jsonl: those of the column or key `column`, by default
    `text`, or the only key, or the only column if it has one of the usual names, since any other might be a text. The
    documents' names are those in `id_column`, or the rows' numbers, from 1.

    Raises UserError naming file and row for what cannot be read, for an empty text or name, for a name with a tab, a
    line end or half a character in it, and for a file without rows. Empty lines are accepted at the end only.
    """
    path = Path(path)
    rows: Iterator[tuple[int, list[str] | None]]
    if path.suffix.lower() == ".txt":
        if column or id_column:
            raise UserError(f"{path}: a .txt file holds a text a line and has no columns; leave the column's name out")
        rows = ((number, [line.strip()] if line.strip() else None) for number, line in numbered_lines(path))
    else:
        names = [column or _text_column(path), *([id_column] if id_column else [])]
        rows = _objects(path, names) if file_format(path) == "jsonl" else _table(path, names)
    count = empty = 0
    for number, values in rows:
        if values is None:
            empty = empty or number
            continue
        if empty or not values[0]:
            raise UserError(f"{path}:{empty or number}: the text is empty; fill it or remove the row")
        name = values[-1] if id_column else str(count + 1)
        if not name or _UNWRITABLE.search(name):
            what = "is empty, or has a tab, a line end or half a character in it"
            raise UserError(f"{path}:{number}: the name in '{id_column}' {what}")
        count += 1
        yield name, values[0]
    if not count:
        raise UserError(f"{path}: the file is empty (no rows)")


def _text_column(path: Path) -> str:
    found = column_names(path)
    if "text" in found:
        return "text"
    if len(found) == 1:
        if found[0] in TEXT_NAMES or file_format(path) == "jsonl":
            return found[0]
        what = f"is '{one_line(found[0])}' the column's name? then give it by its flag"
        raise UserError(f"{path}:1: {what}; a file of a text a line, without a name above, is called .txt")
    raise UserError(
        f"{path}:1: which column holds the texts? give its name (columns found: {shortened(found)}); "
        f"{NAMES_FIRST} id TAB text"
    )


def _table(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[str] | None]]:
    """The number of each row and its fields in these columns; None for an empty line."""
    records = numbered_records(path)
    header = [name.strip() for name in next(records, (0, []))[1]]
    for name in names:
        if header.count(name) != 1:
            what = "no column" if name not in header else "more than one column"
            raise UserError(f"{path}:1: {what} '{name}' (columns found: {shortened(header)})")
    places = [header.index(name) for name in names]
    for number, fields in records:
        if not "".join(fields).strip():
            yield number, None
        elif len(fields) != len(header):
            raise UserError(
                f"{path}:{number}: {len(fields)} columns where {len(header)} are needed; a separator in a text?"
            )
        else:
            yield number, [fields[place].strip() for place in places]


def _objects(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[str] | None]]:
    """As `_table`, of a jsonl file. Numbers are accepted."""
    for number, line in numbered_lines(path):
        if not line.strip():
            yield number, None
            continue
        row = json_object(path, number, line)
        values = [json_value(path, number, row, name) for name in names]
        for name, value in zip(names, values, strict=True):
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise UserError(f"{path}:{number}: '{name}' is neither text nor a number")
        yield number, [str(value).strip() for value in values]
