"""Augmentation: crops of random scale around the fixation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.registry import Block


class RandomCenterCrop(nn.Module):
    """A square around the fixation, its side a random part of the picture's shorter one, brought to `size x size`.

    In training the side is `s * min(H, W)` with s even in `scale`, and the crop's centre lies off the fixation by up to
    `jitter` times the side, evenly along each axis; every picture of a batch is cropped for itself. In evaluation it is
    the largest crop of the range, on the fixation. A crop never leaves the picture: near its edge it is moved inside.
    Random scale as in Inception's training (Szegedy et al. 2015); there the place is anywhere.

    Shapes: `(B, C, H, W) -> (B, C, size, size)`.

    Parameters: 0.

    Use it to train on objects of any size for pictures that were taken, or looked at, with the object in the middle.

    Not where objects lie anywhere and nothing says where: crops would show their surroundings. It cannot be run on
    glimpses, which are looks already; crop pictures first.

    Args:
        size: side of what comes out, in pixels.
        scale: the least and the largest side of a crop, as a part of the picture's shorter side, in (0, 1].
        jitter: the farthest that a crop's centre lies off the fixation, in sides of the crop, 0 or more.

    Raises:
        ValueError: for a size below 1, or scale or jitter out of range; for pictures that are not (B, C, H, W), or a
            fixation of another shape.

    Example:
        >>> create_block("random_center_crop", size=32)(torch.rand(2, 3, 60, 80)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, size: int, *, scale: tuple[float, float] = (0.5, 1.0), jitter: float = 0.1) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size is {size!r}; expected a whole number of pixels, at least 1")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"scale is {scale!r}; expected the least and the largest part of the shorter side, in (0, 1]"
            )
        if not 0 <= jitter < float("inf"):
            raise ValueError(f"jitter is {jitter!r}; expected 0 or more, in sides of the crop")
        self.size, self.scale, self.jitter = size, (float(scale[0]), float(scale[1])), jitter

    def boxes(self, x: Tensor, *, fixation: Tensor | None = None) -> Tensor:
        """Draws where to crop.

        Args:
            x: (B, C, H, W), of which only the shape counts.
            fixation: (B, 2) or (2,), (y, x) relative to the picture; its centre by default.

        Returns:
            (B, 4) int64: top, left, height and width, in pixels.
        """
        if x.ndim != 4:
            raise ValueError(f"pictures have shape {tuple(x.shape)}; expected (B, C, H, W)")
        batch, sides = len(x), torch.tensor(x.shape[-2:], dtype=torch.float64)
        places = torch.as_tensor((0.5, 0.5) if fixation is None else fixation, dtype=torch.float64, device="cpu")
        if places.shape not in ((2,), (batch, 2)):
            raise ValueError(f"fixation has shape {tuple(places.shape)}; expected (2,) or ({batch}, 2), y and x each")
        least, largest = self.scale
        parts, off = torch.full((batch, 1), largest, dtype=torch.float64), torch.zeros(batch, 2, dtype=torch.float64)
        if self.training:
            parts = least + (largest - least) * torch.rand(batch, 1, dtype=torch.float64)
            off = (2 * torch.rand(batch, 2, dtype=torch.float64) - 1) * self.jitter
        side = (parts * sides.min()).round().clamp(min=1)  # (B, 1)
        corner = (places * sides + off * side - side / 2).round()
        corner = corner.clamp(min=torch.zeros(2, dtype=torch.float64), max=sides - side)
        return torch.cat([corner, side, side], 1).long()

    def forward(self, x: Tensor, *, fixation: Tensor | None = None) -> Tensor:
        """(B, C, H, W) floats -> (B, C, size, size), bilinear, antialiased where it shrinks."""
        crops = [x.new_empty(0, x.shape[1], self.size, self.size)] if x.ndim == 4 and not len(x) else []
        for picture, (top, left, height, width) in zip(x, self.boxes(x, fixation=fixation).tolist(), strict=True):
            crop = picture[None, :, top : top + height, left : left + width]
            if (height, width) != (self.size, self.size):
                precise = crop.to(torch.promote_types(x.dtype, torch.float32))  # antialiasing knows no half precision
                crop = F.interpolate(precise, (self.size, self.size), mode="bilinear", antialias=True).to(x.dtype)
            crops.append(crop)
        return torch.cat(crops)

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"size={self.size}, scale={self.scale}, jitter={self.jitter}"


BLOCKS = (Block("random_center_crop", RandomCenterCrop),)
