"""The features of a network as pictures: the maps of a layer, and what single channels of it respond to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.analysis.example_inputs import example_inputs
from foveal.analysis.from_onnx.network import OnnxNetwork
from foveal.analysis.layer_maps import maps_of, watched
from foveal.analysis.picture_grid import Tile, draw_grid, rising, signed
from foveal.analysis.responses import View, unit_responses
from foveal.picture import PictureLike, open_picture

FeatureView = Literal["maps", "gradient", "guided", "deconv"]
FEATURE_VIEWS: tuple[FeatureView, ...] = get_args(FeatureView)

MOST_MAPS, STRONGEST_MAPS, MOST_UNITS = 64, 63, 6
"""Channels on one sheet; of a layer with more, the strongest are drawn: with the picture 8 x 8 tiles."""

BOX = (255, 206, 64)

ENLARGED = 2
"""Where in a row about a channel the enlarged part of the picture is: a square around the pixels with a gradient."""


@dataclass(frozen=True)
class NetworkInput:
    """How a network wants its pictures.

    Args:
        height, width: in pixels.
        mean, std: for each channel, of pixels from 0 to 1; those of ImageNet by default.
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def network_input(network: nn.Module, size: tuple[int, int] | None = None) -> NetworkInput:
    """How a network wants its pictures: as timm's networks and ONNX files say themselves, else as ImageNet has it.

    Args:
        network: any.
        size: height and width, if not the network's own.

    Raises:
        ValueError: for an ONNX file that does not take one picture in colour, of this size.
    """
    if isinstance(network, OnnxNetwork):
        size = _size_of_file(network, size)
    told = getattr(network, "pretrained_cfg", None)
    told = told if isinstance(told, dict) else {}
    usual = NetworkInput()
    _, height, width = told.get("input_size") or (3, usual.height, usual.width)
    height, width = size or (height, width)
    return NetworkInput(height, width, tuple(told.get("mean") or usual.mean), tuple(told.get("std") or usual.std))


def _size_of_file(network: OnnxNetwork, size: tuple[int, int] | None) -> tuple[int, int]:
    given = example_inputs(network, size)
    shapes = [tuple(x.shape) for x in given]
    if len(given) > 1 or shapes[0][:-2] != (1, 3) or not given[0].is_floating_point():
        takes = ", ".join(f"{shape} of {x.dtype}" for shape, x in zip(shapes, given, strict=True))
        raise ValueError(f"{network.path} takes {takes}; expected one picture in colour, (1, 3, H, W), of floats")
    return shapes[0][2], shapes[0][3]


def read_pixels(picture: PictureLike, height: int, width: int) -> Tensor:
    """The largest centred part of a picture that has these proportions, at this size.

    Returns:
        (3, height, width) float, from 0 to 1.

    Raises:
        PictureError: for what is no picture.
        ValueError: for one of other than 3 channels.

    Example:
        >>> read_pixels(np.zeros((300, 400, 3), dtype=np.uint8), 224, 224).shape
        torch.Size([3, 224, 224])
    """
    opened = open_picture(picture)
    if opened.channels != 3:
        raise ValueError(f"{opened.name}: has {opened.channels} channels; expected 3")
    share = min(opened.height / height, opened.width / width)
    shrink = max((shrink for shrink in opened.sizes if shrink <= share), default=1)
    tall, wide = opened.sizes[shrink]
    share = min(tall / height, wide / width)
    rows, columns = max(1, min(tall, round(height * share))), max(1, min(wide, round(width * share)))
    pixels = opened.read((tall - rows) // 2, (wide - columns) // 2, rows, columns, shrink=shrink)
    whole = pixels.dtype == torch.uint8
    pixels = pixels.float() / 255 if whole else pixels.float()
    scaled = F.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled[0].clamp(0, 1)


def draw_features(
    network: nn.Module,
    layer: str,
    pixels: Tensor,
    *,
    taken: NetworkInput | None = None,
    unit: int | None = None,
    view: FeatureView | None = None,
) -> Image.Image:
    """Draws what a layer makes of a picture.

    Args:
        network: run in evaluation mode and left as it was.
        layer: name of a module whose output is a map, or tokens on a grid.
        pixels: (3, H, W) from 0 to 1.
        taken: how the network wants its pictures; `network_input(network)` by default. Its size is not looked at.
        unit: one channel alone; without a view, with all that is known of it: its map, the pixels with a gradient where
            it is strongest, and the three signals that it sends back (see `unit_responses`).
        view: "maps": the map of every channel, or of the 63 strongest of more than 64; "gradient", "guided" or
            "deconv": what the 6 strongest channels respond to. "maps" by default.

    Returns:
        An RGB image, labelled.

    Raises:
        ValueError: for an unknown layer, view or unit, or a layer without maps.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> draw_features(network, "1", torch.rand(3, 32, 32)).mode
        'RGB'
    """
    if view is not None and view not in FEATURE_VIEWS:
        raise ValueError(f"view is {view!r}; expected one of {', '.join(FEATURE_VIEWS)}")
    if pixels.ndim != 3 or len(pixels) != 3:
        raise ValueError(f"pixels have shape {tuple(pixels.shape)}; expected (3, H, W), from 0 to 1")
    taken = taken or network_input(network)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (taken.mean, taken.std))
    x = ((pixels.detach().cpu() - mean) / std)[None]
    weight = next((p for p in network.parameters() if p.is_floating_point()), None)
    x = x if weight is None else x.to(weight)
    with torch.no_grad():
        maps = maps_of(watched(network, layer, x), layer, (x.shape[-2], x.shape[-1]))[0].float().cpu()
    channels, height, width = maps.shape
    if unit is not None and not 0 <= unit < channels:
        raise ValueError(f"unit {unit}: {layer} has {channels} channels, 0 to {channels - 1}")
    photo = Image.fromarray((pixels.cpu() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
    name = f"{layer}: {channels} channels of {height} x {width}"
    if view in (None, "maps") and unit is None:
        return _draw_maps(maps, photo, name)
    views: tuple[View, ...] = ("gradient", "guided", "deconv")
    if view is not None:
        views = tuple(one for one in views if one == view)
    units = _strongest(maps, MOST_UNITS) if unit is None else [unit]
    rows = [_unit_tiles(network, layer, x, maps, one, views, photo) for one in units]
    if all(row[ENLARGED].image.size == photo.size for row in rows):  # gradients everywhere: it is there already
        rows = [[*row[:ENLARGED], *row[ENLARGED + 1 :]] for row in rows]
    tiles, side = [tile for row in rows for tile in row], 180 if unit is None else 240
    return draw_grid(tiles, title=f"{name}\n{_SAID[view]}", columns=len(rows[0]), side=side)


_SAID = {
    None: "What one channel responds to where it is strongest, and how the pixels there raise it",
    "maps": "The map of one channel, and where it is strongest",
    "gradient": "Gradient: which pixels change the channel most, where it is strongest (Simonyan et al. 2014)",
    "guided": "Guided backpropagation: what raises the channel, where it is strongest (Springenberg et al. 2015)",
    "deconv": "Deconvolution: what raises the channel, where it is strongest (Zeiler and Fergus 2014)",
}


def _draw_maps(maps: Tensor, photo: Image.Image, name: str) -> Image.Image:
    chosen = list(range(len(maps)))
    if len(maps) > MOST_MAPS:
        chosen = _strongest(maps, STRONGEST_MAPS)
        name += f"; the {STRONGEST_MAPS} with the highest values, highest first"
    below = bool((maps < 0).any())
    scale = "blue below 0, white 0, red above" if below else "dark 0, bright its highest value"
    tiles = [Tile(photo, "the picture")]
    tiles += [Tile(_map_image(maps[unit], below), f"{unit}: {_number(maps[unit].max().item())}") for unit in chosen]
    columns = next(count for count in (3, 4, 5, 6, 7, 8, 9) if count * count >= len(tiles) or count == 9)
    side = 112 if columns > 6 else 150
    title = f"{name}\nEach channel has its own scale: {scale}; its number, and its highest value"
    return draw_grid(tiles, title=title, columns=columns, side=side)


def _map_image(values: Tensor, below: bool) -> Image.Image:
    """One channel's map; `below` says whether any of the layer's goes below 0, so that all are coloured alike."""
    return signed(values.numpy()) if below else rising(values.numpy())


def _strongest(maps: Tensor, most: int) -> list[int]:
    found: list[int] = maps.flatten(1).amax(1).topk(min(most, len(maps))).indices.tolist()
    return found


def _unit_tiles(
    network: nn.Module,
    layer: str,
    x: Tensor,
    maps: Tensor,
    unit: int,
    views: Sequence[View],
    photo: Image.Image,
) -> list[Tile]:
    """The picture with a box around the pixels with a gradient, the map, the box enlarged, and the signals in it.

    The field is at least as large: where a rectifier is shut or a maximum lies elsewhere, this picture has no gradient.
    """
    signals, place = unit_responses(network, layer, x, unit, views=("gradient", *(v for v in views if v != "gradient")))
    box = _box(signals["gradient"].abs().amax(0) > 0)
    framed = photo.copy()
    if photo.size != (box[2] - box[0], box[3] - box[1]):
        corners = (box[0], box[1], box[2] - 1, box[3] - 1)
        ImageDraw.Draw(framed).rectangle(corners, outline=BOX, width=max(1, photo.width // 150))
    strength = _number(maps[unit][place].item())
    tiles = [
        Tile(framed, f"channel {unit}"),
        Tile(_map_image(maps[unit], bool((maps < 0).any())), f"map: {strength} at ({place[0]}, {place[1]})"),
        Tile(photo.crop(box), f"gradient in {box[2] - box[0]} x {box[3] - box[1]} pixels"),
    ]
    return tiles + [Tile(_signal_image(signals[view], view).crop(box), view) for view in views]


def _box(touched: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that count; all of the picture where none or most of them do."""
    height, width = touched.shape
    rows, columns = touched.any(1).nonzero().flatten().tolist(), touched.any(0).nonzero().flatten().tolist()
    if not rows:
        return 0, 0, width, height
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left, 8)  # square, so that the enlarged parts have one shape
    if 2 * side * side > height * width or side > min(height, width):
        return 0, 0, width, height
    top = min(max(0, (top + bottom - side) // 2), height - side)
    left = min(max(0, (left + right - side) // 2), width - side)
    return left, top, left + side, top + side


def _signal_image(signal: Tensor, view: View) -> Image.Image:
    """A gradient as its largest absolute value among the colours; the others in colour around grey."""
    values = signal.float().cpu()
    strength = values.abs().amax(0)
    # A few pixels far above all others would leave the rest dark.
    top = float(np.quantile(strength[strength > 0].numpy(), 0.99)) if bool((strength > 0).any()) else 1.0
    if view == "gradient":
        return Image.fromarray((strength / top).clamp(0, 1).mul(255).round().to(torch.uint8).numpy())
    shown = (0.5 + values / (2 * top)).clamp(0, 1)
    return Image.fromarray(shown.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def _number(value: float) -> str:
    return f"{value:.3g}"
