"""Gaussian spatial attention: what lies far from the fixation counts less, by a width that is learned.

The fall-off of acuity with eccentricity, as in foveated rendering and log-polar models of the retina (Schwartz 1977),
with a floor, so that the edge is dimmed and never erased.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.eccentricity_map import layout_eccentricity, squared_eccentricity, weights_at
from foveal.blocks.gate import Gate
from foveal.blocks.registry import Block
from foveal.layout import Layout


class GaussianSpatialAttention(Gate):
    """`x * (floor + (1 - floor) * exp(-e**2 / (2 * sigma**2)))`, `e` the eccentricity of each cell.

    Eccentricity is the distance from the nearest fixation over half the picture's longer side, so the same weights
    serve every picture size. One parameter, `sigma`, positive by construction (softplus), and two more
    for a center, where there is one.

    Args:
        sigma: width at the start, in units of half the longer side; narrow in shallow stages, wider in deep ones.
        floor: the weight infinitely far away, in [0, 1).
        learnable: whether sigma receives gradient.
        center: the place (y, x), relative to the picture, that eccentricity is counted from, instead of the fixation.
        learn_center: whether that place is a parameter too; it starts at `center`, or at the picture's middle.

    Raises:
        ValueError: for sigma, floor or center out of range.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> GaussianSpatialAttention(sigma=0.5)(torch.rand(3, 8, 16, 16), layout).shape
        torch.Size([3, 8, 16, 16])
    """

    center: nn.Parameter | None

    def __init__(
        self,
        sigma: float = 0.5,
        *,
        floor: float = 0.25,
        learnable: bool = True,
        center: tuple[float, float] | None = None,
        learn_center: bool = False,
    ) -> None:
        super().__init__()
        if not sigma > 0 or not 0 <= floor < 1:
            raise ValueError(f"sigma {sigma} must be above 0 and floor {floor} in [0, 1)")
        if center is None and learn_center:
            center = (0.5, 0.5)
        if center is not None and (len(center) != 2 or not all(0 <= place <= 1 for place in center)):
            raise ValueError(f"center is {center}; expected (y, x) relative to the picture, each in [0, 1]")
        self.floor = floor
        raw = sigma + math.log(-math.expm1(-sigma))  # the inverse of softplus
        self.raw_sigma = nn.Parameter(torch.tensor(raw), requires_grad=learnable)
        place = None if center is None else nn.Parameter(torch.tensor(center).float(), requires_grad=learn_center)
        self.register_parameter("center", place)

    @property
    def sigma(self) -> Tensor:
        """The width, a scalar, in units of half the picture's longer side."""
        return F.softplus(self.raw_sigma)

    def weights(self, layout: Layout, n: int) -> Tensor:
        """(B, K, n, n) float32, each in (floor, 1]."""
        place = None if self.center is None else self.center.to(_precise(self.center)).view(1, 2)
        squares = layout_eccentricity(layout, n, place).to(self.raw_sigma.device)
        return weights_at(squares, self.sigma, self.floor)

    def forward(self, x: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, C, H, W), or windows (B * K, C, n, n) with their layout -> the same shape."""
        if layout is None:
            falling = weights_at(squared_eccentricity(x, self.center), self.sigma, self.floor)
            return self.blended(x, x * falling.to(x.dtype))
        weights = self.weights(layout, x.shape[-1])
        if len(layout) * layout.num_windows != x.shape[0]:
            weights = weights.expand(x.shape[0] // layout.num_windows, -1, -1, -1)
        return self.blended(x, x * weights.flatten(0, 1)[:, None].to(x.dtype))

    def extra_repr(self) -> str:
        return f"sigma={self.sigma.item():.3f}, floor={self.floor}"


def _precise(parameter: Tensor) -> torch.dtype:
    """The dtype to count cells in: that of the parameter, but never half precision."""
    return torch.promote_types(parameter.dtype, torch.float32)


def gaussian_attention(
    channels: int,
    *,
    sigma: float = 0.5,
    floor: float = 0.25,
    learnable: bool = True,
    center: tuple[float, float] | None = None,
    learn_center: bool = False,
) -> GaussianSpatialAttention:
    """Gaussian spatial attention, `x * (floor + (1 - floor) * exp(-e**2 / (2 * sigma**2)))`, `e` the eccentricity.

    The fall-off of acuity with eccentricity (Schwartz 1977). Eccentricity is the distance of a cell from the fixation
    over half the picture's longer side. On glimpses the fixation is theirs; on plain maps it is the middle.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: `1`; with a center `3`.

    Use it when what matters lies near where one looks, and its surroundings should count less without being lost.
    Not where the edge matters as much as the middle, as in segmentation: it can only dim. It saves no work.

    Args:
        channels: C; all are weighed alike.
        sigma: width at the start, in units of half the longer side; narrow in shallow stages, wider in deep ones.
        floor: the weight infinitely far away, in [0, 1).
        learnable: whether sigma receives gradient.
        center: the place (y, x), relative to the picture, that eccentricity is counted from, instead of the fixation.
        learn_center: whether that place is learned too; it starts at `center`, or at the picture's middle.

    Raises:
        ValueError: for channels below 1, or sigma, floor or center out of range.

    Example:
        >>> create_block("gaussian_attention", channels=8, learn_center=True)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """
    if channels < 1:
        raise ValueError(f"channels is {channels}; expected at least 1")
    return GaussianSpatialAttention(sigma, floor=floor, learnable=learnable, center=center, learn_center=learn_center)


BLOCKS = (Block("gaussian_attention", gaussian_attention),)
