"""Augmentation: noise that grows with eccentricity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foveal.blocks.eccentricity_map import eccentricity_map
from foveal.blocks.registry import Block


class EccentricNoise(nn.Module):
    """`y = x + strength * e**power * n`, n normal noise of its own for each number, in training; `y = x` otherwise.

    `e` is the eccentricity over half the picture's longer side: 0 at the fixation, 1 at the middle of a square's edge.
    Noise as a regulariser: Bishop (1995); that its share should grow with eccentricity follows the eye, whose receptors
    stand ever further apart (Curcio et al. 1990).

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: 0.

    Use it on pictures, so that a model learns to trust the centre and to take the rest with a grain of salt.

    Not on models that are to find small things anywhere, nor in evaluation, where it does nothing.

    Args:
        strength: standard deviation of the noise at e = 1, in units of the pictures' values.
        power: how steeply it grows, above 0.

    Raises:
        ValueError: for a strength below 0 or a power not above 0; for a fixation of another shape.

    Example:
        >>> noise = create_block("eccentric_noise", strength=0.2).train()
        >>> (noise(torch.zeros(1, 3, 65, 65))[0, :, 32, 32] == 0).all().item()  # where it is looked at
        True
    """

    def __init__(self, *, strength: float = 0.1, power: float = 1.0) -> None:
        super().__init__()
        if not 0 <= strength < math.inf or not 0 < power < math.inf:
            raise ValueError(f"strength is {strength!r} and power {power!r}; expected 0 or more, and more than 0")
        self.strength, self.power = strength, power

    def forward(self, x: Tensor, *, fixation: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape.

        Args:
            x: float pictures.
            fixation: (B, 2) or (2,), (y, x) relative to the picture; the centre by default. Glimpses know theirs.
        """
        if not self.training or not self.strength:
            return x
        return x + torch.randn_like(x) * (eccentricity_map(x, fixation) ** self.power * self.strength)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"strength={self.strength}, power={self.power}"


BLOCKS = (Block("eccentric_noise", EccentricNoise),)
