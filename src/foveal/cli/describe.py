"""`foveal describe`: pictures in, sentences out."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.options import (
    Batch,
    Beams,
    JsonFile,
    Language,
    LookAt,
    Windows,
    read_fixation,
    read_levels,
    refuse_language,
    standard_input,
)
from foveal.cli.output import (
    STANDARD,
    complain,
    one_line,
    progress,
    refuse_overwriting,
    refuse_unwritable,
    style,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from foveal.describe import Description

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal describe photo.jpg[/cyan]
  [cyan]foveal describe photo.jpg --lang zh --fixation 0.2,0.5[/cyan]   look further up
  [cyan]foveal describe holiday/ 'more/*.png' --json said.json[/cyan]
  [cyan]curl -s https://example.org/cat.jpg | foveal describe -[/cyan]
"""

COLUMNS = (
    "name",
    "text",
    "language",
    "fixation_y",
    "fixation_x",
    "levels",
    "windows",
    "height",
    "width",
    "read_height",
    "read_width",
    "seconds",
    "error",
)


def describe(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE", help="Files, folders (read through), globs, or - for standard input."),
    ] = None,
    language: Language = "en",
    fixation: LookAt = "center",
    levels: Windows = None,
    demo: Annotated[bool, typer.Option("--demo", help="Describe photographs that come with scikit-image.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="DIR", help="A model that you trained.")] = None,
    beams: Beams = 3,
    batch: Batch = 16,
    json_file: JsonFile = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write CSV; - is standard output.")
    ] = None,
) -> None:
    """Say what is in pictures, one sentence each.

    A picture that cannot be read is named on standard error and stops no other; the exit code is then 1.
    """
    if not pictures and not demo:
        raise typer.BadParameter(
            "give a picture, a folder, a glob, - for standard input, or --demo", param_hint="PICTURE"
        )
    refuse_unwritable(json=json_file, csv=csv_file)
    wanted_levels = read_levels(levels)
    from foveal.describe import demo_pictures, describe_each, find_pictures, load_model
    from foveal.picture import open_picture

    wanted_fixation = read_fixation(fixation)
    sources: list[Any] = []
    faults: list[str] = []
    for name in pictures or []:
        if name == STANDARD:
            sources.append(standard_input())
        else:
            found, lacking = find_pictures([name])
            sources += found
            faults += lacking
    if demo:
        sources += [open_picture(file, name=file.name) for file in demo_pictures()]
    refuse_overwriting(sources, json=json_file, csv=csv_file)
    for fault in faults:
        complain(fault)
    if not sources:
        raise typer.Exit(1)
    started = time.perf_counter()
    describer = load_model(model)
    loaded = time.perf_counter()
    refuse_language(describer, language)
    try:
        answers = describe_each(
            sources,
            language=language,
            fixation=wanted_fixation,
            levels=wanted_levels,
            beams=beams,
            batch=batch,
            model=describer,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    told, human = [], STANDARD not in (json_file, csv_file)
    with progress("describing", len(sources)) as move:
        for answer in answers:
            told.append(answer)
            move(len(told), len(sources))
            if answer.error:
                complain(answer.error)
            elif human:
                _show(answer, fixation=wanted_fixation)
    write_json(json_file, [dataclasses.asdict(answer) for answer in told])
    write_csv(csv_file, map(_row, told), COLUMNS)
    good = sum(not answer.error for answer in told)
    if human and good > 1:
        spent = time.perf_counter() - loaded
        each = f"{good} pictures in {spent:.2f} s, {spent / good:.2f} s each"
        print(style(f"{each}; the model was loaded in {loaded - started:.2f} s", dim=True))
    if faults or good < len(told):
        raise typer.Exit(1)


def _show(answer: Description, *, fixation: Any) -> None:
    y, x = answer.fixation
    word = f"{fixation} " if isinstance(fixation, str) else ""
    look = f"looked at {word}({y:.2f}, {x:.2f}) · {answer.windows} window{'' if answer.windows == 1 else 's'}"
    facts = f"  {one_line(answer.name)} · {look} · {answer.seconds:.2f} s"
    print(style(one_line(answer.text), bold=True))
    print(style(facts, dim=True), flush=True)


def _row(answer: Description) -> dict[str, Any]:
    row = dataclasses.asdict(answer)
    for key, names in {
        "fixation": ("fixation_y", "fixation_x"),
        "size": ("height", "width"),
        "read_size": ("read_height", "read_width"),
    }.items():
        row.update(zip(names, row.pop(key), strict=True))
    return row
