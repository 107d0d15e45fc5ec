"""Generalised mean pooling: between the mean and the maximum of the whole picture, as far as is learned.

Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.blocks.registry import Block


class GeneralizedMeanPool(nn.Module):
    """Generalised mean pooling (GeM), `y = mean(max(x, eps)**p)**(1 / p)` over the whole picture, `p` learned.

    Radenović et al. 2018. `p = 1` is the mean, `p -> inf` the maximum. On glimpses a cell weighs the picture area that
    it alone stands for.

    Shapes: `(B, C, H, W) -> (B, C)`.

    Parameters: `1`; per channel `C`.

    Use it for retrieval and fine-grained classes, in place of a global mean, after a ReLU.
    Not for maps whose negative values matter: all below eps count as eps.

    Args:
        channels: C.
        p: the power at the start, above 0.
        per_channel: one power for each channel.
        eps: the least value, above 0; a power of 0 has no gradient.

    Raises:
        ValueError: for channels below 1, or p or eps not above 0.

    Example:
        >>> create_block("generalized_mean_pool", channels=8)(torch.rand(2, 8, 5, 7)).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, *, p: float = 3.0, per_channel: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected at least 1")
        if not p > 0 or not eps > 0:
            raise ValueError(f"p is {p} and eps {eps}; expected both above 0")
        self.eps = eps
        self.p = nn.Parameter(torch.full((channels if per_channel else 1,), float(p)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        x = x.clamp(min=self.eps)
        # Over the largest no power leaves the range of numbers, and a channel of eps alone has a gradient. The result
        # does not depend on what is divided by, so no gradient goes through it.
        top = x.amax((2, 3)).detach()
        return (x / top[:, :, None, None]).pow(self.p[:, None, None]).mean((2, 3)).pow(1 / self.p) * top

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"p={self.p.mean().item():.3f}, eps={self.eps}"


BLOCKS = (Block("generalized_mean_pool", GeneralizedMeanPool),)
