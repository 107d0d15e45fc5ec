"""Channel gating: a squeeze-excite gate that also keeps count of which channels matter.

Squeeze-and-Excitation (Hu et al. 2018) over everything that was seen of a picture, all windows together. The running
mean of the gates ranks the channels, so that a narrow periphery can keep the best of them (slimmable networks, Yu et
al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.halo import area_mean
from foveal.layout import Layout


class ChannelGating(nn.Module):
    """`x * sigmoid(W2 relu(W1 mean(x)))`, the mean weighed by the picture area that each cell stands for.

    Parameters: `2 * C * C / reduction + C / reduction + C`.

    Args:
        channels: C.
        reduction: how much narrower the hidden layer is.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> ChannelGating(8)(torch.rand(3, 8, 4, 4), layout).shape
        torch.Size([3, 8, 4, 4])
    """

    importance: Tensor

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.register_buffer("importance", torch.full((channels,), 0.5))

    def gate(self, x: Tensor, layout: Layout) -> Tensor:
        """(B * K, C, n, n) -> (B, C), each in (0, 1)."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(area_mean(x, layout)))))
        if self.training and not torch.compiler.is_compiling():
            with torch.no_grad():
                self.importance.lerp_(gate.detach().mean(0).to(self.importance), 0.01)
        return gate

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(B * K, C, n, n) -> the same shape."""
        gate = self.gate(x, layout).to(x.dtype)
        return x * gate.repeat_interleave(layout.num_windows, 0)[..., None, None]

    @torch.no_grad()
    def permute_channels(self, order: Tensor) -> None:
        """Reorders the gate to channels that now come in `order` (C,)."""
        self.squeeze.weight.copy_(self.squeeze.weight[:, order])
        self.excite.weight.copy_(self.excite.weight[order])
        self.excite.bias.copy_(self.excite.bias[order])
        self.importance.copy_(self.importance[order])
