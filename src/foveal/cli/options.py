"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

if TYPE_CHECKING:
    from foveal.models.generation import Describer
    from foveal.policy.fixation import Fixation

JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output.")]
Language = Annotated[str, typer.Option("--lang", "-l", metavar="en|zh", help="The language to write in.")]
Beams = Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Width of the search for words; 1 is fastest.")]
Batch = Annotated[
    int, typer.Option(min=1, max=1024, metavar="N", help="Pictures that go through the network together.")
]
LookAt = Annotated[
    str,
    typer.Option(
        "--fixation",
        "-f",
        metavar="center|auto|Y,X",
        help="Where to look; auto goes where a person would look; Y is down.",
    ),
]
Windows = Annotated[
    str | None,
    typer.Option(
        "--levels",
        metavar="N|auto",
        help="Windows of the look; the more, the larger the picture is read. auto: as many as show its own pixels.",
    ),
]


def read_levels(text: str | None) -> int | Literal["auto"] | None:
    """A number of levels, "auto", or None where the option was not given."""
    if text is None or text.lower() == "auto":
        return text and "auto"  # type: ignore[return-value]
    if not text.isdecimal() or not 1 <= int(text) <= 16:
        raise typer.BadParameter(f"{text!r}: expected 1 to 16, or auto", param_hint="--levels")
    return int(text)


def read_fixation(text: str) -> Fixation:
    """The word or the point (y, x) that the option names."""
    from foveal.policy.fixation import parse_fixation

    try:
        return parse_fixation(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fixation") from None


def refuse_language(describer: Describer, language: str) -> None:
    """Is the language one that the model writes?"""
    try:
        describer.refuse_unknown(language)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lang") from None


def standard_input() -> BinaryIO:
    """The stream through which a picture comes, if one does; refused where a person would have to type it."""
    if sys.stdin.isatty():
        raise typer.BadParameter(
            "- reads a picture from standard input, which is a terminal; pipe one in", param_hint="PICTURE"
        )
    return sys.stdin.buffer
