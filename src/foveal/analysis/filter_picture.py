"""A classical filter on a whole picture, and what comes out as a picture again."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from foveal.blocks.fixed_filter import FixedFilter
from foveal.blocks.registry import create_block, find_block, list_blocks
from foveal.picture import PictureLike, open_picture

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue look: ITU-R BT.601, as PIL takes it."""

STRONGEST = 0.005
"""The part of all values that may be drawn like the strongest: one bright speck must not leave all edges dark."""

ROUNDING = 1e-6
"""What sums of single precision leave where a picture is flat; the weakest edge of 8 bits is a hundred times that."""


@dataclass(frozen=True)
class Filtered:
    """What a filter made of a picture.

    Args:
        image: of the picture's size.
        full: the value that is drawn white, for a picture of values from 0 to 1; 0 where nothing stands out; None
            where values are drawn as they are.
        signed: whether 0 is drawn mid-grey, and -full black.
    """

    image: Image.Image
    full: float | None
    signed: bool


def named_filter(kind: str, **options: object) -> FixedFilter:
    """A classical filter by its name; hyphens may stand for underscores, and "_filter" may be left out.

    Args:
        kind: one of `list_blocks(family="filters")`.
        options: of the filter.

    Raises:
        ValueError: for an unknown name, an option that the filter does not take, or an impossible one.

    Example:
        >>> named_filter("gaussian", sigma=2.0)
        GaussianFilter(sigma=2.0, border='reflect')
    """
    known, name = list_blocks(family="filters"), kind.strip().lower().replace("-", "_")
    name = f"{name}_filter" if f"{name}_filter" in known else name
    if name not in known:
        names = ", ".join(name.removesuffix("_filter") for name in known)
        raise ValueError(f"there is no filter {kind!r}; expected one of {names}")
    taken = inspect.signature(find_block(name).make).parameters
    for option in options:
        if option not in taken:
            raise ValueError(f"{name} takes no {option}; it takes {', '.join(taken)}")
    made = create_block(name, **options)
    assert isinstance(made, FixedFilter)
    return made


@torch.inference_mode()
def filter_picture(
    picture: PictureLike, made: FixedFilter, *, grey: bool = False, full: float | None = None
) -> Filtered:
    """Runs a filter over a picture at its full size, and draws what comes out.

    Smoothed and sharpened pictures are drawn as they are, cut to their range. Strengths (magnitudes of edges) go from
    black, 0, to white; signed results from black through mid-grey, 0, to white. White is the value that 1 in 200 pass
    in size; those are cut.

    Args:
        picture: anything that `open_picture` takes, of 1 or 3 channels; values of floats go from 0 to 1.
        made: the filter, of `named_filter`.
        grey: filter the brightness alone; otherwise each colour for itself.
        full: the value to draw white, so that drawings can be compared; not for pictures that are drawn as they are.

    Returns:
        The drawing, and its scale.

    Raises:
        PictureError: if the picture cannot be read.
        ValueError: for other channels, a picture smaller than what the filter's border needs, or an impossible `full`.

    Example:
        >>> filter_picture(torch.eye(8)[None], named_filter("sobel")).image.size
        (8, 8)
    """
    if full is not None and (made.result == "picture" or not 0 < full < math.inf):
        raise ValueError(f"white at {full:g}: expected above 0, for a filter whose results are strengths or signed")
    opened = open_picture(picture)
    if opened.channels not in (1, 3):
        raise ValueError(f"{opened.name} has {opened.channels} channels; expected 3, or 1")
    pixels = opened.read()
    x = pixels.float() if pixels.is_floating_point() else pixels.float() / 255
    if grey and opened.channels == 3:
        x = torch.einsum("chw,c->hw", x, torch.tensor(LUMA))[None]
    found = made(x[None])[0]
    if made.result == "picture":
        return Filtered(_image(found), None, False)
    full, signed = _strong(found.abs()) if full is None else full, made.result == "signed"
    share = found / full if full > 0 else torch.zeros_like(found)
    return Filtered(_image((share + 1) / 2 if signed else share), full, signed)


def _strong(x: Tensor) -> float:
    """The value that hardly any pass; the largest, where most are 0; 0 where all are no more than rounding leaves."""
    value = float(x.flatten().kthvalue(math.ceil(x.numel() * (1 - STRONGEST))).values)
    value = value if value > ROUNDING else float(x.max())
    return value if value > ROUNDING else 0.0


def _image(x: Tensor) -> Image.Image:
    """(C, H, W), from 0 to 1."""
    rows = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray((rows[0] if len(rows) == 1 else rows.permute(1, 2, 0).contiguous()).numpy())
