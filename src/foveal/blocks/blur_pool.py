"""Blur pooling: a binomial blur before a stride, so that a shift by a pixel does not change what is seen. timm's.

Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from foveal.blocks.registry import Block


def blur_pool(
    channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 2,
    padding_mode: Literal["reflect", "replicate", "constant"] = "reflect",
) -> nn.Module:
    """Blur pooling, `y = (b b' * x)[::stride]`, `b` the binomial weights, 1 2 1 for k = 3. timm's.

    Zhang 2019: what a stride thins is blurred before, so that it does not alias.

    Shapes: `(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))`.

    Parameters: `0`.

    Use it in place of a stride, or after a max pool of stride 1, where answers must not jump as a picture shifts.
    Not where finest detail decides and shifts do not occur: it blurs.

    Args:
        channels: C.
        kernel_size: k, odd, at least 3.
        stride: of the thinning.
        padding_mode: what lies beside the map: "reflect", "replicate" or, zeros, "constant".

    Raises:
        ValueError: for an even kernel or one below 3, a stride that is not 1 or 2, or another padding mode.
        ImportError: without timm.

    Example:
        >>> create_block("blur_pool", channels=8)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
    """
    if channels < 1:
        raise ValueError(f"channels is {channels}; expected at least 1")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; expected an odd number of at least 3, which has a middle")
    if stride not in (1, 2):
        raise ValueError(f"stride is {stride}; expected 1 or 2: for more, put one after the other")
    if padding_mode not in ("reflect", "replicate", "constant"):
        raise ValueError(f"padding_mode is {padding_mode!r}; expected 'reflect', 'replicate' or 'constant'")
    try:
        from timm.layers import BlurPool2d
    except ImportError as error:
        raise ImportError("blur_pool is timm's; install it with: pip install 'foveal[train]'") from error
    return BlurPool2d(channels, filt_size=kernel_size, stride=stride, pad_mode=padding_mode)


BLOCKS = (Block("blur_pool", blur_pool, origin="timm"),)
