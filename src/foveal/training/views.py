"""Augmented looks at pictures: a random crop, mirror and fixation, and colours that vary a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foveal.retina import Glimpse, Retina


@dataclass(frozen=True)
class Views:
    """A batch of augmented looks.

    Args:
        glimpse: pixels (B, K, 3, S, S).
        boxes: (B, 4) float64, the part of each picture that was looked at: top, left, height, width, relative to it.
        mirrored: (B,) bool; the boxes are those of the mirrored picture.
    """

    glimpse: Glimpse
    boxes: Tensor
    mirrored: Tensor


def draw_views(
    pictures: Sequence[Tensor],
    retina: Retina,
    rng: np.random.Generator,
    *,
    crop: float = 0.5,
    off_centre: float = 0.5,
    colour: float = 0.15,
) -> Views:
    """One augmented look at each picture; all chance comes from `rng`.

    Args:
        pictures: each (3, H, W) uint8.
        retina: how to look.
        rng: the generator.
        crop: the least area of a crop, as a fraction of the picture's.
        off_centre: how often the fixation is drawn anywhere and not the centre.
        colour: standard deviation of the gain of each channel; half of that for the offset.
    """
    seen, boxes, mirrors, fixations = [], [], [], []
    for picture in pictures:
        mirror = bool(rng.random() < 0.5)
        height, width = picture.shape[1:]
        side = np.sqrt(rng.uniform(crop, 1.0)) if rng.random() < 0.75 else 1.0
        tall, wide = (max(1, round(total * side)) for total in (height, width))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        start = width - left - wide if mirror else left  # in the picture as it is stored
        view = picture[:, top : top + tall, start : start + wide]
        seen.append(view.flip(-1) if mirror else view)
        boxes.append((top / height, left / width, tall / height, wide / width))
        mirrors.append(mirror)
        fixations.append(rng.random(2) if rng.random() < off_centre else (0.5, 0.5))
    glimpse = retina(seen, torch.tensor(np.array(fixations)))
    pixels = glimpse.pixels
    if colour:
        shape = (len(pixels), 1, pixels.shape[2], 1, 1)
        gain = torch.from_numpy(np.exp(rng.normal(0, colour, shape))).float()
        offset = torch.from_numpy(rng.normal(0, colour / 2, shape)).float()
        # What lies outside the picture stays zero.
        inside = glimpse.layout.inside(glimpse.layout.size)[:, :, None]
        pixels = torch.where(inside, pixels * gain + offset, 0.0)
    return Views(
        Glimpse(pixels, glimpse.layout, glimpse.mean, glimpse.std),
        torch.tensor(boxes, dtype=torch.float64),
        torch.tensor(mirrors),
    )
