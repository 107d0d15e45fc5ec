"""What all classical filters share: kernels that are given and not learned, on any number of channels, and borders."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.blocks.exact_buffers import ExactBuffers

Border = Literal["reflect", "replicate", "zeros", "circular"]
"""What lies beside the picture: its mirror image without repeating the edge, the edge cells, nothing, the other side.
scipy.ndimage calls them "mirror", "nearest", "constant" and "wrap". On glimpses they hold where a picture ends with its
windows; where it ends inside a window zeros follow it. Glimpses refuse "circular"."""


class FixedFilter(ExactBuffers):
    """A filter without parameters, for maps (B, C, H, W) of any C; its kernels are no part of state dicts.

    Args:
        border: what lies beside the picture.
        result: what comes out: values like those that go in ("picture"), values around 0 ("signed"), or values of 0
            and more ("strength"); who draws them has to know.

    Raises:
        ValueError: for an unknown border.
    """

    def __init__(self, border: Border, result: Literal["picture", "signed", "strength"]) -> None:
        super().__init__()
        if border not in get_args(Border):
            raise ValueError(f"border is {border!r}; expected one of {', '.join(get_args(Border))}")
        self.border, self.result = border, result

    def slide(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Correlates every channel with every kernel: (B, C, H, W) and (M, h, w) -> (B, C * M, H, W).

        An even side reaches one cell further down or right than up or left, as in `scipy.ndimage.convolve`.

        Raises:
            ValueError: for maps of whole numbers, to which fractions in kernels would be rounded away.
        """
        if not x.dtype.is_floating_point:
            raise ValueError(f"maps of {x.dtype}: expected floats, x.float() / 255")
        tall, wide = kernels.shape[1:]
        padded = _bordered(x, ((wide - 1) // 2, wide // 2, (tall - 1) // 2, tall // 2), self.border)
        channels = x.shape[1]
        weight = kernels.to(x.dtype).to(x.device)[:, None].repeat(channels, 1, 1, 1)
        return F.conv2d(padded, weight, groups=channels)

    def slide_along_both(self, x: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Correlates every channel with a kernel (k,) down its columns, then with another across its rows."""
        return self.slide(self.slide(x, down[None, :, None]), across[None, None])

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"border={self.border!r}"


def _bordered(x: Tensor, pad: tuple[int, int, int, int], border: Border) -> Tensor:
    if not any(pad):
        return x
    height, width = x.shape[-2:]
    limit = {"reflect": 1, "circular": 0}.get(border)
    if limit is not None and (max(pad[:2]) + limit > width or max(pad[2:]) + limit > height):
        raise ValueError(
            f"border {border!r} of {max(pad)} cells around maps of {height} x {width}: there are not as many to take; "
            f"use a smaller kernel, or border 'replicate'"
        )
    if border == "zeros":
        return F.pad(x, pad)
    return F.pad(x, pad, mode=border)


def gaussian_kernel(sigma: float, *, truncate: float = 4.0) -> Tensor:
    """(2 * r + 1,) float64 that adds up to 1, with r = `truncate * sigma`, rounded, as scipy.ndimage takes it.

    Raises:
        ValueError: if sigma or truncate is not above 0.

    Example:
        >>> gaussian_kernel(0.5, truncate=2).round(decimals=4).tolist()
        [0.1065, 0.787, 0.1065]
    """
    if not 0 < sigma < math.inf or not 0 < truncate < math.inf:
        raise ValueError(f"sigma is {sigma!r} and truncate {truncate!r}; expected numbers above 0")
    reach = int(truncate * sigma + 0.5)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    return kernel / kernel.sum()
