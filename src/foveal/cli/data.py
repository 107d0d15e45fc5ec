"""`foveal data`: what is wrong with a caption set."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Annotated

import typer

from foveal.cli.options import JsonFile
from foveal.cli.output import STANDARD, one_line, progress, refuse_overwriting, refuse_unwritable, show_help, write_json

SHOWN = 5
"""Warnings of one kind that are printed before the rest are only counted."""

EXAMPLES = """
[bold]Example[/bold]
  [cyan]foveal data check data/flickr8k[/cyan]
"""

app = typer.Typer(help="Look over caption sets before training on them.", invoke_without_command=True)


@app.callback()
def _start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show_help(context)


@app.command("check", epilog=EXAMPLES)
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A caption set: a manifest, folder, shards, COCO JSON.")],
    everything: Annotated[
        bool, typer.Option("--all", help=f"Print every warning, not only {SHOWN} of a kind.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Say what is wrong with a caption set, line by line.

    Errors keep a set from being used, and make the exit code 1; warnings do not.
    """
    refuse_unwritable(json=json_file)
    refuse_overwriting([path], json=json_file)
    from foveal.data import check_captions

    with progress("looking at pictures") as move:
        problems = check_captions(path, progress=move)
    errors = sum(problem.severity == "error" for problem in problems)
    found = {
        "path": path,
        "errors": errors,
        "warnings": len(problems) - errors,
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    write_json(json_file, found)
    if json_file != STANDARD:
        kinds: Counter[str] = Counter()
        for problem in problems:
            # What names a kind is how its sentence starts; after that come the names and numbers of the case.
            kind = " ".join(problem.what.split()[:3])
            kinds[kind] += problem.severity == "warning"
            if everything or kinds[kind] <= SHOWN:
                print(problem)
        for kind, count in kinds.items():
            if count > SHOWN and not everything:
                print(f"... and {count - SHOWN} more warnings: '{kind} ...'; --all prints them")
        print(f"{one_line(path)}: {_counted(errors, 'error')}, {_counted(len(problems) - errors, 'warning')}")
    if errors:
        raise typer.Exit(1)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
