"""Augmentation: blur that grows with eccentricity, as acuity falls off in the eye.

After Geisler and Perry (1998), who showed pictures so: a stack of ever blurrier copies, mixed at every place.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from foveal.blocks.eccentricity_map import eccentricity_map
from foveal.blocks.fixed_filter import Border, gaussian_kernel
from foveal.blocks.registry import Block
from foveal.blocks.smoothing_filters import GaussianFilter


class EccentricBlur(nn.Module):
    """`y = gaussian(x, sigma = u * strength * min(e, 1))` at every place, in training; `y = x` otherwise.

    `e` is the eccentricity over half the picture's longer side, `u` one number in [0, 1) drawn for each picture. Mixed
    from a stack of `steps` blurred copies (Geisler and Perry 1998), of the two nearest such that the variance of the
    mixed kernel is `sigma**2`; kernels narrower than a pixel have less of it than their name says, and so the blurriest
    copy of a small strength in many steps falls a little short.

    Shapes: `(B, C, H, W) -> (B, C, H, W)`.

    Parameters: 0.

    Use it on pictures for models that will see coarse windows, or cameras, that are sharp in the centre alone.

    Not to imitate a glimpse's windows, whose cells are averages (a retina makes them, and saves the work), nor in
    evaluation, where it does nothing.

    Args:
        strength: the largest sigma at e = 1, in pixels.
        steps: blurred copies; each costs one Gaussian filter.
        border: as of `gaussian_filter`.

    Raises:
        ValueError: for a strength not above 0, no step, steps of less than 0.25 pixels, or an unknown border; for a
            fixation of another shape.

    Example:
        >>> blur = create_block("eccentric_blur", strength=4.0).train()
        >>> x = torch.rand(1, 3, 65, 65)
        >>> bool((blur(x)[0, :, 32, 32] - x[0, :, 32, 32]).abs().max() < 1e-6)  # where it is looked at
        True
    """

    def __init__(self, *, strength: float = 3.0, steps: int = 4, border: Border = "replicate") -> None:
        super().__init__()
        if not 0 < strength < math.inf or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"strength is {strength!r} and steps {steps!r}; expected above 0, and 1 or more")
        if strength / steps < 0.25:
            raise ValueError(f"strength {strength} in {steps} steps: less than 0.25 pixels each; take fewer steps")
        self.strength, self.steps = strength, steps
        # Each copy is made from the one before: variances of kernels add up.
        more = [strength / steps * math.sqrt(2 * step + 1) for step in range(steps)]
        self.blurs = nn.ModuleList(GaussianFilter(sigma=sigma, border=border) for sigma in more)
        self.variances = [0.0, *itertools.accumulate(_variance(sigma) for sigma in more)]

    def forward(self, x: Tensor, *, fixation: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape.

        Args:
            x: float pictures.
            fixation: (B, 2) or (2,), (y, x) relative to the picture; the centre by default. Glimpses know theirs.
        """
        if not self.training:
            return x
        drawn = torch.rand_like(x[:, :1].mean((2, 3), keepdim=True))  # one for each picture, also of a glimpse
        variance = (eccentricity_map(x, fixation).clamp(max=1) * drawn * self.strength).square()
        result, copy = x, x
        for blur, (less, more) in zip(self.blurs, itertools.pairwise(self.variances), strict=True):
            blurrier = blur(copy)
            share = ((variance - less) / (more - less)).clamp(0, 1)
            result = result + share * (blurrier - copy)
            copy = blurrier
        return result

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"strength={self.strength}, steps={self.steps}"


def _variance(sigma: float) -> float:
    """What the kernel of this width really has, cut and sampled at whole pixels."""
    kernel = gaussian_kernel(sigma)
    places = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    return float((kernel * places.square()).sum())


BLOCKS = (Block("eccentric_blur", EccentricBlur),)
