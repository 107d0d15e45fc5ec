"""Filters that sharpen: what differs from its surroundings is made to differ more."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveal.blocks.fixed_filter import Border, FixedFilter, gaussian_kernel
from foveal.blocks.registry import Block


class Sharpen(FixedFilter):
    """`y = x - amount * laplacian(x)`, one 3 x 3 kernel: 1 + 4 * amount in the middle, -amount above and beside.

    The Laplacian sharpens as heat flows backwards: Kovasznay and Joseph (1955).

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernel is fixed.

    Use it for pictures that are a little soft, by a blur of about one cell.

    Not for noisy ones, whose noise it strengthens most of all; `unsharp_mask` lets you choose the scale. Values may
    leave the range that they had: clamp them where that matters.

    Args:
        amount: how much; 0 leaves the picture as it is.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for an amount below 0 or an unknown border.

    Example:
        >>> create_block("sharpen")(torch.tensor([[[[0.0, 0, 1, 1]] * 2]]))[0, 0, 0].tolist()
        [0.0, -1.0, 2.0, 1.0]
    """

    kernels: Tensor

    def __init__(self, *, amount: float = 1.0, border: Border = "reflect") -> None:
        super().__init__(border, "picture")
        self.amount = _refuse_below_zero(amount)
        laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
        itself = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.float64)
        self.keep("kernels", (itself - amount * laplacian)[None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide(x, self.kernels)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"amount={self.amount}, {super().extra_repr()}"


class UnsharpMask(FixedFilter):
    """`y = x + amount * (x - gaussian(x, sigma))`: what a blur takes away is added on top.

    From the darkroom, where a blurred negative was laid on the picture: Yule (1944). Inside, the
    same numbers as `skimage.filters.unsharp_mask` with `preserve_range=True`, whose mirror image beside the picture
    repeats the edge cell; nothing is clipped.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernel is fixed.

    Use it to sharpen at a scale that you choose: a small sigma for fine texture, a large one for local contrast.

    Not with a large amount, which draws bright and dark lines beside every edge.

    Args:
        sigma: width of the blur, in cells.
        amount: how much of the difference is added; 0 leaves the picture as it is.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for sigma not above 0, an amount below 0, or an unknown border; for maps smaller than a border
            needs.

    Example:
        >>> create_block("unsharp_mask", sigma=2.0)(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 3, 16, 16])
    """

    kernel: Tensor

    def __init__(self, *, sigma: float = 1.0, amount: float = 1.0, border: Border = "reflect") -> None:
        super().__init__(border, "picture")
        self.sigma, self.amount = sigma, _refuse_below_zero(amount)
        self.keep("kernel", gaussian_kernel(sigma))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.amount * (x - self.slide_along_both(x, self.kernel, self.kernel))

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sigma={self.sigma}, amount={self.amount}, {super().extra_repr()}"


def _refuse_below_zero(amount: float) -> float:
    if not 0 <= amount < math.inf:
        raise ValueError(f"amount is {amount!r}; expected 0 or more")
    return amount


BLOCKS = (Block("sharpen", Sharpen), Block("unsharp_mask", UnsharpMask))
