"""Graph convolution: cells as nodes that share with their neighbours, on a map's own grid or any given graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.across_windows import across_windows
from foveal.blocks.exact_buffers import ExactBuffers
from foveal.blocks.registry import Block


class GraphConv(ExactBuffers):
    """Graph convolution: `Y = D^-1/2 (A + I) D^-1/2 X W + b`, cells as nodes, `D` the row sums of `A + I`.

    Semi-Supervised Classification with Graph Convolutional Networks, Kipf and Welling 2017. On a feature grid each cell
    has its 4 or 8 neighbours, fewer at the picture's edge. A given adjacency is of all cells, row by row: in a glimpse
    window by window, finest first, so with one a tiling is another graph than the dense map.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`; with an adjacency of N nodes `H * W = N`, `K * n * n = N` in a glimpse.
    Parameters: `C * C_out + C_out`.

    Use it when cells relate by a graph that is known: regions, key points, a mesh.
    Not on the grid for its own sake: there it is a blur and a 1 x 1, less than an ordinary convolution can do.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        neighbours: of a cell on the grid, 4 or 8.
        adjacency: (N, N), symmetric, not negative; without the self-loops, which are added. Instead of the grid.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for channels below 1, other numbers of neighbours, an adjacency that is none, or maps of another
            number of cells.

    Example:
        >>> create_block("graph_conv", channels=8, neighbours=4)(torch.rand(2, 8, 6, 6)).shape
        torch.Size([2, 8, 6, 6])
    """

    adjacency: Tensor | None
    kernel: Tensor

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        neighbours: int = 8,
        adjacency: Tensor | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if channels < 1 or out_channels < 1:
            raise ValueError(f"channels is {channels} and out_channels {out_channels}; expected each at least 1")
        if neighbours not in (4, 8):
            raise ValueError(f"neighbours is {neighbours}; expected 4 or 8")
        self.project = nn.Conv2d(channels, out_channels, 1, bias=bias)
        if adjacency is None:
            self.adjacency = None
        else:
            self.keep("adjacency", _normalised(adjacency))
        kernel = torch.ones(1, 1, 3, 3)
        if neighbours == 4:
            kernel[..., ::2, ::2] = 0
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H, W)."""
        shared = self._on_grid(x) if self.adjacency is None else over_graph(x, self.adjacency)
        return self.project(shared)

    def _on_grid(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype)
        degree = F.conv2d(torch.ones_like(x[:, :1]), kernel, padding=1)
        scale = degree.rsqrt()
        around = kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x * scale, around, padding=1, groups=x.shape[1]) * scale


@across_windows
def over_graph(x: Tensor, adjacency: Tensor) -> Tensor:
    """(B, C, H, W) -> the same shape: every cell the sum of all cells, weighed by its row of (H * W, H * W)."""
    cells, nodes = x.shape[2] * x.shape[3], len(adjacency)
    if cells != nodes:
        raise ValueError(f"maps of {x.shape[2]} x {x.shape[3]} have {cells} cells; the adjacency has {nodes} nodes")
    return (x.flatten(2) @ adjacency.T.to(x.dtype)).view(x.shape)


def _normalised(adjacency: Tensor) -> Tensor:
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency has shape {tuple(adjacency.shape)}; expected (N, N)")
    given = adjacency.detach().double()
    if not bool(torch.isfinite(given).all()) or bool((given < 0).any()) or not torch.equal(given, given.T):
        raise ValueError("adjacency must be finite, not negative, and symmetric; A + A.T makes it so")
    looped = given + torch.eye(len(given), dtype=given.dtype, device=given.device)
    scale = looped.sum(1).rsqrt()
    return scale[:, None] * looped * scale


BLOCKS = (Block("graph_conv", GraphConv),)
