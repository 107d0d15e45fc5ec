"""Edge compensation: a light branch looks at the detail that a coarser map loses, and adds back what it makes of it.

The lost detail is one band of the Laplacian pyramid (Burt and Adelson 1983); it is large at edges, and nothing where
a map is flat.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.registry import Block


class EdgeCompensation(nn.Module):
    """`y = x + gain * expand(gelu(depthwise(reduce(d))))`, where `d = x - up(down(x))` is the detail lost.

    `down` averages blocks of `factor x factor` cells and `up` is bilinear, so `d` is a band of the Laplacian pyramid
    (Burt and Adelson 1983): what a map coarser by that factor does not show. The branch has no biases, so it adds
    nothing where nothing is lost. `gain`, one a channel, starts at 0, and the block as the identity.

    On glimpses every window loses, and gets back, detail of its own scale: that of the periphery is coarser.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `2 * C * h + h * kernel**2 + C` with `h = max(1, C // reduction)`.

    Use it after stages that blur (strides, pools, coarse windows), before heads that need sharp borders.

    Not for a detail that the map never had: it strengthens what is left of an edge, it does not invent one.

    Args:
        channels: C.
        factor: how much coarser the map is whose loss is made good, at least 2. Windows must be multiples of it.
        reduction: how much narrower than the map the branch is.
        kernel: side of the depthwise convolution, odd.

    Raises:
        ValueError: for channels or reduction below 1, a factor below 2 or a kernel that is not odd.

    Example:
        >>> create_block("edge_compensation", channels=16)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: int, *, factor: int = 2, reduction: int = 4, kernel: int = 3) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels is {channels!r} and reduction {reduction!r}; expected 1 or more")
        if not isinstance(factor, int) or factor < 2:
            raise ValueError(f"factor is {factor!r}; expected a whole number, 2 or more, of cells that are averaged")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel!r}; expected an odd number of cells, so that the map keeps its size")
        hidden = max(1, channels // reduction)
        self.factor = factor
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1))

    def start_as_identity(self) -> None:
        """Brings the gain back to 0. A blending weight of 0 around that would leave both without a gradient."""
        nn.init.zeros_(self.gain)

    def lost(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape: what a map coarser by `factor` does not show."""
        # Sides that the factor does not divide end in smaller blocks.
        coarse = F.avg_pool2d(x, self.factor, ceil_mode=True, count_include_pad=False)
        shown = F.interpolate(coarse, scale_factor=self.factor, mode="bilinear")
        if shown.shape != x.shape:  # cut and not stretched, so that every cell stays at its place
            shown = shown[..., : x.shape[-2], : x.shape[-1]]
        return x - shown

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        made = self.expand(F.gelu(self.depthwise(self.reduce(self.lost(x)))))
        return x + self.gain * made


BLOCKS = (Block("edge_compensation", EdgeCompensation),)
