"""Convolutions of several dilations side by side: the near and the far of every cell in one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foveal.blocks.conv_sizes import require_multiple
from foveal.blocks.convolutions import conv
from foveal.blocks.registry import Block


class MultiDilationConv(nn.Module):
    """Convolutions of several rates side by side: `y = cat(conv(x, dilation=r) for r in rates)` over the channels.

    Atrous spatial pyramid pooling of DeepLab, Chen et al. 2017, with the rates of Yu and Koltun 2016.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`, each rate giving `C_out / len(rates)` channels.
    Parameters: `C_out * C * k * k + C_out`, as many as one convolution.

    Use it when things of unlike size share a map, at the end of a backbone for example.
    Not on maps smaller than `rate * (k - 1) + 1` cells: most taps of that rate would read padding.

    Args:
        channels: C.
        out_channels: C_out, a multiple of the number of rates; C by default.
        rates: dilations, one branch each.
        kernel_size: k, odd.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for no rates, an even kernel, or channels that the branches do not divide.

    Example:
        >>> create_block("multi_dilation_conv", channels=8)(torch.rand(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        rates: Sequence[int] = (1, 2, 4, 8),
        kernel_size: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if not rates:
            raise ValueError("rates is empty; expected at least one dilation, such as (1, 2, 4, 8)")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; expected an odd one, so that all branches share a centre")
        require_multiple(len(rates), "the number of rates,", out_channels=out_channels)
        each = out_channels // len(rates)
        self.branches = nn.ModuleList(
            conv(channels, out_channels=each, kernel_size=kernel_size, dilation=rate, bias=bias) for rate in rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class DilatedPairConv(MultiDilationConv):
    """A standard and a dilated convolution side by side: `y = cat(conv(x), conv(x, dilation))` over the channels.

    The near and the wide view of one cell in one layer, after Yu and Koltun 2016; the standard half sees the cells
    that the dilated one leaves out.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`, half of the channels from each.
    Parameters: `C_out * C * k * k + C_out`, as many as one convolution.

    Use it when a dilated layer is wanted without its gridding.
    Not where more than two scales matter (`multi_dilation_conv`).

    Args:
        channels: C.
        out_channels: C_out, even; C by default.
        dilation: cells from one tap of the dilated half to the next.
        kernel_size: k, odd.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for an even kernel, or an odd number of channels.

    Example:
        >>> create_block("dilated_pair_conv", channels=8, dilation=3)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        dilation: int = 2,
        kernel_size: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, out_channels=out_channels, rates=(1, dilation), kernel_size=kernel_size, bias=bias)


BLOCKS = (Block("dilated_pair_conv", DilatedPairConv), Block("multi_dilation_conv", MultiDilationConv))
