"""`foveal filter`: a classical filter on a picture."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.options import standard_input
from foveal.cli.output import STANDARD, one_line, refuse_unwritable
from foveal.whole_file import whole_file

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal filter photo.jpg --kind sobel[/cyan]                            writes photo.sobel.png
  [cyan]foveal filter photo.jpg --kind gaussian --sigma 3 -o soft.png[/cyan]
  [cyan]foveal filter photo.jpg --kind sobel --direction x --grey[/cyan]       slopes to the right
  [cyan]foveal filter - --kind unsharp-mask --amount 2 -o - < photo.jpg > sharp.png[/cyan]
"""


def filter_(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="A file, or - for standard input.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            "-k",
            metavar="NAME",
            help="mean, gaussian; sharpen, unsharp-mask; roberts, prewitt, sobel; laplacian, laplacian-of-gaussian, "
            "difference-of-gaussians.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE.png", help="The result; - is standard output. PICTURE.KIND.png by default."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option("--size", metavar="N", help="Pixels a side, odd: of mean.")] = None,
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", metavar="X", help="Width in pixels: of gaussian, unsharp-mask, laplacian-of-gaussian."),
    ] = None,
    truncate: Annotated[
        float | None, typer.Option("--truncate", metavar="X", help="Where gaussian ends, in sigmas.")
    ] = None,
    low: Annotated[
        float | None, typer.Option("--low", metavar="X", help="The narrower width: of difference-of-gaussians.")
    ] = None,
    high: Annotated[
        float | None, typer.Option("--high", metavar="X", help="The wider one; 1.6 times the narrower by default.")
    ] = None,
    amount: Annotated[
        float | None, typer.Option("--amount", metavar="X", help="How much: of sharpen, unsharp-mask.")
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            "--direction",
            metavar="NAME",
            help="magnitude; x or y of sobel and prewitt; diagonal or antidiagonal of roberts.",
        ),
    ] = None,
    neighbours: Annotated[int | None, typer.Option("--neighbours", metavar="4|8", help="Of laplacian.")] = None,
    border: Annotated[
        str | None,
        typer.Option(
            "--border", metavar="NAME", help="What lies beside the picture: reflect, replicate, zeros, circular."
        ),
    ] = None,
    white: Annotated[
        float | None,
        typer.Option("--white", metavar="X", help="The value drawn white, so that pictures can be compared."),
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Filter the brightness alone, not each colour.")] = False,
) -> None:
    """Run a classical filter over a picture.

    Smoothed and sharpened pictures are written as they are, cut to 0 to 255. Edge strengths go from black, none, to
    white; results with a sign (one direction, Laplacians, differences) from black through mid-grey, which is 0, to
    white. White is the value that 1 in 200 pass; it is printed, for pixels from 0 to 1.
    """
    given = {
        "size": size,
        "sigma": sigma,
        "truncate": truncate,
        "low": low,
        "high": high,
        "amount": amount,
        "direction": direction,
        "neighbours": neighbours,
        "border": border,
    }
    kind = kind.strip().lower()
    out = out or f"{'picture' if picture == STANDARD else Path(picture).stem}.{kind}.png"
    if out != STANDARD and os.path.exists(out) and os.path.exists(picture) and os.path.samefile(out, picture):
        raise typer.BadParameter("this is the picture itself; give the result another name", param_hint="--out")
    if out != STANDARD and Path(out).suffix.lower() not in ("", ".png"):
        raise typer.BadParameter(f"{out}: the result is a PNG; give it a name in .png", param_hint="--out")
    from foveal.analysis.filter_picture import filter_picture, named_filter

    try:
        made = named_filter(kind, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        blamed = [f"--{name}" for name, value in given.items() if _is_told_of(name, value, str(error))]
        raise typer.BadParameter(str(error), param_hint=", ".join(blamed) or "--kind") from None
    if white is not None and (made.result == "picture" or not 0 < white < math.inf):
        what = f"{kind} is written as it is" if made.result == "picture" else f"{white:g}: expected a number above 0"
        raise typer.BadParameter(what, param_hint="--white")
    refuse_unwritable(out=out)
    result = filter_picture(standard_input() if picture == STANDARD else picture, made, grey=grey, full=white)
    if out == STANDARD:
        result.image.save(sys.stdout.buffer, "PNG")
        return
    with whole_file(out, "wb") as file:
        result.image.save(file, "PNG")
    width, height = result.image.size
    print(f"{one_line(out)}: {width} x {height}, {made}")
    if result.full == 0:
        print("  nothing stands out")
    elif result.full is not None:
        black = f"{-result.full:.4g}, mid-grey 0" if result.signed else "0"
        print(f"  white is {result.full:.4g}, black {black}")


def _is_told_of(name: str, value: object, message: str) -> bool:
    """Whether a message tells the value that was given for an option."""
    return value is not None and re.search(rf"\b{name} (is )?{re.escape(repr(value))}(?![\w.])", message) is not None
