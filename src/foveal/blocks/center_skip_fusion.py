"""Centre-to-deep skip fusion: fine detail of the centre is handed to the deep layers, past the stages between.

The skip connection of U-Net (Ronneberger, Fischer and Brox 2015), weighed by eccentricity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.blocks.eccentricity_map import center_weights, refuse_impossible_weights
from foveal.blocks.registry import Block
from foveal.blocks.resized_like import resized_like


class CenterSkipFusion(nn.Module):
    """`y = unit(unit(cat(up(deep), g(e) * shallow)))`, `g` a Gaussian of the eccentricity, with a floor.

    A unit is a 3 x 3 convolution, batch norm and ReLU; `up` is bilinear, to the shallow map's cells, so no checkerboard
    can come of it. `g(e) = floor + (1 - floor) * exp(-e**2 / (2 * sigma**2))` lets the shallow map's detail through
    where the picture is looked at, and leaves the rest to the deep map's context. The skip connection is that of U-Net
    (Ronneberger et al. 2015).

    Shapes: `(B, C, h, w)` and `(B, skip_channels, H, W) -> (B, out_channels, H, W)`.

    Parameters: `9 * (C + skip_channels) * out_channels + 9 * out_channels**2 + 4 * out_channels`.

    Use it in decoders that draw (segmentation, heat maps) and before heads that need small things in the centre.

    Not for global answers (classes): what the skip brings back is pooled away again.

    Args:
        channels: C, of the deep map.
        skip_channels: of the shallow map.
        out_channels: of what comes out; C by default.
        sigma: width of the centre, in units of half the picture's longer side; None takes the whole shallow map alike,
            as U-Net does.
        floor: what passes infinitely far from the fixation, in [0, 1).

    Raises:
        ValueError: for channels below 1, sigma or floor out of range; for a deep map with more cells than the shallow.

    Example:
        >>> fuse = create_block("center_skip_fusion", channels=32, skip_channels=8)
        >>> fuse(torch.rand(1, 32, 4, 4), torch.rand(1, 8, 16, 16)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        skip_channels: int,
        out_channels: int | None = None,
        sigma: float | None = 0.5,
        floor: float = 0.25,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if min(channels, skip_channels, out_channels) < 1:
            raise ValueError(
                f"channels {channels}, skip_channels {skip_channels}, out_channels {out_channels}: expected 1 or more"
            )
        if sigma is not None:
            refuse_impossible_weights(sigma, floor)
        self.sigma, self.floor = sigma, floor
        self.join = nn.Sequential(*_unit(channels + skip_channels, out_channels), *_unit(out_channels, out_channels))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """(B, C, h, w), (B, skip_channels, H, W) -> (B, out_channels, H, W)."""
        if self.sigma is not None:
            shallow = shallow * center_weights(shallow, self.sigma, self.floor)
        joined: Tensor = self.join(torch.cat([resized_like(deep, shallow), shallow], 1))
        return joined

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sigma={self.sigma}, floor={self.floor}"


def _unit(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]


BLOCKS = (Block("center_skip_fusion", CenterSkipFusion),)
