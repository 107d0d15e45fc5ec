"""Where the rim of every window's map comes from: which cells of which other windows, and how much of each.

After Berger and Oliger (1984), adaptive mesh refinement: a rim is filled from the finest other grid that covers it.
Worked out from the layout alone, once for each size of map and rim; no pixel is touched here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.layout import Layout
from foveal.rim_parts import around, rim_rows

Padding = tuple[int, int, int, int]  # left, right, top, bottom, as torch.nn.functional.pad counts

FEW_PAIRS = 1 << 12
"""Pairs of windows, of each of which it is looked how they lie to each other: those of 64 windows of one picture, or of
five windows of 160 pictures; measured at up to 256 pictures of three, three to four times as fast."""

_ENTRIES = 1 << 22  # of a temporary table, so that a thousand windows need no more memory than a few


@dataclass(frozen=True)
class HaloTable:
    """Where the rim of one map comes from; rows count cells of all windows of the batch, one after the other.

    Args:
        target: (R,) int64, rows of the padded maps.
        source: (R, 4) int64, rows of the unpadded maps.
        weight: (R, 4) float64, how much of each source; they add up to 1.
        covered: (R,) bool, False where no window covers the cell; None where every row is covered.
    """

    target: Tensor
    source: Tensor
    weight: Tensor
    covered: Tensor | None


def halo_table(layout: Layout, n: int, padding: Padding, *, batch: int | None = None) -> HaloTable:
    """The table of a rim of `padding` around maps of `n x n` cells.

    A rim cell takes its value by bilinear interpolation from the finest other window of equal or coarser level that
    covers its centre (ties: the first in the layout), clamped to that window's edge cells.

    Args:
        layout: for one picture or a batch.
        n: cells along the side of the map.
        padding: (left, right, top, bottom) in cells.
        batch: pictures in the batch, where one layout serves them all.
    """
    if _are_few(layout):
        return _from_parts(layout, n, padding, len(layout) if batch is None else batch)
    left, right, top, bottom = padding
    device = layout.origins.device
    pictures, windows = layout.levels.shape
    height, width = n + top + bottom, n + left + right
    rim = _rim_cells(n, padding, device)
    near, real = _sources(layout, n, padding)

    # From here on one axis counts the windows of all pictures, so that they can be worked through a few at a time.
    pixels, origins = layout.cell_pixels(n).flatten(), layout.origins.flatten(0, 1)
    first = torch.arange(pictures, device=device)[:, None, None] * windows
    near, real = (near + first).flatten(0, 1), real.flatten(0, 1)
    cells = torch.stack([rim // width - top, rim % width - left]) + 0.5  # (2, M), the centres, in own cells
    parts = [
        _look_up(cells * pixels[part, None, None] + origins[part, :, None], origins, pixels, near[part], real[part], n)
        for part in _parts(len(near), len(rim) * near.shape[1])
    ]
    window, inside, weight, covered = (
        torch.cat(rows).unflatten(0, (pictures, windows)) for rows in zip(*parts, strict=True)
    )

    batch = pictures if batch is None else batch
    sample = torch.arange(batch, device=device)[:, None, None]
    place = torch.arange(windows, device=device)[:, None]
    source = (sample * windows + (window - first))[..., None] * (n * n) + inside
    target = (sample * windows + place) * (height * width) + rim
    shape = source.shape[:3]
    weight, covered = weight.expand(*shape, 4).flatten(0, 2), covered.expand(shape).flatten()
    target, source = target.flatten(), source.flatten(0, 2)
    if torch.compiler.is_compiling():  # a traced graph cannot know how many are covered
        return HaloTable(target, source, weight, covered)
    return HaloTable(target[covered], source[covered], weight[covered], None)


def _are_few(layout: Layout) -> bool:
    """Whether tables are made window by window: for few of a picture, steps over all at once are mostly overhead."""
    rows = layout.origins
    plain = not torch.compiler.is_compiling() and type(rows) is Tensor and rows.is_cpu
    return plain and len(layout) * layout.num_windows**2 <= FEW_PAIRS


def _from_parts(layout: Layout, n: int, padding: Padding, batch: int) -> HaloTable:
    """The same table, put together from parts that other tables have, too."""
    left, right, top, bottom = padding
    places = layout.origins, layout.levels, layout.valid
    pictures = layout.remembered("around", lambda: [*map(around, *(rows.tolist() for rows in places))])
    target, source, weight = map(torch.from_numpy, rim_rows(layout.size, pictures, n, padding))
    more = batch // len(layout)
    if more != 1:
        again = torch.arange(more)[:, None] * layout.num_windows
        target = (again * ((n + top + bottom) * (n + left + right)) + target).flatten()
        source = (again[..., None] * (n * n) + source).flatten(0, 1)
        weight = weight.repeat(more, 1)
    return HaloTable(target, source, weight, None)


def _rim_cells(n: int, padding: Padding, device: torch.device) -> Tensor:
    """(M,): which cells of a padded map, counted row by row, are its rim."""
    left, right, top, bottom = padding
    height, width = n + top + bottom, n + left + right
    grid = torch.arange(height * width, device=device).view(height, width)
    middle = grid[top : top + n]
    beside = torch.cat([middle[:, :left], middle[:, left + n :]], 1)
    return torch.cat([grid[:top].flatten(), beside.flatten(), grid[top + n :].flatten()])


def _sources(layout: Layout, n: int, padding: Padding) -> tuple[Tensor, Tensor]:
    """Which windows each window's rim may read: those of its level or coarser that its padded map touches.

    Returns:
        near: (B, K, N) int64 places in the layout, the finest first, then the first in the layout.
        real: (B, K, N) bool, False for places that only fill the table.
    """
    left, right, top, bottom = padding
    device, windows = layout.origins.device, layout.num_windows
    pixels, start = layout.cell_pixels(n)[..., None], layout.origins.double()
    end = start + pixels * n
    low = start - pixels * torch.tensor([top, left], device=device)
    high = end + pixels * torch.tensor([bottom, right], device=device)
    touches = ((low[:, :, None] < end[:, None]) & (start[:, None] < high[:, :, None])).all(-1)  # (B, K, K)
    places = torch.arange(windows, device=device)
    coarser = layout.levels[:, None] >= layout.levels[..., None]
    other = touches & coarser & (places[:, None] != places) & layout.valid[:, None]
    rank = layout.levels * windows + places
    nobody = torch.iinfo(torch.int64).max
    near = torch.where(other, rank[:, None], nobody).argsort(-1)
    real = other.gather(-1, near)
    if not torch.compiler.is_compiling():
        most = max(1, int(other.sum(-1).max()))
        near, real = near[..., :most], real[..., :most]
    return near, real


def _parts(rows: int, entries: int) -> list[slice]:
    """Runs of rows, as many at a time as a temporary table of `entries` for each allows."""
    many = rows if torch.compiler.is_compiling() else max(1, _ENTRIES // max(1, entries))
    return [slice(first, min(first + many, rows)) for first in range(0, rows, many)]


def _look_up(
    places: Tensor, origins: Tensor, pixels: Tensor, near: Tensor, real: Tensor, n: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Finds T windows' rim cells in the first of their N possible sources that covers them.

    Args:
        places: (T, 2, M), the centres of the rim cells, in pixels.
        origins: (W, 2) of all windows; pixels: (W,), the sides of their cells.
        near: (T, N), which of the W windows to look in, best first; real: (T, N), False for none.
        n: cells along the side of the map.

    Returns:
        window (T, M), inside (T, M, 4) cells of it, weight (T, M, 4), covered (T, M).
    """
    most = near.shape[1]
    seen = (places[:, None] - origins[near][..., None]) / pixels[near][..., None, None]  # (T, N, 2, M), their cells
    covers = ((seen >= 0) & (seen < n)).all(2) & real[..., None]
    best = torch.where(covers, torch.arange(most, device=near.device)[:, None], most).amin(1)  # (T, M)
    covered = best < most
    best = best.clamp(max=most - 1)
    window = near.gather(1, best)

    at = seen.gather(1, best[:, None, None].expand(-1, -1, 2, -1)).squeeze(1) - 0.5  # (T, 2, M)
    low = at.floor()
    part = at - low
    (top, left), (bottom, right) = (side.clamp(0, n - 1).long().unbind(1) for side in (low, low + 1))
    inside = torch.stack([top * n + left, top * n + right, bottom * n + left, bottom * n + right], -1)
    (down, across), (up, back) = part.unbind(1), (1 - part).unbind(1)
    weight = torch.stack([up * back, up * across, down * back, down * across], -1)
    return window, inside, weight, covered


def as_padding(padding: int | Padding) -> Padding:
    """(left, right, top, bottom) from an int or four of them."""
    rims = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * 4
    if len(rims) != 4 or not all(isinstance(rim, int) and type(rim) is not bool and rim >= 0 for rim in rims):
        raise ValueError(f"padding {padding}: expected an int or (left, right, top, bottom), each 0 or more")
    return rims


def rim_of(
    n: int,
    *,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, ...] = 1,
) -> Padding:
    """The rim (left, right, top, bottom) that a sliding kernel needs so that `n` cells give `n / stride`.

    The left and top rim is the layer's own padding; the right and bottom one is what the last position reaches,
    also where the layer itself is unpadded ("valid").

    Raises:
        ValueError: if `n` is not a multiple of the stride, or the kernel fits into the padding.

    Example:
        >>> rim_of(32, kernel=7, stride=2, padding=3)
        (3, 2, 3, 2)
    """
    rims: list[int] = []
    for k, s, p, d in zip(pair(kernel), pair(stride), pair(padding), pair(dilation), strict=True):
        if n % s:
            raise ValueError(
                f"a map of {n} x {n} cells meets a stride of {s}, which does not divide it; "
                f"choose a window size that is a multiple of the network's stride"
            )
        reach = d * (k - 1) + 1
        if p >= reach:
            raise ValueError(f"a kernel that reaches {reach} cells fits into a padding of {p}; use less than {reach}")
        rims += [p, max(0, reach - s - p)]
    top, bottom, left, right = rims
    return left, right, top, bottom


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(along y, along x) from one number for both, or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
