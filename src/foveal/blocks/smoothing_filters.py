"""Filters that smooth: the mean of a square, and the Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.blocks.fixed_filter import Border, FixedFilter, gaussian_kernel
from foveal.blocks.registry import Block


class MeanFilter(FixedFilter):
    """`y = mean of the size x size cells around`, the box filter.

    The same numbers as `scipy.ndimage.uniform_filter`. Computed along columns, then along rows: McDonnell,
    "Box-filtering techniques" (1981).

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernel is fixed.

    Use it to even out noise where speed counts, and for local averages of a map.

    Not where smoothing must not make new shapes: a box lets some fine stripes through, turned from dark to light. A
    Gaussian does not.

    Args:
        size: cells along a side, odd, so that nothing is shifted.
        border: what lies beside the picture: "reflect", "replicate", "zeros" (they count in the mean) or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for a size that is not odd, or an unknown border; for maps smaller than what a border needs.

    Example:
        >>> create_block("mean_filter", size=3, border="zeros")(torch.ones(1, 1, 3, 3))[0, 0, 1].mul(9).round().tolist()
        [6.0, 9.0, 6.0]
    """

    kernel: Tensor

    def __init__(self, *, size: int = 3, border: Border = "reflect") -> None:
        super().__init__(border, "picture")
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"size is {size!r}; expected an odd number of cells, so that nothing is shifted")
        self.size = size
        self.keep("kernel", torch.full((size,), 1 / size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide_along_both(x, self.kernel, self.kernel)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"size={self.size}, {super().extra_repr()}"


class GaussianFilter(FixedFilter):
    """`y = x convolved with exp(-r**2 / (2 * sigma**2))`, cut at `truncate * sigma` and adding up to 1.

    The same numbers as `scipy.ndimage.gaussian_filter` and `skimage.filters.gaussian`. The only kernel that makes no
    new shapes at any width, the reason for scale space: Witkin (1983).

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernel is fixed.

    Use it to smooth at a scale that you can name, and before a picture is made smaller.

    Not to keep edges while noise goes (a median or bilateral filter does), nor for sigma below about 0.5, where
    hardly more than the cell itself is left.

    Args:
        sigma: the width, in cells.
        truncate: where the kernel ends, in units of sigma.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for sigma or truncate not above 0, or an unknown border; for maps smaller than a border needs.

    Example:
        >>> create_block("gaussian_filter", sigma=2.0)(torch.ones(1, 5, 16, 16)).std().item() < 1e-6
        True
    """

    kernel: Tensor

    def __init__(self, *, sigma: float = 1.0, truncate: float = 4.0, border: Border = "reflect") -> None:
        super().__init__(border, "picture")
        self.sigma = sigma
        self.keep("kernel", gaussian_kernel(sigma, truncate=truncate))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide_along_both(x, self.kernel, self.kernel)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sigma={self.sigma}, {super().extra_repr()}"


BLOCKS = (Block("mean_filter", MeanFilter), Block("gaussian_filter", GaussianFilter))
