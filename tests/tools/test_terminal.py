"""Tables on a terminal fit its width and lose nothing; into a pipe they stay Markdown."""

import io

import pytest
from rich.console import Console

from tools import terminal

MARKDOWN = (
    "| model | dev accuracy | less labels alone |\n|---|---|---|\n"
    "| teacher [a] | 81.0 (75.5 to 86.0) |  |\n| 学生 | **76.8** (71.0 to 82.2) | -4.0 (-10.5 to +2.7): no evidence |\n"
    "\n*Bold: the best [of all].*  \n*Left out: virt.*"
)


@pytest.mark.parametrize("width", [40, 120])
def test_a_table_fits_the_terminal(width):
    out = io.StringIO()
    terminal.lay_out(MARKDOWN, Console(file=out, force_terminal=True, color_system=None, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and "|" not in out.getvalue() and "*" not in out.getvalue()
    words = out.getvalue().split()
    for word in "teacher [a] 学生 81.0 76.8 (71.0 -4.0 evidence [of all]. Left out: virt.".split():
        assert word in words
    if width == 120:  # columns begin below their heads
        head, row = (next(line for line in lines if word in line) for word in ("dev accuracy", "teacher [a]"))
        assert head.index("dev accuracy") == row.index("81.0 (75.5 to 86.0)")


def test_the_best_is_bold():
    out = io.StringIO()
    terminal.lay_out(MARKDOWN, Console(file=out, force_terminal=True, color_system="standard", width=120))
    assert "\x1b[1m76.8\x1b[0m" in out.getvalue()


def test_a_pipe_gets_markdown(capsys):
    terminal.show(MARKDOWN)
    assert capsys.readouterr().out == MARKDOWN + "\n"
