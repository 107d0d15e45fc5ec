"""Pixel attention: every cell is weighed by what is seen at that cell alone.

Zhao et al., "Efficient Image Super-Resolution Using Pixel Attention" (2020); with one weight for all channels of a
cell, Qin et al., "FFA-Net" (2020).
"""

from __future__ import annotations

from torch import Tensor, nn

from foveal.blocks.gate import Gate, hidden_channels
from foveal.blocks.registry import Block


class PixelAttention(Gate):
    """Pixel attention, `x * sigmoid(W x + b)`: each number of each cell is weighed by that cell's channels.

    Zhao et al. 2020 (PAN). With `shared`, as Qin et al. 2020 (FFA-Net), a hidden layer gives one weight for all
    channels of a cell: `x * sigmoid(W2 relu(W1 x + b1) + b2)`.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `C * C + C`; shared `C * R + 2 * R + 1`, with `R = max(1, C // reduction)`.

    Use it in restoration and super-resolution, where each pixel counts for itself; on glimpses it needs no halo.
    Not where a cell cannot know its worth without the rest of the picture: nothing but the cell itself is looked at.

    Args:
        channels: C.
        shared: one weight for all channels of a cell, instead of one each.
        reduction: how much narrower the hidden layer is, of the shared form alone.

    Raises:
        ValueError: for channels or a reduction below 1.

    Example:
        >>> create_block("pixel_attention", channels=16, shared=True)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: int, *, shared: bool = False, reduction: int = 8) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        scores: list[nn.Module] = [nn.Conv2d(channels, channels, 1)]
        if shared:
            scores = [nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1)]
        self.gate = nn.Sequential(*scores, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.blended(x, x * self.gate(x))


BLOCKS = (Block("pixel_attention", PixelAttention),)
