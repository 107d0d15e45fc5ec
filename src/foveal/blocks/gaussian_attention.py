"""Gaussian spatial attention: what lies far from the fixation counts less, by a width that is learned.

The fall-off of acuity with eccentricity, as in foveated rendering and log-polar models of the retina (Schwartz 1977),
with a floor, so that the edge is dimmed and never erased.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.layout import Layout


class GaussianSpatialAttention(nn.Module):
    """`x * (floor + (1 - floor) * exp(-e**2 / (2 * sigma**2)))`, `e` the eccentricity of each cell.

    Eccentricity is the distance from the nearest fixation over half the picture's longer side, so the same weights
    serve every picture size. One parameter, `sigma`, positive by construction (softplus).

    Args:
        sigma: width at the start, in units of half the longer side; narrow in shallow stages, wider in deep ones.
        floor: the weight infinitely far away, in [0, 1).
        learnable: whether sigma receives gradient.

    Raises:
        ValueError: for sigma or floor out of range.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> GaussianSpatialAttention(sigma=0.5)(torch.rand(3, 8, 16, 16), layout).shape
        torch.Size([3, 8, 16, 16])
    """

    def __init__(self, sigma: float = 0.5, *, floor: float = 0.25, learnable: bool = True) -> None:
        super().__init__()
        if not sigma > 0 or not 0 <= floor < 1:
            raise ValueError(f"sigma {sigma} must be above 0 and floor {floor} in [0, 1)")
        self.floor = floor
        raw = sigma + math.log(-math.expm1(-sigma))  # the inverse of softplus
        self.raw_sigma = nn.Parameter(torch.tensor(raw), requires_grad=learnable)

    @property
    def sigma(self) -> Tensor:
        """The width, a scalar, in units of half the picture's longer side."""
        return F.softplus(self.raw_sigma)

    def weights(self, layout: Layout, n: int) -> Tensor:
        """(B, K, n, n) float32, each in (floor, 1]."""
        half = layout.pictures.amax(1).float() / 2
        eccentricity = layout.eccentricity(n) / half[:, None, None, None]
        eccentricity = eccentricity.to(self.raw_sigma.device)
        return self.floor + (1 - self.floor) * torch.exp(-eccentricity.square() / (2 * self.sigma.square()))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(B * K, C, n, n) -> the same shape."""
        weights = self.weights(layout, x.shape[-1])
        if len(layout) * layout.num_windows != x.shape[0]:
            weights = weights.expand(x.shape[0] // layout.num_windows, -1, -1, -1)
        return x * weights.flatten(0, 1)[:, None].to(x.dtype)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma.item():.3f}, floor={self.floor}"
