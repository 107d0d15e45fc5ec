"""A page on a terminal in colour, or plain where it is piped; 80 columns, Chinese included."""

from __future__ import annotations

import io
import re
from typing import IO

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from foveal.analysis.explain.page import Page, Table

WIDTH = 80
"""Columns at most: what a slide, a mail and a narrow window have."""

# A rule of plain hyphens under the names of the columns, and nothing else.
_PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_RULED = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
_FORMULA = re.compile(r"(?<=\w|\)) [x*/+-] (?=\w|\()")  # stays on one line, as "3 x 3"
_HELD_SPACE = "\N{NO-BREAK SPACE}"
_NEVER_FIRST = "，。；：、！？）》”’,.;:!?)%"
_NEVER_LAST = "（《“‘("


def show(page: Page, file: IO[str]) -> None:
    """Writes a page.

    Args:
        page: what to write.
        file: where; in colour if it is a terminal.
    """
    tty = file.isatty()
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=tty, highlight=False, markup=False, emoji=False)
    console.width = min(WIDTH, Console(file=file).width) if tty else WIDTH
    console.print(Text(page.title, style="bold"))
    _paragraphs(console, page.text)
    for table in page.tables:
        console.print()
        _paragraphs(console, table.title, style="cyan")
        console.print(_laid_out(table, plain=not tty))
        _paragraphs(console, table.note, style="dim")
    console.print()
    _paragraphs(console, page.lesson, style="bold green" if tty else "")
    file.write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")


def _laid_out(table: Table, *, plain: bool) -> RichTable:
    laid = RichTable(box=_PLAIN if plain else _RULED, header_style="bold", pad_edge=False, show_edge=False)
    tall = any("\n" in cell for row in table.rows for cell in row)
    for name, side in zip(table.columns, table.align, strict=True):
        laid.add_column(name, justify="left" if side == "l" else "right", no_wrap=tall)
    for number, row in enumerate(table.rows):
        # A row of several lines gets an empty one before it, so that the rows do not run together.
        laid.add_row(*(Text(cell) for cell in row), end_section=False)
        if tall and number < len(table.rows) - 1:
            laid.add_row()
    return laid


def _paragraphs(console: Console, text: str, style: str = "") -> None:
    for line in wrapped(text, console.width):
        console.print(Text(line, style=style), no_wrap=True, crop=False, overflow="ignore")


def wrapped(text: str, width: int) -> list[str]:
    """Breaks a text into lines of so many columns: between words, and between Chinese characters wherever a closing
    mark does not begin a line, nor an opening one end it."""
    lines, line = [], ""
    for piece in _pieces(_FORMULA.sub(lambda found: found[0].replace(" ", _HELD_SPACE), text)):
        if line and cell_len(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    lines += [line.rstrip()] if line.strip() else []
    return [line.replace(_HELD_SPACE, " ") for line in lines]


def _pieces(text: str) -> list[str]:
    """The parts between which a line may end; spaces stay with the word before them."""
    pieces: list[str] = []
    for char in text:
        last = pieces[-1] if pieces else ""
        breaks = last.endswith(" ") or cell_len(char) > 1 or (last and cell_len(last[-1]) > 1)
        held = char in _NEVER_FIRST or char == " " or last[-1:] in _NEVER_LAST
        if not pieces or (breaks and not held):
            pieces.append(char)
        else:
            pieces[-1] += char
    return pieces
