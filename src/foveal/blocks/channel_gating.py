"""Channel gating: a squeeze-excite gate that also keeps count of which channels matter.

Squeeze-and-Excitation (Hu et al. 2018) over everything that was seen of a picture, all windows together. The running
mean of the gates ranks the channels, so that a narrow periphery can keep the best of them (slimmable networks, Yu et
al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.blocks.across_windows import across_windows
from foveal.blocks.gate import Gate, hidden_channels
from foveal.blocks.registry import Block
from foveal.halo import area_mean
from foveal.layout import Layout


@across_windows
def once_each(values: Tensor) -> Tensor:
    """(B, ...), what each picture has, once: windows hold their picture's value each."""
    return values


class ChannelGating(Gate):
    """Channel gating, `x * sigmoid(W2 relu(W1 mean(x)))`: squeeze-excite that keeps count of which channels matter.

    The gate of Squeeze-and-Excitation (Hu et al. 2018), one for all windows of a picture, the mean weighed by the
    picture area that each cell stands for. `importance` is the running mean of the gates in training; it ranks the
    channels, so that a narrow periphery can keep the best (slimmable networks, Yu et al. 2019).

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `2 * C * R + R + C`, with `R = max(1, C // reduction)`.

    Use it where channels are to be ranked as well as weighed, for a narrow periphery or for pruning.
    Not where ranking is of no use: `squeeze_excite` is the same gate and the one that pretrained networks have.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer is.

    Raises:
        ValueError: for channels or a reduction below 1.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> ChannelGating(8)(torch.rand(3, 8, 4, 4), layout).shape
        torch.Size([3, 8, 4, 4])
        >>> create_block("channel_gating", channels=8)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    importance: Tensor

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.register_buffer("importance", torch.full((channels,), 0.5))

    def gate(self, x: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, C, H, W), or windows (B * K, C, n, n) with their layout -> (B, C), each in (0, 1)."""
        mean = x.mean((2, 3)) if layout is None else area_mean(x, layout)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
        if self.training and not torch.compiler.is_compiling():
            with torch.no_grad():
                self.importance.lerp_(once_each(gate.detach()).mean(0).to(self.importance), 0.01)
        return gate

    def forward(self, x: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, C, H, W), or windows (B * K, C, n, n) with their layout -> the same shape."""
        gate = self.gate(x, layout).to(x.dtype)
        if layout is not None:
            gate = gate.repeat_interleave(layout.num_windows, 0)
        return self.blended(x, x * gate[..., None, None])

    @torch.no_grad()
    def permute_channels(self, order: Tensor) -> None:
        """Reorders the gate to channels that now come in `order` (C,)."""
        self.squeeze.weight.copy_(self.squeeze.weight[:, order])
        self.excite.weight.copy_(self.excite.weight[order])
        self.excite.bias.copy_(self.excite.bias[order])
        self.importance.copy_(self.importance[order])


BLOCKS = (Block("channel_gating", ChannelGating),)
