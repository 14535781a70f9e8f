"""Markdown of a table and its notes, as a terminal shows them best."""

import re
import sys
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
    """Print one table, whose lines begin with `|`, with its cells wrapped, and the other lines without their `*`."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    lines = [line.strip() for line in markdown.splitlines()]
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    table = Table(*map(escape, heads), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/bold]", escape(cell)) for cell in row))
    console.print(table)
    for line in lines:
        if line and not line.startswith("|"):
            console.print(escape(re.sub(r"^\*(.*)\*$", r"\1", line)))
