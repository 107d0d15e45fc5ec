"""Convolutions taken apart into cheaper ones: over space and channels, over rows and columns, in shuffled groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.conv_sizes import require_multiple
from foveal.blocks.convolutions import conv
from foveal.blocks.registry import Block


def depthwise_separable_conv(
    channels: int,
    *,
    out_channels: int | None = None,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = False,
) -> nn.Module:
    """The depthwise separable convolution: one k x k kernel for each channel by itself, then a 1 x 1 that mixes them.

    Xception, Chollet 2017; MobileNets, Howard et al. 2017. About a ninth of the multiplications of a 3 x 3 convolution.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: `C * k * k + C * C_out`, and `C_out` with bias.

    Use it when multiplications or parameters are scarce, on phones for example.
    Not for speed on its own: depthwise layers wait for memory, and a plain convolution of few channels can be faster.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k, odd.
        stride: cells from one output to the next, 1 or 2.
        dilation: cells from one tap to the next.
        bias: whether the 1 x 1 adds a learned number to each channel.

    Raises:
        ValueError: for an even kernel, another stride, or channels, a kernel or a dilation below 1.
        ImportError: without timm.

    Example:
        >>> create_block("depthwise_separable_conv", channels=8, out_channels=16)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """
    try:
        from timm.layers import SeparableConv2d
    except ImportError as error:
        raise ImportError("depthwise_separable_conv is timm's; pip install 'foveal[train]'") from error
    out_channels = channels if out_channels is None else out_channels
    if min(channels, out_channels, kernel_size, dilation) < 1:
        raise ValueError(
            f"channels {channels}, out_channels {out_channels}, kernel_size {kernel_size}, dilation {dilation}: "
            f"expected each at least 1"
        )
    if kernel_size % 2 == 0 or stride not in (1, 2):
        raise ValueError(f"kernel_size {kernel_size}, stride {stride}: expected an odd kernel and a stride of 1 or 2")
    made: nn.Module = SeparableConv2d(channels, out_channels, kernel_size, stride, dilation, bias=bias)
    return made


class SpatiallySeparableConv(nn.Module):
    """The spatially separable convolution: `k x 1` down the columns, then `1 x k` along the rows.

    Rethinking the Inception Architecture, Szegedy et al. 2016. `2 k` multiplications for a cell and channel instead of
    `k * k`; it can do what kernels of rank 1 do (a Gaussian, a Sobel), and with channels between more.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`.
    Parameters: `C * C_mid * k + C_mid * C_out * k + C_out`.

    Use it when kernels are large: at 7 x 7 it is 3.5 times cheaper.
    Not for 3 x 3 in shallow layers, where it saves a third and loses the diagonals.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        mid_channels: C_mid, between the two; C_out by default.
        kernel_size: k.
        bias: whether a learned number is added to each channel at the end.

    Raises:
        ValueError: for a kernel below 1.

    Example:
        >>> create_block("spatially_separable_conv", channels=8, kernel_size=7)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        mid_channels: int | None = None,
        kernel_size: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        mid_channels = out_channels if mid_channels is None else mid_channels
        self.down = conv(channels, out_channels=mid_channels, kernel_size=(kernel_size, 1), bias=False)
        self.across = conv(mid_channels, out_channels=out_channels, kernel_size=(1, kernel_size), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H, W)."""
        return self.across(self.down(x))


class ShuffledConv(nn.Module):
    """A ShuffleNet unit: grouped 1 x 1, channel shuffle, depthwise 3 x 3, grouped 1 x 1, beside a shortcut.

    ShuffleNet, Zhang et al. 2018. The shuffle deals the channels of each group to all groups of the next layer, so that
    the dear part, the 1 x 1 convolutions, can be grouped. Each convolution has its batch norm. With a stride the
    shortcut is an average pool, and joined on instead of added.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: with `M = C_out / reduction` and `D = C_out`, or `C_out - C` with a stride,
        `C * M / groups + 9 * M + M * D / groups + 4 * M + 2 * D`.

    Use it when 1 x 1 convolutions take most of a small network's time.
    Not in wide networks on GPUs: the shuffle moves memory and saves what is not scarce there.

    Args:
        channels: C.
        out_channels: C_out; C by default, 2 C with a stride.
        groups: of the 1 x 1 convolutions.
        reduction: how much narrower the middle is.
        stride: cells from one output to the next, 1 or 2.

    Raises:
        ValueError: for channels that groups or reduction do not divide, or that the shortcut does not fit.

    Example:
        >>> create_block("shuffled_conv", channels=16, groups=2)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        groups: int = 2,
        reduction: int = 4,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride is {stride}; expected 1 or 2")
        out_channels = channels * stride if out_channels is None else out_channels
        if stride == 1 and out_channels != channels:
            raise ValueError(
                f"out_channels is {out_channels}, the shortcut has {channels}; only a stride of 2 adds some"
            )
        if stride == 2 and out_channels <= channels:
            raise ValueError(
                f"out_channels is {out_channels}; with a stride the shortcut alone has {channels}: take more"
            )
        require_multiple(reduction, "reduction", out_channels=out_channels)
        branch, middle = out_channels if stride == 1 else out_channels - channels, out_channels // reduction
        require_multiple(groups, "groups", channels=channels, middle_channels=middle, branch_channels=branch)
        self.groups, self.stride = groups, stride
        self.squeeze = nn.Conv2d(channels, middle, 1, groups=groups, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(middle)
        self.expand = nn.Conv2d(middle, branch, 1, groups=groups, bias=False)
        self.expand_norm = nn.BatchNorm2d(branch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride)."""
        y = torch.relu(self.squeeze_norm(self.squeeze(x)))
        y = F.channel_shuffle(y, self.groups)
        y = self.expand_norm(self.expand(self.depthwise_norm(self.depthwise(y))))
        if self.stride == 1:
            return torch.relu(x + y)
        return torch.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


BLOCKS = (
    Block("shuffled_conv", ShuffledConv),
    Block("depthwise_separable_conv", depthwise_separable_conv, origin="timm"),
    Block("spatially_separable_conv", SpatiallySeparableConv),
)
