"""Markdown of a table and its notes, as a terminal shows them best."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def show(markdown: str) -> None:
    """Print a table and its notes: as they are into a file or a pipe, laid out for the width of a terminal."""
    if not sys.stdout.isatty():
        print(markdown, flush=True)
        return
    from rich.console import Console

    lay_out(markdown, Console(highlight=False))


def lay_out(markdown: str, console: "Console") -> None:
    """Print one table, whose lines begin with `|`, and the other lines without their `*`.

    A table that is too wide has what stands in brackets on lines of its own; one that still is becomes a paragraph for
    each row: nothing is cut off.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    def marked(text: str) -> str:
        return re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/bold]", escape(text))

    lines = [line.strip() for line in markdown.splitlines()]
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    folded = [[cell.replace(" (", "\n(") for cell in row] for row in rows]
    fitting = next((body for body in (rows, folded) if _width([heads, *body]) <= console.width), None)
    if fitting:
        table = Table(*map(escape, heads), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for row in fitting:
            table.add_row(*map(marked, row))
        console.print(table)
    else:
        for row in rows:
            cells = [f"{head} {cell}" for head, cell in zip(heads, row, strict=True) if cell]
            console.print(marked(f"**{row[0]}**: {'; '.join(cells[1:])}"))
        console.print()
    for line in lines:
        if line and not line.startswith("|"):
            console.print(escape(re.sub(r"^\*(.*)\*$", r"\1", line)))


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Of a table with these cells, on a terminal."""
    from rich.cells import cell_len

    columns = [[cell_len(line) for cell in column for line in cell.split("\n")] for column in zip(*rows, strict=True)]
    return sum(map(max, columns)) + 2 * len(columns) + 1
