"""Spatial pyramid pooling: grids of several sizes over the whole picture, to a vector whose length is always the same.

He, Zhang, Ren and Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition" (2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.plain_pools import require_channels
from foveal.blocks.registry import Block


class SpatialPyramidPool(nn.Module):
    """Spatial pyramid pooling, `[pool to n x n, for n in sizes]`, flattened: any picture gives as many numbers.

    He et al. 2014, with their bins, from `floor(i * H / n)` to `ceil((i + 1) * H / n)`. On glimpses the bins are those
    of the whole picture; of the cells that alone stand for some of a bin, the largest is taken, or the mean by area.

    Shapes: `(B, C, H, W) -> (B, C * sum(n * n))`: first the coarsest grid, in each first the channels.

    Parameters: `0`.

    Use it before a classifier that is to see pictures of any size and should still know roughly where things are.
    Not where maps have fewer cells a side than the finest grid: its bins then repeat cells. ONNX has the "max" only of
    grids that divide the map.

    Args:
        channels: C; the pool is the same for any number of them.
        sizes: n of each grid.
        kind: the "max" or the "average" of each bin.

    Raises:
        ValueError: for channels below 1, no sizes, one below 1, or another kind.

    Example:
        >>> create_block("spatial_pyramid_pool", channels=8)(torch.rand(2, 8, 13, 9)).shape
        torch.Size([2, 168])
    """

    def __init__(
        self, channels: int, *, sizes: Sequence[int] = (1, 2, 4), kind: Literal["max", "average"] = "max"
    ) -> None:
        super().__init__()
        require_channels(channels)
        if not sizes or any(side < 1 for side in sizes):
            raise ValueError(f"sizes is {sizes}; expected at least one whole number, each at least 1")
        if kind not in ("max", "average"):
            raise ValueError(f"kind is {kind!r}; expected 'max' or 'average'")
        self.sizes, self.kind = tuple(sizes), kind

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C * sum(n * n))."""
        pool = F.adaptive_max_pool2d if self.kind == "max" else F.adaptive_avg_pool2d
        return torch.cat([pool(x, (side, side)).flatten(1) for side in self.sizes], 1)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sizes={self.sizes}, kind={self.kind!r}"


BLOCKS = (Block("spatial_pyramid_pool", SpatialPyramidPool),)
