"""The retina: pictures and a layout in, a glimpse out. Every cell is the exact area average of its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.layout import Layout
from foveal.picture import Picture, open_picture


@dataclass(frozen=True)
class Glimpse:
    """What one look at each picture of a batch has seen.

    Args:
        pixels: (B, K, C, S, S) float, normalised if the retina normalises; 0 outside the picture.
        layout: where the K windows lie.
        mean, std: (C,) of the normalisation, None where there was none.
    """

    pixels: Tensor
    layout: Layout
    mean: Tensor | None = None
    std: Tensor | None = None

    def render(self, height: int, width: int) -> Tensor:
        """Draws what was seen: at each place the finest cell that covers it.

        Args:
            height, width: of the drawing, in pixels; the whole picture is drawn into it.

        Returns:
            (B, C, height, width) float, as the pixels were before normalisation; 0 where no window looked.
        """
        layout, size = self.layout, self.layout.size
        pixels = self.pixels
        if self.mean is not None and self.std is not None:
            pixels = pixels * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        steps = [(torch.arange(side, dtype=torch.float64) + 0.5) / side for side in (height, width)]
        sides = layout.pictures.double()
        cells = torch.exp2(layout.levels.double())[..., None]
        cell, covered = [], []
        for axis in (0, 1):
            place = steps[axis] * sides[:, axis, None]  # (B, P), pixels
            at = ((place[:, None] - layout.origins[..., axis, None]) / cells).floor()  # (B, K, P)
            covered.append((at >= 0) & (at < size))
            cell.append(at.clamp(0, size - 1).long())
        seen = covered[0][..., :, None] & covered[1][..., None, :] & layout.valid[..., None, None]
        places = torch.arange(layout.num_windows)
        rank = (layout.levels * layout.num_windows + places)[..., None, None]
        window = torch.where(seen, rank, torch.iinfo(torch.int64).max).argmin(1)  # (B, height, width)
        row = cell[0][..., :, None].expand(*seen.shape).gather(1, window[:, None])[:, 0]
        column = cell[1][..., None, :].expand(*seen.shape).gather(1, window[:, None])[:, 0]
        sample = torch.arange(len(pixels))[:, None, None]
        drawing = pixels.permute(0, 1, 3, 4, 2)[sample, window, row, column]
        return (drawing * seen.any(1)[..., None]).permute(0, 3, 1, 2)


class Retina:
    """Looks at pictures: samples the windows of a layout, each cell the exact area average of its pixels.

    Args:
        size: cells along a window's side, S; a multiple of the network's stride.
        levels: windows of the foveal layout, or "auto": the fewest with native pixels in the fovea.
        mean, std: normalisation for each channel, for values from 0 to 1; None leaves the pixels as they are.
        enlarge: read a picture smaller than the widest window larger, so that it fills it.

    Example:
        >>> glimpse = Retina(size=64, levels=3)(torch.rand(3, 256, 256), fixation=(0.3, 0.7))
        >>> glimpse.pixels.shape
        torch.Size([1, 3, 3, 64, 64])
    """

    def __init__(
        self,
        size: int = 64,
        levels: int | Literal["auto"] = "auto",
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        enlarge: bool = False,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError("mean and std go together; give both or neither")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std is {list(std)}; every value must be above 0")
        self.size, self.levels, self.enlarge = size, levels, enlarge
        self.mean = None if mean is None else torch.tensor(list(mean))
        self.std = None if std is None else torch.tensor(list(std))

    def __call__(self, pictures: Any, fixation: Any = "center", *, layout: Layout | None = None) -> Glimpse:
        """One look at each picture.

        Args:
            pictures: anything that `open_picture` takes, a list of such, or a tensor (B, C, H, W). uint8 is divided by
                255, floats pass unscaled and unclamped; gradients flow to float tensors.
            fixation: "center", (y, x) or (B, 2), relative to the picture; not with `layout`.
            layout: of the windows, for one picture or the batch; a foveal one by default.

        Returns:
            A glimpse, pixels (B, K, C, S, S).

        Raises:
            PictureError: if a picture cannot be read.
            ValueError: for an impossible fixation or layout, or pictures of unlike channels.
        """
        opened = _opened(pictures)
        if layout is None:
            sides = [(picture.height, picture.width) for picture in opened]
            layout = Layout.foveal(
                picture=sides, size=self.size, levels=self.levels, fixation=fixation, enlarge=self.enlarge
            )
            if len(layout) > len(opened):
                raise ValueError(f"{len(layout)} fixations for {len(opened)} pictures; give one, or one for each")
        elif not (isinstance(fixation, str) and fixation == "center"):
            raise ValueError("a layout already says where to look; give fixation or layout, not both")
        if len(layout) not in (1, len(opened)):
            raise ValueError(f"a layout for {len(layout)} pictures cannot look at {len(opened)}")
        if len(layout) == 1 and len(opened) > 1:
            layout = Layout.stack([layout] * len(opened))
        channels = sorted({picture.channels for picture in opened})
        if len(channels) != 1:
            raise ValueError(f"pictures of {channels} channels cannot share a batch")
        seen = [self._look(picture, layout, sample) for sample, picture in enumerate(opened)]
        return Glimpse(torch.stack(seen), layout, self.mean, self.std)

    def _look(self, picture: Picture, layout: Layout, sample: int) -> Tensor:
        """(K, C, S, S): the windows of one picture."""
        height, width = layout.pictures[sample].tolist()
        scales = picture.height / height, picture.width / width
        windows = zip(layout.origins[sample].tolist(), layout.levels[sample].tolist(), strict=True)
        return torch.stack([self._window(picture, layout.size, origin, level, scales) for origin, level in windows])

    def _window(
        self, picture: Picture, size: int, origin: Sequence[int], level: int, scales: tuple[float, float]
    ) -> Tensor:
        spans = [
            _Span(start * scale, (1 << level) * scale, size, side)
            for start, scale, side in zip(origin, scales, (picture.height, picture.width), strict=True)
        ]
        rows, columns = spans
        if rows.empty or columns.empty:
            dtype = torch.get_default_dtype()
            return torch.zeros(picture.channels, size, size, dtype=dtype)
        x = picture.read(rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
        # Integers average exactly in float32 as long as their sums stay below 2**24.
        x = x if x.is_floating_point() else x.float() / 255
        x = columns.average(rows.average(x, -2), -1)
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.to(x).view(-1, 1, 1)) / self.std.to(x).view(-1, 1, 1)
        if rows.overhangs or columns.overhangs:
            inside = rows.inside[:, None] & columns.inside
            x = torch.where(inside, x, 0.0)
        return x


class _Span:
    """The pixels of one window along one axis: `count` cells of `step` pixels from `start`, the picture `side` long."""

    def __init__(self, start: float, step: float, count: int, side: int) -> None:
        self.start, self.step, self.count, self.side = start, step, count, side
        self.first = min(math.floor(start), side)
        self.last = min(math.ceil(start + step * count - 1e-9), side)
        self.empty = self.last <= self.first
        self.overhangs = start + step * count > side + 1e-9

    @property
    def inside(self) -> Tensor:
        """(count,) bool: which cells hold any of the picture."""
        return self.start + self.step * torch.arange(self.count, dtype=torch.float64) < self.side - 1e-9

    def average(self, x: Tensor, axis: int) -> Tensor:
        """The exact mean of the part of each cell that lies in the picture, along one axis of the pixels read."""
        if self.step == round(self.step) and self.start == self.first:
            return self._average_whole(x, axis)
        edges = self.start + self.step * torch.arange(self.count + 1, dtype=torch.float64)
        edges = edges.clamp(max=self.side)
        low, high = edges[:-1, None], edges[1:, None]
        pixel = low.floor() + torch.arange(math.ceil(self.step - 1e-9) + 1)
        share = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)
        share = (share / share.sum(1, keepdim=True).clamp(min=1e-12)).to(x.dtype)
        index = (pixel.long() - self.first).clamp(0, x.shape[axis] - 1)
        # One fused pass over the pixels: no copy of them for every tap is made.
        rows = x.movedim(axis, 0)
        cells = F.embedding_bag(index, rows.reshape(len(rows), -1), per_sample_weights=share, mode="sum")
        return cells.view(self.count, *rows.shape[1:]).movedim(0, axis)

    def _average_whole(self, x: Tensor, axis: int) -> Tensor:
        """The same where every cell holds whole pixels; the last ones may lack some."""
        step = int(self.step)
        missing = self.count * step - x.shape[axis]
        if missing:
            x = F.pad(x, (0, missing) if axis == -1 else (0, 0, 0, missing))
        if step == 1:
            return x
        cells = x.unflatten(axis, (self.count, step))
        if not missing:
            return cells.mean(axis)
        held = (x.shape[axis] - missing - step * torch.arange(self.count)).clamp(1, step).to(x.dtype)
        return cells.sum(axis) / (held if axis == -1 else held[:, None])


def _opened(pictures: Any) -> list[Picture]:
    if isinstance(pictures, Tensor) and pictures.ndim == 4:
        pictures = list(pictures)
    if not isinstance(pictures, (list, tuple)):
        pictures = [pictures]
    if not pictures:
        raise ValueError("no picture was given; the retina needs at least one")
    return [open_picture(picture) for picture in pictures]
