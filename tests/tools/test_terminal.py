"""Tables on a terminal fit its width and lose nothing; into a pipe they stay Markdown."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from tools import terminal

MARKDOWN = (
    "| model | dev accuracy | less labels alone |\n|---|---|---|\n"
    "| teacher [a] | 81.0 (75.5 to 86.0) |  |\n| 学生 | **76.8** (71.0 to 82.2) | -4.0 (-10.5 to +2.7): no evidence |\n"
    "\n*Bold: the best [of all].*  \n*Left out: virt.*"
)


@pytest.mark.parametrize(("width", "line"), [
    (120, " teacher [a]  81.0 (75.5 to 86.0)  "), (64, "              (75.5 to 86.0)  "),
    (40, "teacher [a]: dev accuracy 81.0 (75.5 to "),
])  # fmt: skip
def test_a_table_fits_the_terminal_and_loses_nothing(width, line):
    out = io.StringIO()
    terminal.lay_out(MARKDOWN, Console(file=out, force_terminal=True, color_system=None, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width and not set("|*…") & set(out.getvalue())
    assert any(found.startswith(line.rstrip()) for found in lines), out.getvalue()
    for word in "teacher [a] 学生 81.0 76.8 (71.0 -4.0 evidence [of all]. Left out: virt.".split():
        assert word in out.getvalue()


def test_the_best_is_bold():
    out = io.StringIO()
    terminal.lay_out(MARKDOWN, Console(file=out, force_terminal=True, color_system="standard", width=120))
    assert "\x1b[1m76.8\x1b[0m" in out.getvalue()


def test_a_pipe_gets_markdown(capsys):
    terminal.show(MARKDOWN)
    assert capsys.readouterr().out == MARKDOWN + "\n"
