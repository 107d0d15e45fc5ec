"""`foveal view`: a glimpse as a picture."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.options import LookAt, Windows, read_fixation, read_levels, standard_input
from foveal.cli.output import STANDARD, one_line, refuse_unwritable
from foveal.whole_file import whole_file

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal view photo.jpg[/cyan]                              writes photo.glimpse.png
  [cyan]foveal view photo.jpg --fixation auto -o seen.png[/cyan]  where a person would look
"""


def view(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="A file, or - for standard input.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE.png", help="The drawing; - is standard output. PICTURE.glimpse.png by default."
        ),
    ] = None,
    fixation: LookAt = "center",
    levels: Windows = "3",
    size: Annotated[
        int, typer.Option(min=2, max=4096, metavar="N", help="Cells along the side of a window; even.")
    ] = 64,
) -> None:
    """Draw what one look at a picture sees.

    The finest window holds the fixation, coarser ones lie around it; their borders are drawn, that of the fovea in
    yellow. With a number of levels a large picture is first read smaller, so that the widest window holds it; with
    --levels auto the fovea sees its own pixels.
    """
    out = out or f"{'picture' if picture == STANDARD else Path(picture).stem}.glimpse.png"
    if out != STANDARD and os.path.exists(out) and os.path.exists(picture) and os.path.samefile(out, picture):
        raise typer.BadParameter("this is the picture itself; give the drawing another name", param_hint="--out")
    if size % 2:
        raise typer.BadParameter(f"{size} is odd; windows of several levels need an even size", param_hint="--size")
    if out != STANDARD and Path(out).suffix.lower() not in ("", ".png"):
        raise typer.BadParameter(f"{out}: the drawing is a PNG; give it a name in .png", param_hint="--out")
    refuse_unwritable(out=out)
    wanted = read_levels(levels) or "auto"
    point = read_fixation(fixation)
    from foveal.analysis.glimpse_drawing import draw_glimpse
    from foveal.picture import open_picture
    from foveal.retina import Retina

    opened = open_picture(standard_input() if picture == STANDARD else picture)
    if point == "auto":
        from foveal.models.saliency import salient_fixation

        point = salient_fixation(opened)
    glimpse = Retina(size, wanted, enlarge=True)([opened], point)
    drawing = draw_glimpse(glimpse, picture=(opened.height, opened.width))
    if out == STANDARD:
        drawing.save(sys.stdout.buffer, "PNG")
        return
    with whole_file(out, "wb") as file:
        drawing.save(file, "PNG")
    (y, x), cells = glimpse.layout.fixations[0, 0].tolist(), glimpse.layout.num_windows * size * size
    pixels, windows = opened.height * opened.width, glimpse.layout.num_windows
    many = f"{windows} window{'' if windows == 1 else 's'}"
    print(f"{one_line(out)}: {many} of {size} x {size}, looked at ({y:.2f}, {x:.2f})")
    print(
        f"  {cells:,} cells for the picture's {pixels:,} pixels"
        + (f" ({cells / pixels:.1%})" if cells < pixels else "")
    )
