"""Ordinary convolutions: what each is, what it costs, and when to take it. All are `torch.nn.Conv2d`."""

from __future__ import annotations

from torch import nn

from foveal.blocks.conv_sizes import Sides, require_multiple, same_padding
from foveal.blocks.registry import Block


def conv(
    channels: int,
    *,
    out_channels: int | None = None,
    kernel_size: Sides = 3,
    stride: Sides = 1,
    dilation: Sides = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """The standard convolution: `y[o] = b[o] + sum over c, i, j of w[o, c, i, j] * x[c, y + i, x + j]`.

    Backpropagation applied to handwritten zip code recognition, LeCun et al. 1989; padded so that maps keep their
    size, but for the stride.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`; where the reach
        `dilation * (k - 1) + 1` is even and the stride above 1, `ceil((H - 1) / stride)` and `ceil((W - 1) / stride)`.
    Parameters: `C_out * C / groups * k * k + C_out`.

    Use it when neighbouring cells belong together and nothing speaks for a cheaper form; two of 3 x 3 see what one of
    5 x 5 sees, with fewer parameters.
    Not where channels are only to be mixed (`pointwise_conv`), nor for wide views at full resolution (`dilated_conv`).

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k, the cells along its side, or (along y, along x).
        stride: cells from one output to the next.
        dilation: cells from one tap to the next.
        groups: parts that the channels are split into, each convolved alone.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for channels that the groups do not divide, or a size that no padding keeps.

    Example:
        >>> create_block("conv", channels=8, out_channels=16, stride=2)(torch.rand(2, 8, 32, 32)).shape
        torch.Size([2, 16, 16, 16])
    """
    out_channels = channels if out_channels is None else out_channels
    require_multiple(groups, "groups", channels=channels, out_channels=out_channels)
    padding = same_padding(kernel_size, stride=stride, dilation=dilation)
    return nn.Conv2d(channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


def pointwise_conv(channels: int, *, out_channels: int | None = None, bias: bool = True) -> nn.Conv2d:
    """The 1 x 1 convolution: `y = W x + b` at every cell by itself, so channels mix and cells do not.

    Network in Network, Lin et al. 2013.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`.
    Parameters: `C_out * C + C_out`.

    Use it when the number of channels is to change, or to mix them after a depthwise or grouped step.
    Not for anything that depends on neighbours: it sees a single cell.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        bias: whether a learned number is added to each channel.

    Example:
        >>> create_block("pointwise_conv", channels=8, out_channels=32)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 32, 4, 4])
    """
    return conv(channels, out_channels=out_channels, kernel_size=1, bias=bias)


def grouped_conv(
    channels: int,
    *,
    groups: int,
    out_channels: int | None = None,
    kernel_size: Sides = 3,
    stride: Sides = 1,
    dilation: Sides = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """The grouped convolution: channels in `groups` parts, each convolved alone, at a `groups`-th of the cost.

    ImageNet Classification with Deep Convolutional Neural Networks, Krizhevsky et al. 2012; as a design of its own,
    ResNeXt, Xie et al. 2017. With as many groups as channels it is the depthwise convolution.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`; where the reach
        `dilation * (k - 1) + 1` is even and the stride above 1, `ceil((H - 1) / stride)` and `ceil((W - 1) / stride)`.
    Parameters: `C_out * C / groups * k * k + C_out`.

    Use it when a layer of many channels costs too much and a 1 x 1 convolution or a shuffle mixes the groups after it.
    Not twice in a row with nothing between: no group would ever hear of the others (`shuffled_conv`).

    Args:
        channels: C.
        groups: parts that the channels are split into.
        out_channels: C_out; C by default.
        kernel_size: k, the cells along its side, or (along y, along x).
        stride: cells from one output to the next.
        dilation: cells from one tap to the next.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for channels that the groups do not divide, or a size that no padding keeps.

    Example:
        >>> create_block("grouped_conv", channels=8, groups=4)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """
    options = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    return conv(channels, out_channels=out_channels, groups=groups, bias=bias, **options)


def dilated_conv(
    channels: int,
    *,
    dilation: Sides = 2,
    out_channels: int | None = None,
    kernel_size: Sides = 3,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """The dilated convolution: taps `dilation` cells apart, so k x k weights see `dilation * (k - 1) + 1` cells a side.

    Multi-Scale Context Aggregation by Dilated Convolutions, Yu and Koltun 2016.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`.
    Parameters: `C_out * C / groups * k * k + C_out`, whatever the dilation.

    Use it when outputs need a wide view and full resolution, as in segmentation; let rates grow from layer to layer.
    Not with one rate several times in a row: the cells between the taps are never seen together (gridding).

    Args:
        channels: C.
        dilation: cells from one tap to the next.
        out_channels: C_out; C by default.
        kernel_size: k, the taps along its side, or (along y, along x).
        groups: parts that the channels are split into, each convolved alone.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for channels that the groups do not divide, or a dilation below 1.

    Example:
        >>> create_block("dilated_conv", channels=8, dilation=4)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """
    return conv(
        channels, out_channels=out_channels, kernel_size=kernel_size, dilation=dilation, groups=groups, bias=bias
    )


BLOCKS = (
    Block("conv", conv, origin="torch"),
    Block("pointwise_conv", pointwise_conv, origin="torch"),
    Block("grouped_conv", grouped_conv, origin="torch"),
    Block("dilated_conv", dilated_conv, origin="torch"),
)
