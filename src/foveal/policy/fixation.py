"""What chooses where to look: a word or a point that a person names, or the picture's own contrast."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.retina import Retina

Fixation: TypeAlias = Literal["center", "auto"] | tuple[float, float]
"""Where to look: the centre, where a policy says, or the point (y, x), relative to the picture."""

FLAT = (1 / 255) ** 2
"""Contrast energy below which a picture counts as flat: a standard deviation of one grey level of 256."""


def parse_fixation(text: str) -> Fixation:
    """Reads "center", "auto" or "Y,X", each from 0 (top, left) to 1 (bottom, right).

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse_fixation("0.25, 0.5")
        (0.25, 0.5)
    """
    word = text.strip().lower()
    if word in ("center", "centre"):
        return "center"
    if word == "auto":
        return "auto"
    try:
        y, x = (float(part) for part in word.split(","))
    except ValueError:
        raise ValueError(
            f"fixation {text!r}: expected center, auto, or two numbers Y,X from 0 to 1, for example 0.3,0.7"
        ) from None
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise ValueError(f"fixation {text!r} lies outside the picture; Y (down) and X (right) go from 0 to 1")
    return y, x


def energy_fixation(picture: Any, *, size: int = 64, threshold: float = 0.3) -> tuple[float, float]:
    """Where local contrast is: the centre of mass of the places that have much of it.

    The picture is looked at once in a single window that holds all of it. The energy of a cell is the variance of
    grey over the 3 x 3 cells around it; what lies below a fraction of the largest counts as nothing.

    It is a reflex, not an understanding. It cannot tell an object from a busy background such as leaves, gravel or
    print; detail finer than a cell of this look (1 / `size` of the longer side) is averaged away before it is seen;
    and two things far apart draw it to the place between them.

    Args:
        picture: anything that `open_picture` takes.
        size: cells along the longer side.
        threshold: the least energy that counts, as a fraction of the largest, from 0 to below 1.

    Returns:
        (y, x), relative to the picture; its centre where it is flat.

    Raises:
        PictureError: if the picture cannot be read.
        ValueError: if the threshold is out of range.

    Example:
        >>> picture = torch.zeros(3, 100, 100)
        >>> picture[:, 20:30, 70:80] = 1.0
        >>> y, x = energy_fixation(picture)
        >>> round(y, 1), round(x, 1)
        (0.2, 0.8)
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; expected 0 to below 1")
    glimpse = Retina(size, levels=1, enlarge=True)(picture)
    height, width = glimpse.layout.pictures[0].tolist()
    grey = glimpse.pixels.detach()[0, 0].cpu().float().mean(0)[:height, :width]
    energy = _variance(grey)
    most = float(energy.max())
    if not most > FLAT:
        return 0.5, 0.5
    mass = torch.where(energy >= threshold * most, energy, 0.0).double()
    places = [(torch.arange(side, dtype=torch.float64) + 0.5) / side for side in (height, width)]
    y = float((mass.sum(1) * places[0]).sum() / mass.sum())
    x = float((mass.sum(0) * places[1]).sum() / mass.sum())
    return min(max(y, 0.0), 1.0), min(max(x, 0.0), 1.0)


def _variance(grey: Tensor) -> Tensor:
    """(H, W) -> (H, W): the variance over 3 x 3 cells; at the picture's edge over those that are there."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x[None, None], 3, 1, 1, count_include_pad=False)[0, 0]

    centred = grey - grey.mean()  # without it a bright picture's squares would swamp what differs in them
    return (mean(centred.square()) - mean(centred).square()).clamp(min=0)
