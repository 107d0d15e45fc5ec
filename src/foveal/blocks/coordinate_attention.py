"""Coordinate attention: the means of whole rows and whole columns say how much each of them counts. timm's.

Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design" (2021).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from foveal.blocks.across_windows import across_windows
from foveal.blocks.gate import Gate
from foveal.blocks.registry import Block


@across_windows
def weighed_by_lines(x: Tensor, block: Any) -> Tensor:
    """What timm's coordinate attention makes of maps: every row and every column of the picture has one gate.

    Args:
        x: (B, C, H, W).
        block: timm's `CoordAttn`.
    """
    weighed: Tensor = block(x)
    return weighed


class CoordinateAttention(Gate):
    """Coordinate attention, `x * sigmoid(V r)[row] * sigmoid(W c)[column]`, from the means of rows and of columns.

    Hou et al. 2021. The means of every row and of every column go through one narrow layer together,
    `[r, c] = hardswish(norm(U [rows, columns]))`, then through one each. The layers are timm's `CoordAttn`. On glimpses
    rows and columns are those of the whole picture, as fine as the finest cells: a cell counts in each line as much as
    it alone stands for there, and is weighed by the mean gate of the lines that it lies in.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `3 * C * R + 2 * R`, with `R = max(8, C // reduction)`.

    Use it in mobile networks whose task needs places, such as detection: it costs about what squeeze-excite does.
    Not for maps of a few cells, whose rows and columns tell no more than the whole, nor where pictures lie turned.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer is; never below 8 channels, as in the paper.

    Raises:
        ValueError: for channels or a reduction below 1.
        ImportError: without a timm that has `CoordAttn`.

    Example:
        >>> create_block("coordinate_attention", channels=32)(torch.rand(2, 32, 8, 12)).shape
        torch.Size([2, 32, 8, 12])
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels is {channels} and reduction {reduction}; expected whole numbers of at least 1")
        try:
            from timm.layers.coord_attn import CoordAttn
        except ImportError as error:
            raise ImportError(
                "coordinate_attention is that of timm 1.0.31; install it with: "
                "pip install 'foveal[train]' 'timm>=1.0.31'"
            ) from error
        self.gate = CoordAttn(channels, rd_channels=max(8, channels // reduction))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.blended(x, weighed_by_lines(x, self.gate))


BLOCKS = (Block("coordinate_attention", CoordinateAttention, origin="timm"),)
