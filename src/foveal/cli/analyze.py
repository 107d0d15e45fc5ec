"""`foveal analyze`: what a network costs and what it sees."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.options import JsonFile, read_levels
from foveal.cli.output import STANDARD, one_line, refuse_overwriting, refuse_unwritable, write_csv, write_json
from foveal.whole_file import whole_file

if TYPE_CHECKING:
    from foveal.analysis.report import Report

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal analyze resnet50[/cyan]
  [cyan]foveal analyze timm:convnext_tiny --size 512,384 --depth 2[/cyan]
  [cyan]foveal analyze "conv k7 s2 p3; pool k3 s2 p1; conv k3 p1"[/cyan]
  [cyan]foveal analyze resnet18 --levels 3 --size 256[/cyan]           with a fovea, level by level
  [cyan]foveal analyze model.onnx --html report.html --plot plots/[/cyan]
  [cyan]foveal analyze vgg16 --unit features.29:7,7[/cyan]             what one unit sees
"""


def analyze(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="timm:NAME, torchvision:NAME, either name alone, MODULE:FUNCTION, a saved model, a file in .onnx, or "
            "layers as one types them.",
        ),
    ],
    size: Annotated[
        str, typer.Option(metavar="H,W", help="Height and width of the picture, or one number for both.")
    ] = "224",
    levels: Annotated[
        str | None, typer.Option(metavar="N", help="Also count the network with a fovea of so many windows.")
    ] = None,
    window: Annotated[int, typer.Option(min=2, max=4096, metavar="N", help="Cells along a window's side.")] = 64,
    depth: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Put layers together below N steps of their paths.")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(metavar="LAYER[:Y,X]", help="The field of one place of a layer's map, its middle by default."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A safetensors file, for what a unit really looks at; random without one."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Also run the network and measure every layer.")] = False,
    json_file: JsonFile = None,
    csv_file: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="The layers as a table.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE.html", help="All of it as one page.")] = None,
    plot: Annotated[str | None, typer.Option(metavar="DIR", help="Plots of cost and fields into a folder.")] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE", help="A picture for the plots to draw fields on.")
    ] = None,
) -> None:
    """Tell what a network costs and sees, layer by layer, without training it.

    Parameters, multiply-accumulates (MACs) and all floating-point operations (FLOPs), memory, and receptive fields,
    from the graph of what the network really computes: branches, functional calls and attention included. What could
    not be counted is listed.
    """
    sides = _sides(size)
    place = _unit(unit)
    wanted = None if levels is None else read_levels(levels)
    if wanted == "auto":
        raise typer.BadParameter("auto: give the number of windows", param_hint="--levels")
    if picture is not None and plot is None:
        raise typer.BadParameter("is drawn on by --plot; give that too", param_hint="--picture")
    refuse_unwritable(json=json_file, csv=csv_file, html=html)
    refuse_overwriting(_read(model, weights, picture), json=json_file, csv=csv_file, html=html)
    if plot is not None:
        _ready(plot, picture)
    with _seldom_collected():
        from foveal.analysis.report import COLUMNS, report
        from foveal.zoo import is_untaught, load_network

        options: dict[str, Any] = {"levels": wanted, "window": window, "unit": place, "time": time}
        try:
            network = load_network(model, weights=weights, picture=sides)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="MODEL") from None
        options |= {"draws": bool(plot or html), "untaught": weights is None and is_untaught(model)}
        try:
            made = report(network, sides, **options)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    title = Path(model).name if Path(model).exists() else model
    write_json(json_file, made.as_dict())
    write_csv(csv_file, made.rows(), COLUMNS)
    if html is not None:
        with whole_file(html) as file:
            file.write(made.page(title))
    for drawn in made.draw(plot, picture=picture) if plot is not None else ():
        print(one_line(str(drawn)), file=sys.stderr)
    if STANDARD not in (json_file, csv_file, html):
        _show(made, depth)


def _read(model: str, *files: str | None) -> Iterator[str | Path | None]:
    """All files that are read, as far as one can tell before."""
    yield from (model, *files)
    if model.lower().endswith(".onnx") and Path(model).is_file():
        from foveal.analysis.from_onnx.file import files_beside

        yield from files_beside(model)


def _ready(folder: str, picture: str | None) -> None:
    """Makes the folder of plots, before long work that would end in it."""
    from foveal.analysis.report import PLOTS

    for name in PLOTS:
        refuse_overwriting([picture], plot=str(Path(folder) / name))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise typer.BadParameter(f"{folder} cannot be made a folder: {reason}", param_hint="--plot") from None


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Recording a graph makes millions of objects that stay: searching them for garbage over and over costs a tenth."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _show(made: Report, depth: int | None) -> None:
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(made.text(depth), highlight=False, soft_wrap=True)


def _sides(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:[,x](\d{1,5}))?", text.strip())
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(sides) < 1:
        raise typer.BadParameter(f"{text!r}: expected H,W such as 480,640, or one number", param_hint="--size")
    return sides


def _unit(text: str | None) -> tuple[str, tuple[int, int] | None] | None:
    if text is None:
        return None
    layer, _, spot = text.partition(":")
    if not spot:
        return layer, None
    found = re.fullmatch(r"(\d+),(\d+)", spot)
    if not found:
        raise typer.BadParameter(f"{text!r}: expected LAYER or LAYER:Y,X", param_hint="--unit")
    return layer, (int(found[1]), int(found[2]))
