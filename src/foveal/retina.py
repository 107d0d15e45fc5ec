"""The retina: pictures and a layout in, a glimpse out. Every cell is the exact area average of its pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.arguments import whole_number
from foveal.batch_windows import batch_windows, can_look_together
from foveal.layout import Layout
from foveal.picture import Picture, open_picture
from foveal.span import Span

FEW_PICTURES = 8
"""Layouts of larger batches are not kept for the next batch: it is hardly ever of the same sizes."""

_STRIP_PIXELS = 1 << 19  # averaged at a time: temporaries that stay in a processor's cache


@dataclass(frozen=True)
class Glimpse:
    """What one look at each picture of a batch has seen.

    Args:
        pixels: (B, K, C, S, S) float, normalised if the retina normalises; 0 outside the picture.
        layout: where the K windows lie.
        mean, std: (C,) of the normalisation, None where there was none.

    Raises:
        ValueError: if the pixels are not those of the layout's windows.
    """

    pixels: Tensor
    layout: Layout
    mean: Tensor | None = None
    std: Tensor | None = None

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # what is compared here would be fixed in the graph
            return
        size, windows, pictures = self.layout.size, self.layout.num_windows, len(self.layout)
        shape = tuple(self.pixels.shape)
        if len(shape) != 5 or shape[1] != windows or shape[3:] != (size, size) or pictures not in (1, shape[0]):
            raise ValueError(
                f"pixels have shape {shape}; expected ({pictures}, {windows}, C, {size}, {size}), as the layout has "
                f"{windows} windows of {size} x {size} cells for {pictures} picture(s)"
            )

    def render(self, height: int, width: int) -> Tensor:
        """Draws what was seen: at each place the finest cell that covers it.

        Args:
            height, width: of the drawing, in pixels; the whole picture is drawn into it.

        Returns:
            (B, C, height, width) float, as the pixels were before normalisation; 0 where no window looked.
        """
        height, width = whole_number(height, "height", 1), whole_number(width, "width", 1)
        pixels = self.pixels
        if self.mean is not None and self.std is not None:
            pixels = pixels * self.std.to(pixels).view(-1, 1, 1) + self.mean.to(pixels).view(-1, 1, 1)
        return draw(pixels, self.layout, height, width)


def draw(maps: Tensor, layout: Layout, height: int, width: int) -> Tensor:
    """The whole picture, at each place the finest value that there is.

    Args:
        maps: (B, K, C, n, n) float.
        layout: of the K windows.
        height, width: of the drawing.

    Returns:
        (B, C, height, width), 0 where no window lies; differentiable with respect to the maps.
    """
    n, layout = maps.shape[-1], layout.to(maps.device)
    steps = [torch.arange(side, dtype=torch.float64, device=maps.device) + 0.5 for side in (height, width)]
    # Divided last: a place that falls on the edge of a cell falls on it exactly.
    places = [step * layout.pictures[:, axis, None] / len(step) for axis, step in enumerate(steps)]  # (B, P), pixels
    window = _finest(layout, places)  # (B, height, width)
    seen = window >= 0
    window = window.clamp(min=0)
    sample = torch.arange(len(layout), device=maps.device)[:, None, None]
    origin, cell = layout.origins[sample, window], layout.cell_pixels(n)[sample, window]
    row = ((places[0][:, :, None] - origin[..., 0]) / cell).floor().clamp(0, n - 1).long()
    column = ((places[1][:, None] - origin[..., 1]) / cell).floor().clamp(0, n - 1).long()
    index = (window * n + row) * n + column  # (B or 1, height, width), into the cells of a picture
    batch = torch.arange(len(maps), device=maps.device)[:, None, None] * layout.num_windows * n * n
    rows = maps.permute(0, 1, 3, 4, 2).reshape(-1, maps.shape[2])
    drawing = F.embedding(batch + index, rows)
    return torch.where(seen[..., None], drawing, 0.0).permute(0, 3, 1, 2)


def _finest(layout: Layout, places: list[Tensor]) -> Tensor:
    """(B, height, width) int64: which window is the finest at each place, -1 where none looked.

    Args:
        layout: of B pictures.
        places: (B, height) and (B, width) float64, the rows and columns of a drawing, in pixels of the picture.
    """
    starts = layout.origins.double()
    ends = starts + (layout.size << layout.levels)[..., None]
    down, across = (
        (starts[:, :, axis, None] <= place[:, None]) & (place[:, None] < ends[:, :, axis, None])
        for axis, place in enumerate(places)
    )  # (B, K, height), (B, K, width)
    down = down & layout.valid[..., None]
    finest = torch.full((len(layout), down.shape[2], across.shape[2]), -1, dtype=torch.int32, device=starts.device)
    # Painted from the coarsest to the finest; of one level the first in the layout is painted last.
    rank = layout.levels * layout.num_windows + torch.arange(layout.num_windows, device=starts.device)
    order = rank.argsort(1, descending=True)
    down, across = (side.gather(1, order[..., None].expand_as(side)) for side in (down, across))
    for rows, columns, window in zip(down.unbind(1), across.unbind(1), order.int().unbind(1), strict=True):
        finest = torch.where(rows[:, :, None] & columns[:, None], window[:, None, None], finest)
    return finest.long()


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
        Layout.foveal(picture=(1, 1), size=size, levels=levels)  # refuses an impossible size or number of levels
        if not isinstance(enlarge, bool):
            raise ValueError(f"enlarge is {enlarge!r}; expected True or False")
        self.size, self.levels, self.enlarge = size, levels, enlarge
        self.mean = None if mean is None else _channel_values(mean, "mean")
        self.std = None if std is None else _channel_values(std, "std")
        if self.mean is not None and self.std is not None:
            if self.mean.shape != self.std.shape:
                raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}; one for each channel each")
            if not bool((self.std > 0).all()):
                raise ValueError(f"std is {self.std.tolist()}; every value must be above 0")

    def __call__(self, pictures: Any, fixation: Any = "center", *, layout: Layout | None = None) -> Glimpse:
        """One look at each picture.

        Args:
            pictures: anything that `open_picture` takes, a list of such, or a tensor (B, C, H, W). uint8 is divided by
                255, floats pass unscaled and unclamped; gradients flow to float tensors.
            fixation: "center", (y, x) or (B, 2), relative to the picture; not with `layout`.
            layout: of the windows, for one picture or the batch; a foveal one by default. A picture is read at the size
                that the layout says, whatever its own.

        Returns:
            A glimpse, pixels (B, K, C, S, S).

        Raises:
            PictureError: if a picture cannot be read.
            ValueError: for an impossible fixation or layout, or pictures of unlike channels, or of more or fewer than
                `mean` has.
        """
        opened = opened_pictures(pictures)
        if layout is None:
            sides = [(picture.height, picture.width) for picture in opened]
            point = isinstance(fixation, tuple) and all(type(value) is float for value in fixation)
            plain = isinstance(fixation, str) or point
            chain = _known_chain if plain and len(sides) <= FEW_PICTURES else _chain
            layout = chain(tuple(sides), self.size, self.levels, fixation, self.enlarge)
            if len(layout) > len(opened):
                raise ValueError(f"{len(layout)} fixations for {len(opened)} pictures; give one, or one for each")
        elif not isinstance(layout, Layout):
            raise ValueError(f"layout is a {type(layout).__name__}; expected a foveal.Layout")
        elif not (isinstance(fixation, str) and fixation == "center"):
            raise ValueError("a layout already says where to look; give fixation or layout, not both")
        if len(layout) not in (1, len(opened)):
            raise ValueError(f"a layout for {len(layout)} pictures cannot look at {len(opened)}")
        if len(layout) == 1 and len(opened) > 1:
            layout = Layout.stack([layout] * len(opened))
        channels = sorted({picture.channels for picture in opened})
        if len(channels) != 1:
            raise ValueError(f"pictures of {channels} channels cannot share a batch")
        if self.mean is not None and len(self.mean) != channels[0]:
            raise ValueError(f"mean has {len(self.mean)} values, but the pictures have {channels[0]} channels")
        if can_look_together(pictures, layout):
            x = self._normalised(batch_windows(pictures, layout))
            inside = layout.inside(layout.size)[:, :, None].to(x.device)
            return Glimpse(torch.where(inside, x, 0.0), layout, self.mean, self.std)
        seen = [self._look(picture, layout, sample) for sample, picture in enumerate(opened)]
        return Glimpse(torch.stack(seen), layout, self.mean, self.std)

    def _normalised(self, x: Tensor) -> Tensor:
        """(..., C, S, S)."""
        if self.mean is None or self.std is None:
            return x
        return (x - self.mean.to(x).view(-1, 1, 1)) / self.std.to(x).view(-1, 1, 1)

    def _look(self, picture: Picture, layout: Layout, sample: int) -> Tensor:
        """(K, C, S, S): the windows of one picture."""
        height, width = layout.pictures[sample].tolist()
        scales = picture.height / height, picture.width / width
        like = picture.read(0, 0, 1, 1)  # its dtype and device, and whether gradients flow
        windows = list(zip(layout.origins[sample].tolist(), layout.levels[sample].tolist(), strict=True))
        seen = []
        for origin, level in reversed(windows):  # the coarsest first: what it holds of a file serves the finer ones
            steps = [(1 << level) * scale for scale in scales]
            starts = [start * scale for start, scale in zip(origin, scales, strict=True)]
            whole = [
                Span(start, step, layout.size, side)
                for start, step, side in zip(starts, steps, (picture.height, picture.width), strict=True)
            ]
            shrink = picture.best_shrink(*whole)
            read = (
                whole
                if shrink == 1
                else [_shrunk(span, picture.sizes[shrink][n], shrink) for n, span in enumerate(whole)]
            )
            seen.append(self._window(picture, whole, read, like, shrink))
        return torch.stack(seen[::-1])

    def _window(
        self, picture: Picture, whole: Sequence[Span], read: Sequence[Span], like: Tensor, shrink: int
    ) -> Tensor:
        rows, columns = read
        strips = [rows]
        if not (rows.empty or columns.empty):
            box = (rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
            picture.hold(*box, shrink=shrink)
        # Floats are averaged as they lie, so there is no copy of them to keep in the cache; and the gradient of every
        # strip would be as large as the picture.
        if not like.requires_grad and not (like.is_floating_point() and rows.whole):
            strips = rows.split(max(1, _STRIP_PIXELS // max(1, columns.last - columns.first)))
        x = torch.cat([_cells(picture, strip, columns, like, shrink) for strip in strips], -2)
        if shrink > 1:
            x = _to_the_edge(_to_the_edge(x, whole[0], rows, -2), whole[1], columns, -1)
        x = self._normalised(x)
        if whole[0].overhangs or whole[1].overhangs:
            inside = whole[0].inside[:, None] & whole[1].inside
            x = torch.where(inside.to(x.device), x, 0.0)
        return x


def _chain(
    sides: tuple[tuple[int, int], ...], size: int, levels: int | Literal["auto"], fixation: Any, enlarge: bool
) -> Layout:
    with torch.inference_mode(False):  # it may be kept, and used in training later
        return Layout.foveal(picture=sides, size=size, levels=levels, fixation=fixation, enlarge=enlarge)


_known_chain = functools.lru_cache(maxsize=64)(_chain)  # most pictures are looked at alike


def _shrunk(span: Span, side: int, shrink: int) -> Span:
    """The same cells in the pixels of a smaller copy, whose last row may be a whole one, a part, or left out."""
    ratio = float(shrink) if abs(span.side / shrink - side) < 1 else span.side / side
    return Span(span.start / ratio, span.step / ratio, span.count, side)


def _to_the_edge(x: Tensor, whole: Span, read: Span, dim: int) -> Tensor:
    """Where a smaller copy ends before the picture does, its last cells go on."""
    held = int(read.inside.sum())
    if not held or held >= int(whole.inside.sum()):
        return x
    return x.index_select(dim, torch.arange(x.shape[dim], device=x.device).clamp(max=held - 1))


def _cells(picture: Picture, rows: Span, columns: Span, like: Tensor, shrink: int) -> Tensor:
    """(C, rows, columns) float: the averages of the pixels that each cell holds, 0 where it holds none."""
    if rows.empty or columns.empty:
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return like.new_zeros(picture.channels, rows.count, columns.count, dtype=dtype)
    box = (rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
    x = picture.read(*box, shrink=shrink)
    whole = not x.is_floating_point()
    if x.stride(0) == 1:  # channels last, as images are decoded: averaged as they lie
        x = x.permute(1, 2, 0)
        cells = columns.average(rows.average(x.float() if whole else x, 0), 1).permute(2, 0, 1)
    else:
        cells = columns.average(rows.average(x.float() if whole else x, 1), 2)
    return cells / 255 if whole else cells


def _channel_values(values: Any, name: str) -> Tensor:
    """(C,) float32, finite."""
    try:
        rows = torch.as_tensor(values, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {values!r}; expected a number for each channel") from error
    if rows.ndim != 1 or not len(rows) or not bool(rows.isfinite().all()):
        raise ValueError(f"{name} is {values!r}; expected a finite number for each channel")
    return rows


def opened_pictures(pictures: Any) -> list[Picture]:
    """One picture or several, as a retina takes them, opened."""
    if isinstance(pictures, Tensor) and pictures.ndim == 4:
        pictures = list(pictures)
    if not isinstance(pictures, (list, tuple)):
        pictures = [pictures]
    if not pictures:
        raise ValueError("no picture was given; the retina needs at least one")
    return [open_picture(picture) for picture in pictures]
