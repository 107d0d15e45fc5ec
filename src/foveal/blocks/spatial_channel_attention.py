"""Spatial and channel squeeze-excite side by side (scSE): which channels count, and at which places.

Roy, Navab and Wachinger, "Concurrent Spatial and Channel 'Squeeze & Excitation' in Fully Convolutional Networks",
2018.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from foveal.blocks.gate import Gate, hidden_channels
from foveal.blocks.registry import Block


class SpatialChannelAttention(Gate):
    """Spatial and channel attention (scSE), `x * sigmoid(W2 relu(W1 mean(x))) + x * sigmoid(w x)`, side by side.

    Roy et al. 2018. The first gate is one weight a channel, from the mean of the whole picture; the second one weight
    a cell, from its channels. They are added, or the larger of the two is taken.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `2 * C * R + R + C + C + 1`, with `R = max(1, C // reduction)`.

    Use it in segmentation networks, after each stage of encoder and decoder, for which it was made.
    Not in deep classifiers without norms between: the sum of two gates is near `x` at the start, and up to `2 * x`.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer of the channel gate is.
        combine: "add" as first published, or "max", the larger of the two.

    Raises:
        ValueError: for channels or a reduction below 1, or another `combine`.

    Example:
        >>> create_block("spatial_channel_attention", channels=16)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: int, *, reduction: int = 2, combine: Literal["add", "max"] = "add") -> None:
        super().__init__()
        if combine not in ("add", "max"):
            raise ValueError(f"combine is {combine!r}; expected 'add' or 'max'")
        hidden = hidden_channels(channels, reduction)
        self.combine = combine
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.places = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        by_channel, by_place = x * gate[..., None, None], x * self.places(x).sigmoid()
        weighed = by_channel + by_place if self.combine == "add" else torch.maximum(by_channel, by_place)
        return self.blended(x, weighed)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"combine={self.combine!r}"


BLOCKS = (Block("spatial_channel_attention", SpatialChannelAttention),)
