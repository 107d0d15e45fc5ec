"""Structures of branches: several kernels look at the same map, and what they see is joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foveal.blocks.conv_sizes import require_multiple
from foveal.blocks.registry import Block
from foveal.blocks.structures import conv_norm_act


class Inception(nn.Module):
    """The Inception block: 1 x 1, 3 x 3, 5 x 5 and a max pool side by side, the wide ones behind a 1 x 1, joined.

    Going Deeper with Convolutions, Szegedy et al. 2015, with a true 5 x 5 and batch norms (Ioffe and Szegedy 2015).
    torchvision's of this shape has a 3 x 3 in the place of the 5 x 5.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`, of C_out a quarter, a half, an eighth and an eighth from the branches.
    Parameters: with `e = C_out / 8`: `C * 6.5 * e + 3 * e * 4 * 9 * e + e / 2 * 25 * e + 2 * 11.5 * e`.

    Use it when it is open at which scale things show, and to learn what a branch is good for.
    Not for speed: many small kernels keep an accelerator waiting; a residual bottleneck is faster at equal accuracy.

    Args:
        channels: C.
        out_channels: C_out, a multiple of 16; C by default.

    Raises:
        ValueError: for other numbers of channels.
        ImportError: without torchvision.

    Example:
        >>> create_block("inception", channels=16, out_channels=32)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(self, channels: int, *, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        require_multiple(16, "the branches' share of", out_channels=out_channels)
        part = out_channels // 8
        self.point = conv_norm_act(channels, out_channels=2 * part, kernel_size=1)
        self.middle = nn.Sequential(
            conv_norm_act(channels, out_channels=3 * part, kernel_size=1),
            conv_norm_act(3 * part, out_channels=4 * part, kernel_size=3),
        )
        self.wide = nn.Sequential(
            conv_norm_act(channels, out_channels=part // 2, kernel_size=1),
            conv_norm_act(part // 2, out_channels=part, kernel_size=5),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm_act(channels, out_channels=part, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H, W)."""
        return torch.cat([self.point(x), self.middle(x), self.wide(x), self.pool(x)], 1)


class MultiReceptiveField(nn.Module):
    """The multi-receptive-field block: kernels of 1, 3, 5 and 7 side by side, joined and mixed by a 1 x 1.

    `y = relu(norm(W cat(branch_k(x) for k in kernels)))`, each branch a convolution with norm and ReLU; after the
    receptive field block, Liu et al. 2018, with whole kernels instead of dilated ones.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: `C * C_out / m * sum of k * k + 2 * C_out + C_out * C_out + 2 * C_out`, for m kernels.

    Use it when things of unlike size share a map and gaps between taps would miss small ones.
    Not at high resolution with many channels: 7 x 7 costs 49 times the 1 x 1 (`multi_dilation_conv` sees as far).

    Args:
        channels: C.
        out_channels: C_out, a multiple of the number of kernels; C by default.
        kernels: sides of the branches, odd.
        stride: cells from one output to the next.

    Raises:
        ValueError: for no or even kernels, or channels that the branches do not divide.
        ImportError: without torchvision.

    Example:
        >>> create_block("multi_receptive_field", channels=8)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        kernels: Sequence[int] = (1, 3, 5, 7),
        stride: int = 1,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if not kernels or any(side < 1 or side % 2 == 0 for side in kernels):
            raise ValueError(f"kernels are {tuple(kernels)}; expected odd sides, such as (1, 3, 5, 7)")
        require_multiple(len(kernels), "the number of kernels,", out_channels=out_channels)
        each = out_channels // len(kernels)
        self.branches = nn.ModuleList(
            conv_norm_act(channels, out_channels=each, kernel_size=side, stride=stride) for side in kernels
        )
        self.mix = conv_norm_act(out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride)."""
        return self.mix(torch.cat([branch(x) for branch in self.branches], 1))


BLOCKS = (Block("inception", Inception), Block("multi_receptive_field", MultiReceptiveField))
