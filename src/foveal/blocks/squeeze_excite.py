"""Squeeze-excite: the mean of the whole picture says how much each channel counts. timm's, which can start as identity.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks" (2018).
"""

from __future__ import annotations

from foveal.blocks.gate import WrappedGate, hidden_channels
from foveal.blocks.registry import Block


def squeeze_excite(channels: int, *, reduction: int = 16, add_max: bool = False) -> WrappedGate:
    """Squeeze-excite, `x * sigmoid(W2 relu(W1 mean(x)))`: what a picture holds says which channels count. timm's.

    Hu et al. 2018. The mean is over the whole picture: on glimpses over all windows, each cell weighing the area that
    it alone stands for.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `2 * C * R + R + C`, with `R = max(1, C // reduction)`.

    Use it when a network's last per cent is worth 1 to 2 % more work; it is in most mobile networks.
    Not where the place matters more than the kind of what is seen: all places are weighed alike.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer is.
        add_max: take half the mean and half the largest value instead of the mean.

    Raises:
        ValueError: for channels or a reduction below 1.
        ImportError: without timm.

    Example:
        >>> create_block("squeeze_excite", channels=64)(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """
    hidden = hidden_channels(channels, reduction)
    try:
        from timm.layers import SqueezeExcite
    except ImportError as error:
        raise ImportError("squeeze_excite is timm's; install it with: pip install 'foveal[train]'") from error
    return WrappedGate(SqueezeExcite(channels, rd_channels=hidden, add_maxpool=add_max))


BLOCKS = (Block("squeeze_excite", squeeze_excite, origin="timm"),)
