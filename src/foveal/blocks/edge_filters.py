"""Filters that answer to edges by the slope of the picture: Roberts, Prewitt, Sobel.

All are scaled so that a ramp that rises by s a cell gives s, whichever of them looks at it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from foveal.blocks.fixed_filter import Border, FixedFilter
from foveal.blocks.registry import Block


class _Slopes(FixedFilter):
    """Two kernels at right angles to each other; the magnitude, or one of them."""

    kernels: Tensor

    def __init__(self, kernels: dict[str, Tensor], direction: str, border: Border) -> None:
        super().__init__(border, "strength" if direction == "magnitude" else "signed")
        if direction != "magnitude" and direction not in kernels:
            raise ValueError(f"direction is {direction!r}; expected magnitude, {' or '.join(kernels)}")
        self.direction = direction
        chosen = list(kernels.values()) if direction == "magnitude" else [kernels[direction]]
        self.keep("kernels", torch.stack(chosen))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        slopes = self.slide(x, self.kernels)
        if self.direction != "magnitude":
            return slopes
        # Of a pair of zeros this norm has a gradient, where that of a square root is infinite.
        length: Tensor = torch.linalg.vector_norm(slopes.unflatten(1, (x.shape[1], 2)), dim=2)
        return length

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"direction={self.direction!r}, {super().extra_repr()}"


def _across(smooth: list[float]) -> dict[str, Tensor]:
    weights = torch.tensor(smooth, dtype=torch.float64)
    across = weights[:, None] / weights.sum() * torch.tensor([-0.5, 0, 0.5], dtype=torch.float64)
    return {"x": across, "y": across.T}


class Roberts(_Slopes):
    """`sqrt(p**2 + q**2)` of the slopes along both diagonals of 2 x 2 cells: the Roberts cross (Roberts 1963).

    `p = (d - a) / sqrt(2)` and `q = (c - b) / sqrt(2)` of the cells `a b / c d`, of which a is where the result is.
    Inside, the magnitude is that of `skimage.filters.roberts`, which repeats the edge cell beside the picture; its
    `roberts_pos_diag` and `roberts_neg_diag` are sqrt(2) times p and q.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernels are fixed.

    Use it where edges are sharp and noise is low, for the thinnest lines.

    Not for noisy pictures (it smooths nothing), nor where edges must not move: it looks half a cell down and right.

    Args:
        direction: "magnitude", or the slope along one diagonal, with its sign: "diagonal" (p) or "antidiagonal" (q).
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for an unknown direction or border.

    Example:
        >>> ramp = torch.arange(5.0).expand(1, 1, 4, 5)
        >>> create_block("roberts", border="replicate")(ramp)[0, 0, 0].round(decimals=4).tolist()
        [1.0, 1.0, 1.0, 1.0, 0.0]
    """

    def __init__(
        self,
        *,
        direction: Literal["magnitude", "diagonal", "antidiagonal"] = "magnitude",
        border: Border = "reflect",
    ) -> None:
        kernels = {"diagonal": [[-1.0, 0], [0, 1]], "antidiagonal": [[0.0, -1], [1, 0]]}
        scaled = {name: torch.tensor(kernel, dtype=torch.float64) / math.sqrt(2) for name, kernel in kernels.items()}
        super().__init__(scaled, direction, border)


class Prewitt(_Slopes):
    """`sqrt(x**2 + y**2)` of central differences, each averaged over three rows or columns alike (Prewitt 1970).

    The kernel across is `[-1, 0, 1] / 2` in each row, over three rows of weight 1/3. `skimage.filters.prewitt_v` and
    `prewitt_h` are twice the slopes, and its `prewitt` is sqrt(2) times the magnitude.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernels are fixed.

    Use it as Sobel's; it smooths a little more along the edge.

    Not where directions must be exact: slanted edges come out weaker than upright ones; Sobel's weights are better.

    Args:
        direction: "magnitude", or one slope with its sign: "x" (brighter to the right
            is positive) or "y" (brighter below).
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for an unknown direction or border.

    Example:
        >>> ramp = torch.arange(5.0).expand(1, 1, 4, 5)
        >>> create_block("prewitt", direction="x")(ramp)[0, 0, 0].round(decimals=4).tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, *, direction: Literal["magnitude", "x", "y"] = "magnitude", border: Border = "reflect") -> None:
        super().__init__(_across([1, 1, 1]), direction, border)


class Sobel(_Slopes):
    """`sqrt(x**2 + y**2)` of central differences, each averaged over three rows or columns by 1, 2, 1 (Sobel 1968).

    The kernel across is `[-1, 0, 1] / 2` in each row, over three rows of weights 1/4, 1/2, 1/4. `scipy.ndimage.sobel`
    is eight times a slope, `skimage.filters.sobel_v` and `sobel_h` are twice the slopes, and its `sobel` is sqrt(2)
    times the magnitude.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`, any C.

    Parameters: 0; the kernels are fixed.

    Use it as the first edge filter to try: robust, hardly dependent on direction, and cheap.

    Not for the scale of an edge, which it cannot choose: smooth first (`gaussian_filter`), or take
    `laplacian_of_gaussian`.

    Args:
        direction: "magnitude", or one slope with its sign: "x" (brighter to the right
            is positive) or "y" (brighter below).
        border: what lies beside the picture: "reflect", "replicate", "zeros" or "circular".
            Where a picture ends inside a window of a glimpse zeros follow it; "circular" glimpses refuse.

    Raises:
        ValueError: for an unknown direction or border.

    Example:
        >>> ramp = torch.arange(5.0).expand(1, 1, 4, 5)
        >>> create_block("sobel", direction="x")(ramp)[0, 0, 0].tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, *, direction: Literal["magnitude", "x", "y"] = "magnitude", border: Border = "reflect") -> None:
        super().__init__(_across([1, 2, 1]), direction, border)


BLOCKS = (Block("roberts", Roberts), Block("prewitt", Prewitt), Block("sobel", Sobel))
