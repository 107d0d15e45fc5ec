"""The windows of a whole batch in memory at once: on an accelerator, where a call for each window would take longer
than the averaging itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.layout import Layout


def can_look_together(pictures: object, layout: Layout) -> bool:
    """Whether these are pictures of one batch on an accelerator, each read at the size that it has."""
    return (
        isinstance(pictures, Tensor)
        and pictures.ndim == 4
        and pictures.is_floating_point()
        and pictures.device.type not in ("cpu", "meta")
        and len(layout) in (1, len(pictures))
        and bool((layout.pictures.cpu() == torch.tensor(pictures.shape[2:])).all())
    )


def batch_windows(pictures: Tensor, layout: Layout) -> Tensor:
    """Every window's cells, each the exact average of the pixels that it holds.

    Args:
        pictures: (B, C, H, W) float, on any device.
        layout: of the K windows of each of these pictures, which are read at the size that they have.

    Returns:
        (B, K, C, S, S), differentiable with respect to the pictures; of cells beside them nothing is promised.

    Example:
        >>> layout = Layout.tiling(picture=(8, 8), size=4)
        >>> batch_windows(torch.ones(1, 3, 8, 8), layout).shape
        torch.Size([1, 4, 3, 4, 4])
    """
    layout = layout.to(pictures.device)
    order, seen = [], []
    for level in layout.levels.unique().tolist():
        picture, window = (layout.levels == level).nonzero(as_tuple=True)
        corners = layout.origins[picture, window]
        order.append(picture * layout.num_windows + window)
        seen.append(_of_one_level(pictures, picture, corners, layout.size, level))
    rows = torch.cat(seen)[torch.cat(order).argsort()]
    return rows.unflatten(0, (len(layout), layout.num_windows))


def _of_one_level(pictures: Tensor, picture: Tensor, corners: Tensor, size: int, level: int) -> Tensor:
    """(M, C, S, S): M windows, of the pictures of these numbers, that begin at the corners (M, 2)."""
    sides, step, cells = pictures.shape[2:], 1 << level, torch.arange(size << level, device=pictures.device)
    places = [corners[:, axis, None] + cells for axis in (0, 1)]
    rows, columns = (place.clamp(max=side - 1) for place, side in zip(places, sides, strict=True))
    pixels = pictures.permute(0, 2, 3, 1)[picture[:, None, None], rows[:, :, None], columns[:, None]]  # (M, h, w, C)
    down, across = (
        _shares((place < side).view(-1, size, step)).to(pixels) for place, side in zip(places, sides, strict=True)
    )
    pixels = (pixels * across[:, None, :, None]).unflatten(2, (size, step)).sum(3)
    pixels = (pixels * down[:, :, None, None]).unflatten(1, (size, step)).sum(2)
    return pixels.permute(0, 3, 1, 2)


def _shares(held: Tensor) -> Tensor:
    """(M, S, step) bool, which pixels of each cell there are -> (M, S * step) what each is worth in its cell's mean."""
    return (held / held.sum(-1, keepdim=True).clamp(min=1)).flatten(1)
