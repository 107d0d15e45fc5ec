"""Maps of a deeper layer, brought to the cells of a shallower one: the step that every neck takes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from foveal.blocks.across_windows import across_windows

Mode = Literal["nearest", "bilinear"]


@across_windows
def resized_like(x: Tensor, like: Tensor, mode: Mode = "bilinear") -> Tensor:
    """Enlarges maps to the cells of others; where they have as many already, they stay as they are.

    Windows fill the rim that "bilinear" reads from the windows around.

    Args:
        x: (B, C, h, w).
        like: (B, any, H, W), of which only the shape counts.
        mode: "nearest", or "bilinear" with cells as areas (`align_corners=False`).

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: if x has more cells than `like` along a side.

    Example:
        >>> resized_like(torch.rand(1, 8, 4, 4), torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """
    given, wanted = x.shape[-2:], like.shape[-2:]
    if given == wanted:
        return x
    if given[0] > wanted[0] or given[1] > wanted[1]:
        raise ValueError(
            f"maps of {tuple(given)} cells are brought to {tuple(wanted)}; expected no fewer than they have"
        )
    return F.interpolate(x, size=wanted, mode=mode, align_corners=False if mode == "bilinear" else None)
