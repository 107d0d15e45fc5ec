"""CBAM: a gate over the channels, then one over the places. timm's, which can start as the identity.

Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module" (2018).
"""

from __future__ import annotations

from foveal.blocks.gate import WrappedGate, hidden_channels
from foveal.blocks.registry import Block


def cbam(channels: int, *, reduction: int = 16, kernel_size: int = 7) -> WrappedGate:
    """CBAM, `y = x * sigmoid(M(mean(x)) + M(max(x)))`, then `y * sigmoid(conv([mean_c(y), max_c(y)]))`. timm's.

    Woo et al. 2018. `M` is a layer of `C / reduction` between two without bias; the first mean and maximum are over the
    whole picture, the second over the channels of each cell. timm adds a batch norm to the convolution.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `2 * C * R + 2 * k * k + 2`, with `R = max(1, C // reduction)`.

    Use it when it also matters where something is: it costs little more than squeeze-excite.
    Not in narrow or very shallow networks, where its two gates in a row dim nearly everything.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer of the first gate is.
        kernel_size: k, odd, of the second gate's convolution.

    Raises:
        ValueError: for channels, a reduction or a kernel below 1, and for an even kernel.
        ImportError: without timm.

    Example:
        >>> create_block("cbam", channels=32)(torch.rand(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """
    hidden = hidden_channels(channels, reduction)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; expected an odd number of at least 1, so that maps keep size")
    try:
        from timm.layers.cbam import CbamModule
    except ImportError as error:
        raise ImportError("cbam is timm's; install it with: pip install 'foveal[train]'") from error
    return WrappedGate(CbamModule(channels, rd_channels=hidden, spatial_kernel_size=kernel_size))


BLOCKS = (Block("cbam", cbam, origin="timm"),)
