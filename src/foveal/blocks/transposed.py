"""The transposed convolution, with the warning that it deserves."""

from __future__ import annotations

import math
import warnings

from torch import nn

from foveal.blocks.conv_sizes import require_multiple
from foveal.blocks.registry import Block


def transposed_conv(
    channels: int,
    *,
    out_channels: int | None = None,
    kernel_size: int = 4,
    stride: int = 2,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.ConvTranspose2d:
    """The transposed convolution: every cell lays its weighted kernel on a map `stride` times as large, which adds up.

    Deconvolutional Networks, Zeiler et al. 2010. Where the stride does not divide the kernel, some cells are laid upon
    more often than others, and a checkerboard shows (Odena et al. 2016); where dilation and stride have a divisor in
    common, most cells are never laid upon. A warning says so. Padded so that maps grow exactly by the stride.

    Shapes: `(B, C, H, W) -> (B, C_out, stride * H, stride * W)`.
    Parameters: `C * C_out / groups * k * k + C_out`.

    Use it when a decoder learns how to enlarge, with a kernel that is a multiple of the stride: 4 for 2.
    Not where edges must stay clean: enlarging by nearest cells and a convolution after it cannot make a checkerboard.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k.
        stride: how many times as large the map becomes.
        dilation: cells from one tap to the next.
        groups: parts that the channels are split into, each convolved alone.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for channels that the groups do not divide, or a kernel by which no map grows by the stride.

    Example:
        >>> create_block("transposed_conv", channels=8, out_channels=4)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 4, 32, 32])
    """
    out_channels = channels if out_channels is None else out_channels
    require_multiple(groups, "groups", channels=channels, out_channels=out_channels)
    if min(kernel_size, stride, dilation) < 1:
        raise ValueError(f"kernel_size {kernel_size}, stride {stride}, dilation {dilation}: expected each at least 1")
    reach = dilation * (kernel_size - 1) + 1
    padding = max(0, (reach - stride + 1) // 2)
    rest = stride - reach + 2 * padding
    if rest and rest >= max(stride, dilation):
        raise ValueError(
            f"kernel_size {kernel_size} with stride {stride}: an even kernel keeps no map's size; choose an odd one"
        )
    shared = math.gcd(dilation, stride)
    if shared > 1 and kernel_size > 1:
        warnings.warn(
            f"the dilation {dilation} and the stride {stride} are both multiples of {shared}: at most one row and "
            f"column in {shared} is ever written, the others keep the bias alone; take a dilation of 1",
            stacklevel=2,
        )
    elif kernel_size % stride:
        warnings.warn(
            f"a kernel_size of {kernel_size} is no multiple of the stride {stride}: cells are written unequally often, "
            f"which shows as a checkerboard; take {-(-kernel_size // stride) * stride}",
            stacklevel=2,
        )
    return nn.ConvTranspose2d(channels, out_channels, kernel_size, stride, padding, rest, groups, bias, dilation)


BLOCKS = (Block("transposed_conv", transposed_conv, origin="torch"),)
