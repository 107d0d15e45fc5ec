"""Stochastic pooling: in training one cell of each window is drawn, the stronger the likelier.

Zeiler and Fergus, "Stochastic Pooling for Regularization of Deep Convolutional Neural Networks" (2013).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.plain_pools import known_stride, require_channels
from foveal.blocks.registry import Block


class StochasticPool2d(nn.Module):
    """Stochastic pooling: in training a cell drawn with `p = a / sum(a)`, afterwards its expectation `sum(p * a)`.

    Zeiler and Fergus 2013. `a = relu(x)`: strengths are not negative, and what follows a ReLU stays as it is. A window
    of nothing gives 0. The expectation of the draws is exactly what evaluation returns.

    Shapes: `(B, C, H, W) -> (B, C, H', W')`, `H' = floor((H + 2 * padding - k) / stride) + 1`.

    Parameters: `0`.

    Use it against overfitting in small networks, after a ReLU; it has no rate to tune.
    Not where activations may be negative, nor where training must be repeatable without a seed.

    Args:
        channels: C.
        kernel_size: k, cells along a window's side.
        stride: from window to window; k by default.
        padding: cells of zeros around the map, which are never drawn beside others; at most half of k.

    Raises:
        ValueError: for channels or sides below 1, or a padding above half the kernel.

    Example:
        >>> create_block("stochastic_pool", channels=8, kernel_size=3, stride=2)(torch.rand(2, 8, 9, 9)).shape
        torch.Size([2, 8, 4, 4])
    """

    apart: Tensor

    def __init__(self, channels: int, *, kernel_size: int = 2, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        require_channels(channels)
        self.stride, self.padding = known_stride(kernel_size, stride, padding), padding
        self.kernel_size = kernel_size
        cells = kernel_size**2
        apart = torch.eye(cells).reshape(cells, 1, kernel_size, kernel_size).repeat(channels, 1, 1, 1)
        self.register_buffer("apart", apart, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        strength = x.relu()
        return self._drawn(strength) if self.training else self._expected(strength)

    def _expected(self, strength: Tensor) -> Tensor:
        window, dtype = (self.kernel_size, self.stride, self.padding), strength.dtype
        strength = strength.to(torch.promote_types(dtype, torch.float32))  # whose squares half precision does not hold
        whole, squares = F.avg_pool2d(strength, *window), F.avg_pool2d(strength.square(), *window)
        return (squares / whole.clamp(min=torch.finfo(strength.dtype).tiny)).to(dtype)

    def _drawn(self, strength: Tensor) -> Tensor:
        channels, cells = strength.shape[1], self.kernel_size**2
        # Kernels of a single 1 take the cells of each window apart; as a convolution it also meets windows' rims.
        weight = self.apart.to(strength.dtype)
        parts = F.conv2d(strength, weight, None, self.stride, self.padding, 1, channels)
        parts = parts.unflatten(1, (channels, cells))  # (B, C, k * k, H', W')
        # A race of exponential clocks is won with a chance in proportion to the rate.
        waits = torch.rand_like(parts).clamp(min=torch.finfo(parts.dtype).tiny).log().neg()
        lead = parts.detach() / waits
        won = (lead == lead.amax(2, keepdim=True)).to(parts.dtype)
        return (parts * won).sum(2) / won.sum(2)  # of the rare ties, the mean

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


BLOCKS = (Block("stochastic_pool", StochasticPool2d),)
