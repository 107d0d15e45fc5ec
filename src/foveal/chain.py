"""A chain of windows narrowing on a point: how many levels, how large the picture is read, where the windows begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.arguments import DEEPEST, whole_number


def auto_levels(side: int, size: int) -> int:
    """The fewest levels whose widest window of `size` cells holds `side` pixels with native pixels in the fovea."""
    return 1 + ((side - 1) // size).bit_length()


def chain_origins(
    place: NDArray[np.float64], read: NDArray[np.int64], count: NDArray[np.int64], size: int, lattice: int
) -> Tensor:
    """(B, most, 2) int64: where the windows of foveal chains begin, level 0 first; in NumPy, whose steps cost less.

    Args:
        place: (B, 2), the points looked at, in pixels; `read` (B, 2), the sides of the pictures.
        count: (B,), the levels of each.
        size, lattice: as of `Layout.foveal`.
    """
    parent, origins = np.zeros_like(read), []
    for level in range(int(count.max()) - 1, -1, -1):
        covered, step = size << level, lattice << level
        last = np.maximum(-((covered - read) // step), 0) * step  # in integers: sides may pass what a float holds
        nearest = np.round((place - covered / 2) / step).astype(np.int64) * step
        origin = np.minimum(np.maximum(nearest, 0), last)
        inside = np.minimum(np.maximum(origin, parent), parent + covered)
        parent = np.where((level < count - 1)[:, None], inside, 0)
        origins.append(parent)
    return torch.from_numpy(np.stack(origins[::-1], 1))


def level_counts(levels: Any, pictures: Tensor, size: int) -> Tensor:
    """(B,) int64: how many levels each picture is read with."""
    if isinstance(levels, str):
        if levels != "auto":
            raise ValueError(f"levels is {levels!r}; expected a whole number of at least 1, or 'auto'")
        return torch.tensor([auto_levels(max(sides), size) for sides in pictures.tolist()])
    return torch.full((len(pictures),), whole_number(levels, "levels", 1, DEEPEST))


def read_size(sides: Sequence[int], size: int, levels: int, enlarge: bool) -> list[int]:
    """The height and width at which a picture is read, so that the widest window holds it."""
    longer, widest = max(sides), size << (levels - 1)
    if longer == widest or (longer < widest and not enlarge):
        return list(sides)
    return [max(1, round(side * widest / longer)) for side in sides]
