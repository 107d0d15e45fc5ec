"""Halos: the rim of cells that a convolution needs around a window, filled from the windows around it.

After Berger and Oliger (1984), adaptive mesh refinement. Where each rim cell comes from is a table worked out from
the layout once; filling it is then one weighted gather. So any layer, with its own unchanged weights, runs on any
set of windows, and one window alone runs the layer's original operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.layout import Layout

Padding = tuple[int, int, int, int]  # left, right, top, bottom, as torch.nn.functional.pad counts


@dataclass(frozen=True)
class HaloTable:
    """Where the rim of one map comes from; rows count cells of all windows of the batch, one after the other.

    Args:
        target: (R,) int64, rows of the padded maps.
        source: (R, 4) int64, rows of the unpadded maps.
        weight: (R, 4), how much of each source; they add up to 1.
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
    left, right, top, bottom = padding
    device = layout.origins.device
    pictures, windows = layout.levels.shape
    height, width = n + top + bottom, n + left + right
    grid = torch.arange(height * width, device=device)
    y, x = grid // width - top, grid % width - left
    rim = ~((y >= 0) & (y < n) & (x >= 0) & (x < n))
    # The number of rim cells is known without looking at any, which a traced graph needs.
    rim_cells = torch.argsort(rim, descending=True, stable=True)[: height * width - n * n]
    cell = torch.stack([y[rim_cells], x[rim_cells]], -1) + 0.5  # (M, 2), own cells

    pixels = layout.cell_pixels(n)  # (B, K)
    place = layout.origins[:, :, None] + cell * pixels[..., None, None]  # (B, K, M, 2), pixels
    seen = place[:, :, :, None] - layout.origins[:, None, None]  # (B, K, M, K, 2)
    seen = seen / pixels[:, None, None, :, None]  # the same places in every window's cells
    covers = ((seen >= 0) & (seen < n)).all(-1)
    ranks = torch.arange(windows, device=device)
    coarser = layout.levels[:, None] >= layout.levels[..., None]  # (B, K, K)
    other = coarser & (ranks[:, None] != ranks) & layout.valid[:, None]
    covers = covers & other[:, :, None]
    rank = layout.levels * windows + ranks  # finest first, then first in the layout
    best = torch.where(covers, rank[:, None, None], torch.iinfo(torch.int64).max).min(-1)
    window = best.indices  # (B, K, M)
    covered = covers.any(-1)

    at = seen.gather(3, window[..., None, None].expand(-1, -1, -1, 1, 2)).squeeze(3) - 0.5
    low = at.floor()
    part = at - low
    near = torch.stack([low, low + 1], -1).clamp(0, n - 1).long()  # (B, K, M, 2, 2): axis, low or high
    share = torch.stack([1 - part, part], -1)
    inside = (near[..., 0, :, None] * n + near[..., 1, None, :]).flatten(-2)  # (B, K, M, 4)
    weight = (share[..., 0, :, None] * share[..., 1, None, :]).flatten(-2)

    batch = batch or pictures
    sample = torch.arange(batch, device=device)[:, None, None]
    source = (sample * windows + window)[..., None] * (n * n) + inside
    target = (sample * windows + ranks[:, None]) * (height * width) + rim_cells
    shape = source.shape[:3]
    weight, covered = weight.expand(*shape, 4), covered.expand(shape)
    table = HaloTable(target.flatten(), source.flatten(0, 2), weight.flatten(0, 2), covered.flatten())
    if torch.compiler.is_compiling():
        return table
    kept = table.covered
    return HaloTable(table.target[kept], table.source[kept], table.weight[kept], None)


def as_padding(padding: int | Padding) -> Padding:
    """(left, right, top, bottom) from an int or four of them."""
    if isinstance(padding, int):
        return (padding,) * 4
    if len(padding) != 4:
        raise ValueError(f"padding {padding}: expected an int or (left, right, top, bottom)")
    return tuple(padding)  # type: ignore[return-value]


def halo_pad(x: Tensor, layout: Layout, padding: int | Padding, value: float = 0.0) -> Tensor:
    """Pads every window's map with a rim filled from the other windows of the same picture.

    Args:
        x: (B * K, C, n, n) float, windows folded into the batch; channels-last memory is fastest.
        layout: of the same K windows, for the same B pictures or one layout for all of them.
        padding: in cells, an int or (left, right, top, bottom).
        value: of rim cells that no window covers: what the network's own padding would be there.

    Returns:
        (B * K, C, n + top + bottom, n + left + right), in channels-last memory where there is a rim to fill.

    Raises:
        ValueError: if the batch is not that of the layout or the maps are not square.

    Example:
        >>> layout = Layout.tiling(picture=(8, 8), size=4)
        >>> halo_pad(torch.ones(4, 1, 4, 4), layout, 1).shape
        torch.Size([4, 1, 6, 6])
    """
    padding = as_padding(padding)
    batch = _batch_of(x, layout)
    if not any(padding):
        return x
    if layout.num_windows == 1:
        return F.pad(x, padding, value=value)
    key = ("halo", x.shape[-1], padding, batch, x.device, x.dtype)
    table = layout.remembered(key, lambda: _table_for(x, layout, padding, batch))
    if table.covered is None:
        return fill(x, table, padding, value)
    rows = _rows(x)
    values = (rows[table.source] * table.weight[..., None]).sum(1)
    values = torch.where(table.covered[:, None], values, value)
    padded = F.pad(x, padding, value=value).permute(0, 2, 3, 1)
    return _rows(padded.permute(0, 3, 1, 2)).index_copy(0, table.target, values).view(padded.shape).permute(0, 3, 1, 2)


def fill(x: Tensor, table: HaloTable, padding: Padding, value: float = 0.0) -> Tensor:
    """`halo_pad` by a table that is already at hand and covers every row: (N, C, n, n) -> (N, C, n + ..., n + ...)."""
    return _Fill.apply(x, table, padding, value)


def _rows(x: Tensor) -> Tensor:
    """(B * K, C, n, m) -> (B * K * n * m, C); a view of channels-last memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class _Fill(torch.autograd.Function):
    """Pads and fills the rim, written straight into one buffer. Linear, so `_Gather` is its gradient and it is its."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: HaloTable, padding: Padding, value: float) -> Tensor:
        ctx.table, ctx.padding = table, padding
        padded = F.pad(x.contiguous(memory_format=torch.channels_last), padding, value=value)
        values = F.embedding_bag(table.source, _rows(x), per_sample_weights=table.weight, mode="sum")
        padded.permute(0, 2, 3, 1).view(-1, x.shape[1]).index_copy_(0, table.target, values)
        return padded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Gather.apply(grads[0], ctx.table, ctx.padding), None, None, None


class _Gather(torch.autograd.Function):
    """The transpose of `_Fill`: every rim cell is added back to the cells that it was read from."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, table: HaloTable, padding: Padding) -> Tensor:
        ctx.table, ctx.padding = table, padding
        padded = padded.contiguous(memory_format=torch.channels_last)
        left, right, top, bottom = padding
        inside = padded[:, :, top : padded.shape[2] - bottom, left : padded.shape[3] - right]
        x = inside.clone(memory_format=torch.channels_last)
        rim = _rows(padded)[table.target]
        shares = (rim[:, None] * table.weight[..., None]).view(-1, x.shape[1])
        x.permute(0, 2, 3, 1).view(-1, x.shape[1]).index_add_(0, table.source.flatten(), shares)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Fill.apply(grads[0], ctx.table, ctx.padding, 0.0), None, None


def _table_for(x: Tensor, layout: Layout, padding: Padding, batch: int) -> HaloTable:
    table = halo_table(layout, x.shape[-1], padding, batch=batch)
    covered = None if table.covered is None else table.covered.to(x.device)
    return HaloTable(
        table.target.to(x.device), table.source.to(x.device), table.weight.to(x.device, x.dtype), covered
    )


def _batch_of(x: Tensor, layout: Layout) -> int:
    """The pictures in a batch of folded windows, refused where they are not the layout's."""
    windows = layout.num_windows
    if x.ndim != 4 or (windows > 1 and x.shape[-1] != x.shape[-2]):
        raise ValueError(f"maps have shape {tuple(x.shape)}; expected (B * K, C, n, n)")
    if x.shape[0] % windows or len(layout) not in (1, x.shape[0] // windows):
        raise ValueError(
            f"{x.shape[0]} maps do not fit a layout of {windows} windows for {len(layout)} picture(s); "
            f"fold the windows into the batch: (B, K, C, n, n) -> (B * K, C, n, n)"
        )
    return x.shape[0] // windows


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


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
        ValueError: if `n` is not a multiple of the stride.

    Example:
        >>> rim_of(32, kernel=7, stride=2, padding=3)
        (3, 2, 3, 2)
    """
    rims: list[int] = []
    for k, s, p, d in zip(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True):
        if n % s:
            raise ValueError(
                f"a map of {n} x {n} cells meets a stride of {s}, which does not divide it; "
                f"choose a window size that is a multiple of the network's stride"
            )
        rims += [p, max(0, d * (k - 1) + 1 - s - p)]
    top, bottom, left, right = rims
    return left, right, top, bottom


class FoveatedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` whose rim comes from the windows around; same arguments, same `state_dict` keys.

    One window alone, or `halo=False`, runs the ordinary convolution with its own padding.

    Example:
        >>> layout = Layout.tiling(picture=(32, 32), size=16)
        >>> FoveatedConv2d(3, 8, 3, padding=1)(torch.rand(4, 3, 16, 16), layout).shape
        torch.Size([4, 8, 16, 16])
    """

    def forward(self, x: Tensor, layout: Layout, *, halo: bool = True) -> Tensor:  # type: ignore[override]
        """(B * K, C_in, n, n) -> (B * K, C_out, n / stride, n / stride)."""
        if layout.num_windows == 1 or not halo:
            return super().forward(x)
        if isinstance(self.padding, str) or self.padding_mode != "zeros":
            raise ValueError(
                f"padding {self.padding!r} with mode {self.padding_mode!r}: several windows need zero padding, in cells"
            )
        rim = rim_of(
            x.shape[-1], kernel=self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation
        )
        padded = halo_pad(x, layout, rim)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class FoveatedMaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` whose rim comes from the windows around; what none covers never wins."""

    def forward(self, x: Tensor, layout: Layout, *, halo: bool = True) -> Tensor:  # type: ignore[override]
        """(B * K, C, n, n) -> (B * K, C, n / stride, n / stride)."""
        if layout.num_windows == 1 or not halo:
            return super().forward(x)
        rim = rim_of(
            x.shape[-1], kernel=self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation
        )
        padded = halo_pad(x, layout, rim, value=float("-inf"))
        return F.max_pool2d(padded, self.kernel_size, self.stride, 0, self.dilation)


class FoveatedAvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` whose rim comes from the windows around; padding counts, as in the default there."""

    def forward(self, x: Tensor, layout: Layout, *, halo: bool = True) -> Tensor:  # type: ignore[override]
        """(B * K, C, n, n) -> (B * K, C, n / stride, n / stride)."""
        if layout.num_windows == 1 or not halo:
            return super().forward(x)
        if not self.count_include_pad and any(_pair(self.padding)):
            raise ValueError("count_include_pad=False leaves the rim out of the average; several windows cannot")
        rim = rim_of(x.shape[-1], kernel=self.kernel_size, stride=self.stride, padding=self.padding)
        return F.avg_pool2d(
            halo_pad(x, layout, rim), self.kernel_size, self.stride, 0, divisor_override=self.divisor_override
        )


def area_mean(x: Tensor, layout: Layout) -> Tensor:
    """Mean over the picture: every cell weighs what it alone stands for of it.

    Args:
        x: (B * K, C, n, n).
        layout: of the same windows.

    Returns:
        (B, C). One window that the picture fills runs the ordinary mean.
    """
    batch, n = _batch_of(x, layout), x.shape[-1]
    if layout.num_windows == 1 and _fills(layout):
        return x.mean((2, 3))
    areas = layout.areas(n).to(x.device, x.dtype)
    weight = (areas / areas.sum((1, 2, 3), keepdim=True)).expand(batch, -1, -1, -1)
    maps = x.view(batch, layout.num_windows, *x.shape[1:])
    return torch.einsum("bkchw,bkhw->bc", maps, weight)


def _fills(layout: Layout) -> bool:
    """Whether every picture fills its only window, so that all areas are equal."""
    return layout.remembered("fills", lambda: bool((layout.pictures == layout.size).all()))
