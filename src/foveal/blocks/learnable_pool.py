"""Learnable pooling: the weights of a pooling window are learned, and are shares of one whole.

After the learned pooling filters of Lee, Gallagher and Tu, "Generalizing Pooling Functions in Convolutional Neural
Networks" (2016), here normalised by a softmax, so that a window of equal cells keeps their value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.plain_pools import known_stride, require_channels
from foveal.blocks.registry import Block


class LearnablePool2d(nn.Module):
    """Learnable pooling, `y = sum(softmax(w) * x[window])`: a mean whose weights over the k x k cells are learned.

    After Lee et al. 2016. It starts as average pooling; flat maps stay flat whatever is learned.

    Shapes: `(B, C, H, W) -> (B, C, H', W')`, `H' = floor((H + 2 * padding - k) / stride) + 1`.

    Parameters: `C * k * k`; shared `k * k`.

    Use it in place of average pooling where the best blur before a stride is unknown, or unlike between channels.
    Not in place of max pooling: however the weights fall, it stays linear.

    Args:
        channels: C.
        kernel_size: k, cells along a window's side.
        stride: from window to window; k by default.
        padding: cells of zeros around the map, which count; at most half of k.
        shared: the same weights for all channels.

    Raises:
        ValueError: for channels or sides below 1, or a padding above half the kernel.

    Example:
        >>> create_block("learnable_pool", channels=8, kernel_size=3, stride=2, padding=1)(torch.rand(2, 8, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 2,
        stride: int | None = None,
        padding: int = 0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        require_channels(channels)
        self.channels, self.stride, self.padding = channels, known_stride(kernel_size, stride, padding), padding
        self.logits = nn.Parameter(torch.zeros(1 if shared else channels, kernel_size, kernel_size))

    @property
    def weight(self) -> Tensor:
        """(C, k, k) or, shared, (1, k, k): the share of each cell of a window; they add up to 1."""
        return self.logits.flatten(1).softmax(1).view_as(self.logits)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        weight = self.weight[:, None].expand(self.channels, -1, -1, -1)
        return F.conv2d(x, weight, None, self.stride, self.padding, 1, self.channels)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"{self.channels}, kernel_size={self.logits.shape[-1]}, stride={self.stride}, padding={self.padding}"


BLOCKS = (Block("learnable_pool", LearnablePool2d),)
