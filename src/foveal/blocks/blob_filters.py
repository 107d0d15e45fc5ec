"""Filters that answer to blobs and lines, and cross zero at edges: Laplacian, Laplacian of Gaussian, difference of
Gaussians. All are 0 where a picture is flat."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from foveal.blocks.fixed_filter import Border, FixedFilter, gaussian_kernel
from foveal.blocks.registry import Block

_KERNELS = {
    4: [[0.0, 1, 0], [1, -4, 1], [0, 1, 0]],
    8: [[1.0, 4, 1], [4, -20, 4], [1, 4, 1]],
}
_SCALES = {4: 1, 8: 6}


class Laplacian(FixedFilter):
    """`y = d2x/dx2 + d2x/dy2`, by the neighbours of each cell less the cell itself.

    With 4 neighbours the numbers are those of `scipy.ndimage.laplace`, and those of `skimage.filters.laplace` with the
    sign turned. With 8 it is the nine-point kernel `1 4 1 / 4 -20 4 / 1 4 1`, over 6, whose largest error does not
    depend on direction (Kantorovich and Krylov 1958). Both give the true value for every polynomial of second degree.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernel is fixed.

    Use it to find points and thin lines, and to measure whether a picture is sharp (the variance of what comes out).

    Not on noisy pictures, whose noise it strengthens more than anything else; smooth first
    (`laplacian_of_gaussian`).

    Args:
        neighbours: 4, or 8 for the nine-point kernel.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for another number of neighbours, or an unknown border.

    Example:
        >>> create_block("laplacian")(torch.tensor([[[[0.0, 0, 1, 0, 0]] * 3]]))[0, 0, 1].tolist()
        [0.0, 1.0, -2.0, 1.0, 0.0]
    """

    kernels: Tensor

    def __init__(self, *, neighbours: Literal[4, 8] = 4, border: Border = "reflect") -> None:
        super().__init__(border, "signed")
        if neighbours not in _KERNELS:
            raise ValueError(f"neighbours is {neighbours!r}; expected 4 or 8")
        self.neighbours = neighbours
        self.keep("kernels", torch.tensor([_KERNELS[neighbours]], dtype=torch.float64) / _SCALES[neighbours])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide(x, self.kernels)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"neighbours={self.neighbours}, {super().extra_repr()}"


class LaplacianOfGaussian(FixedFilter):
    """`y = g'' * x across + g'' * x down`, g a Gaussian of width sigma: the Laplacian of the smoothed picture.

    Marr and Hildreth (1980). Dark blobs of radius `sqrt(2) * sigma` give the largest values, bright ones the least. A
    kernel of samples of g'' does not add up to 0; here a multiple of g is taken off it, so that flat pictures give 0.
    So the numbers are those of `scipy.ndimage.gaussian_laplace` less its answer to a flat 1 times the smoothed picture:
    at sigma 0.5 that answer is -1.12, from 0.8 on it is smaller than 0.001.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernels are fixed.

    Use it to find blobs of a size that you can name (times `sigma**2` to compare sizes), and edges as its zeros.

    Not for the strength or direction of edges; that is Sobel's.

    Args:
        sigma: width of the Gaussian, in cells.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for sigma not above 0, or an unknown border; for maps smaller than a border needs.

    Example:
        >>> create_block("laplacian_of_gaussian", sigma=1.5)(torch.ones(1, 2, 16, 16)).abs().max().item() < 1e-6
        True
    """

    smooth: Tensor
    curve: Tensor

    def __init__(self, *, sigma: float = 1.0, border: Border = "reflect") -> None:
        super().__init__(border, "signed")
        smooth = gaussian_kernel(sigma)
        places = torch.arange(len(smooth), dtype=torch.float64) - len(smooth) // 2
        curve = ((places / sigma) ** 2 - 1) / sigma**2 * smooth
        self.sigma = sigma
        self.keep("smooth", smooth)
        self.keep("curve", curve - curve.sum() * smooth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide_along_both(x, self.curve, self.smooth) + self.slide_along_both(x, self.smooth, self.curve)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sigma={self.sigma}, {super().extra_repr()}"


class DifferenceOfGaussians(FixedFilter):
    """`y = gaussian(x, low) - gaussian(x, high)`: what lies between two scales.

    The retina's own answer, centre against surround; with `high = 1.6 * low` close to the Laplacian of Gaussian with
    the sign turned (Marr and Hildreth 1980). The same numbers as `skimage.filters.difference_of_gaussians`.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernels are fixed.

    Use it as a band pass: noise finer than `low` and shading wider than `high` are both gone.

    Not where single cells matter, which `low` smooths away.

    Args:
        low: width of the narrower Gaussian, in cells.
        high: of the wider one; 1.6 times the narrower by default.
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for a width not above 0, a high one not above the low one, or an unknown border; for maps smaller
            than a border needs.

    Example:
        >>> create_block("difference_of_gaussians", low=1.0)(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 3, 16, 16])
    """

    narrow: Tensor
    wide: Tensor

    def __init__(self, *, low: float = 1.0, high: float | None = None, border: Border = "reflect") -> None:
        super().__init__(border, "signed")
        high = 1.6 * low if high is None else high
        self.keep("narrow", gaussian_kernel(low))
        self.keep("wide", gaussian_kernel(high))
        if not high > low:
            raise ValueError(f"low is {low!r} and high {high!r}; expected the high width above the low one")
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.slide_along_both(x, self.narrow, self.narrow) - self.slide_along_both(x, self.wide, self.wide)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"low={self.low}, high={self.high}, {super().extra_repr()}"


BLOCKS = (
    Block("laplacian", Laplacian),
    Block("laplacian_of_gaussian", LaplacianOfGaussian),
    Block("difference_of_gaussians", DifferenceOfGaussians),
)
