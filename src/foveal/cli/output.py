"""What a command writes: plain lines, a bar on standard error, JSON and CSV that are whole or not there."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import typer

from foveal.whole_file import whole_file, why_not_writable

STANDARD = "-"
"""The name of standard output (and input) on a command line."""


def speak_utf8() -> None:
    """Makes standard output and error UTF-8, whatever the locale: a Chinese sentence must not end in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def one_line(text: str) -> str:
    """Text from outside as a terminal may be shown it: one line, no control characters."""
    text = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"foveal: {one_line(text)}", file=sys.stderr)


def show_help(context: typer.Context) -> None:
    """The page of help of a command that was called without anything to do."""
    page = context.get_help()  # with rich it is printed on the way, and nothing is left
    if page:
        print(page)


def style(text: str, **how: Any) -> str:
    """The text, coloured where standard output is a terminal."""
    return typer.style(text, **how) if sys.stdout.isatty() else text


def refuse_unwritable(**targets: str | None) -> None:
    """Before long work: are these options' files writable, and does each of them have a place of its own?"""
    for option, target in targets.items():
        if target is not None and target != STANDARD:
            reason = why_not_writable(target)
            if reason is not None:
                raise typer.BadParameter(reason, param_hint=f"--{option}")
    both = [f"--{option}" for option, target in targets.items() if target == STANDARD]
    if len(both) > 1:
        raise typer.BadParameter("only one of them can be standard output", param_hint=" and ".join(both))
    places: dict[str, str] = {}
    for option, target in targets.items():
        if target not in (None, STANDARD):
            other = places.setdefault(os.path.realpath(str(target)), option)
            if other != option:
                raise typer.BadParameter(f"{target} is the file of both", param_hint=f"--{other} and --{option}")


def refuse_overwriting(read: Iterable[Any], **targets: str | None) -> None:
    """Is any of these options' files one that the command reads, itself or in a folder?"""
    written = {option: target for option, target in targets.items() if target not in (None, STANDARD)}
    written = {option: target for option, target in written.items() if os.path.isfile(str(target))}
    if not written:
        return
    for source in filter(os.path.exists, (name for name in read if isinstance(name, str | os.PathLike))):
        for option, target in written.items():
            place = os.path.realpath(str(target))
            inside = os.path.isdir(source) and place.startswith(os.path.join(os.path.realpath(source), ""))
            if inside or os.path.samefile(place, source):
                what = f"is in {source}, which is read" if inside else "is what is read"
                raise typer.BadParameter(f"{target} {what}; give another name", param_hint=f"--{option}")


def write_json(target: str | None, value: Any) -> None:
    """Writes a value where an option said, if it said so."""
    if target is not None:
        with _opened(target) as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_csv(target: str | None, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """Writes rows where an option said, if it said so."""
    if target is not None:
        with _opened(target, newline="") as file:
            table = csv.DictWriter(file, list(columns), lineterminator="\n" if target == STANDARD else "\r\n")
            table.writeheader()
            table.writerows(rows)


@contextlib.contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, where that is a terminal; gives a function of (done, total) that moves it."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # What is printed meanwhile goes above the bar; but output that goes elsewhere is none of its business.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _opened(target: str, newline: str = "\n") -> Iterator[Any]:
    if target == STANDARD:
        yield sys.stdout
        return
    with whole_file(target, newline=newline) as file:
        yield file
