"""`foveal features`: what a layer of a network makes of a picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.options import standard_input
from foveal.cli.output import STANDARD, one_line, refuse_overwriting, refuse_unwritable
from foveal.whole_file import whole_file

if TYPE_CHECKING:
    from torch import nn

    from foveal.analysis.feature_pictures import NetworkInput

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal features photo.jpg --model torchvision:squeezenet1_1[/cyan]      which layers there are
  [cyan]foveal features photo.jpg --model timm:resnet18 --layer layer1[/cyan]   all maps of a layer
  [cyan]foveal features photo.jpg --model timm:resnet18 --layer layer2 --unit 7[/cyan]
      what one channel responds to
"""


def features(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="A file, or - for standard input.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="timm:NAME, torchvision:NAME, MODULE:FUNCTION, a saved model, or default.",
        ),
    ],
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="PATH", help="A module by its name, such as layer2.0.conv1; listed without."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="The drawing; - is standard output. PICTURE.features.png by default.",
        ),
    ] = None,
    unit: Annotated[
        int | None, typer.Option(min=0, metavar="C", help="One channel alone, and all that it responds to.")
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="maps|gradient|guided|deconv",
            help="All maps, or what the strongest channels respond to.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N|H,W", help="At which the picture is read; the network's own by default.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="A safetensors file; random weights without one.")
    ] = None,
) -> None:
    """Draw the feature maps of a layer, or what its channels respond to.

    With a channel or a view other than maps: the pixels with a gradient where it is strongest, and the signal that
    it sends back to them by the gradient, by guided backpropagation and by deconvolution.
    """
    out = out or f"{'picture' if picture == STANDARD else Path(picture).stem}.features.png"
    if out != STANDARD and Path(out).suffix.lower() not in ("", ".png"):
        raise typer.BadParameter(f"{out}: the drawing is a PNG; give it a name in .png", param_hint="--out")
    sides = _sides(size)
    refuse_unwritable(out=out)
    refuse_overwriting([picture, weights], out=out)
    from foveal.analysis.feature_pictures import FEATURE_VIEWS, draw_features, network_input, read_pixels

    if view is not None and view not in FEATURE_VIEWS:
        raise typer.BadParameter(f"{view!r}: expected one of {', '.join(FEATURE_VIEWS)}", param_hint="--view")
    import torch

    from foveal.analysis.layer_maps import find_layer
    from foveal.zoo import is_untaught, load_network

    torch.manual_seed(0)  # random weights are the same each time
    network = load_network(model, weights=weights)
    taken = network_input(network, sides)
    pixels = read_pixels(standard_input() if picture == STANDARD else picture, taken.height, taken.width)
    if layer is None:
        _list_layers(network, taken)
        return
    try:
        find_layer(network, layer)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--layer") from None
    drawing = draw_features(network, layer, pixels, taken=taken, unit=unit, view=view)
    if out == STANDARD:
        drawing.save(sys.stdout.buffer, "PNG")
        return
    with whole_file(out, "wb") as file:
        drawing.save(file, "PNG")
    random = " (random weights; give --weights for taught ones)" if weights is None and is_untaught(model) else ""
    print(f"{one_line(out)}: {one_line(layer)} of {one_line(model)}, {drawing.width} x {drawing.height}{random}")


def _sides(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:[,x](\d{1,5}))?", text.strip())
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(8 <= side <= 4096 for side in sides):
        raise typer.BadParameter(f"{text!r}: expected N or H,W, each from 8 to 4096", param_hint="--size")
    return sides


def _list_layers(network: nn.Module, taken: NetworkInput) -> None:
    import torch

    from foveal.analysis.layer_maps import layers_with_maps

    x = torch.zeros(1, 3, taken.height, taken.width)
    weight = next(network.parameters(), None)
    found = layers_with_maps(network, x if weight is None else x.to(weight))
    if not found:
        raise ValueError(f"{type(network).__name__} has no layers with maps inside it")
    for name, (channels, height, width) in found.items():
        print(f"{name}  {channels} channels of {height} x {width}")
