"""Halos: the rim of cells that a convolution needs around a window, filled from the windows around it.

After Berger and Oliger (1984), adaptive mesh refinement. Filling a rim is one weighted gather by a table worked out
from the layout once. So any layer, with its own unchanged weights, runs on any set of windows, and one window alone
runs the layer's original operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.halo_table import HaloTable, Padding, as_padding, halo_table, pair, rim_of
from foveal.layout import Layout
from foveal.scratch import scratch
from foveal.small_conv import conv_of_padded
from foveal.weighted_rows import weighted_rows
from foveal.winograd import TileTable, can_filter, filter_tiles, tile_tables, transform_kernel

__all__ = [
    "FoveatedAvgPool2d",
    "FoveatedConv2d",
    "FoveatedMaxPool2d",
    "HaloTable",
    "Padding",
    "area_mean",
    "fill",
    "filtered",
    "halo_pad",
    "halo_table",
    "padded_for_a_step",
    "rim_of",
]


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
        ValueError: if the batch is not that of the layout, or the maps are not square or not floats.

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
    table = _known_table(x, layout, padding, batch)
    if table.covered is None:
        return fill(x, table, padding, value)
    rows = _rows(x)
    values = (rows[table.source] * table.weight[..., None]).sum(1)
    values = torch.where(table.covered[:, None], values, value)
    left, right, top, bottom = padding
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom), value=value)
    filled = padded.reshape(-1, x.shape[1]).index_copy(0, table.target, values)
    return filled.view(padded.shape).permute(0, 3, 1, 2)


def padded_for_a_step(x: Tensor, layout: Layout, padding: int | Padding, value: float = 0.0) -> Tensor:
    """`halo_pad` for a kernel that runs at once: where no gradient is kept, in memory that the next call writes over.

    Arguments, result and errors are those of `halo_pad`; the result must not be kept.
    """
    padding = as_padding(padding)
    lasting = torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu"
    if lasting or layout.num_windows == 1 or not any(padding):
        return halo_pad(x, layout, padding, value)
    batch = _batch_of(x, layout)
    table = _known_table(x, layout, padding, batch)
    left, right, top, bottom = padding
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    shape = (len(x), height, width, x.shape[1])
    held = scratch(_Held, (shape, value, x.dtype), lambda: _Held(torch.empty(shape, dtype=x.dtype)))
    if held.table is not table:  # what no window covers keeps its value as long as one table fills the rest
        held.maps.fill_(value)
        held.table = table
    padded = held.maps
    padded[:, top : height - bottom, left : width - right] = x.permute(0, 2, 3, 1)
    rim = weighted_rows(_rows(x), table.source, table.weight)
    padded.view(-1, x.shape[1]).index_copy_(0, table.target, rim)
    return padded.permute(0, 3, 1, 2)


@dataclass
class _Held:
    """A buffer for padded maps of one shape, and the table that fills its rim; other looks write over it."""

    maps: Tensor
    table: HaloTable | None = None

    @property
    def nbytes(self) -> int:
        return self.maps.nbytes


def filtered(x: Tensor, layout: Layout, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """A 3 x 3 convolution of stride 1 with its halo, where there is a faster way than padding; else None."""
    n, channels = x.shape[-1], max(weight.shape[:2])
    fits = weight.shape[1:] == (x.shape[1], 3, 3)  # another number of channels is for the convolution to refuse
    if layout.num_windows == 1 or not fits or not can_filter(x, weight, n):
        return None
    batch = _batch_of(x, layout)

    def compute() -> list[TileTable] | None:
        if torch.compiler.is_compiling():  # a graph for any layout does not know how long a table is
            return None
        return tile_tables(_known_table(x, layout, (1, 1, 1, 1), batch), len(x), n, channels)

    tables = layout.remembered(("tiles", n, channels, batch), compute)
    if tables is None:
        return None
    kernels = transform_kernel(weight) if torch.compiler.is_compiling() else None
    return filter_tiles(x, tables, weight, bias, n=n, kernels=kernels)


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
        # Rows first: of maps of 1 x 1 cells no memory format can be told, and `F.pad` would guess.
        left, right, top, bottom = padding
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom), value=value).contiguous()
        values = weighted_rows(_rows(x), table.source, table.weight)
        padded.view(-1, x.shape[1]).index_copy_(0, table.target, values)
        return padded.permute(0, 3, 1, 2)

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


def _known_table(x: Tensor, layout: Layout, padding: Padding, batch: int) -> HaloTable:
    key = ("halo", x.shape[-1], padding, batch, x.device, x.dtype)
    return layout.remembered(key, lambda: _table_for(x, layout, padding, batch))


def _table_for(x: Tensor, layout: Layout, padding: Padding, batch: int) -> HaloTable:
    table = halo_table(layout, x.shape[-1], padding, batch=batch)
    covered = None if table.covered is None else table.covered.to(x.device)
    return HaloTable(table.target.to(x.device), table.source.to(x.device), table.weight.to(x.device, x.dtype), covered)


def _batch_of(x: Tensor, layout: Layout) -> int:
    """The pictures in a batch of folded windows, refused where they are not the layout's."""
    windows = layout.num_windows
    if x.ndim != 4 or (windows > 1 and x.shape[-1] != x.shape[-2]) or not x.is_floating_point() or not x.shape[-1]:
        raise ValueError(f"maps have shape {tuple(x.shape)} and dtype {x.dtype}; expected floats (B * K, C, n, n)")
    if x.shape[0] % windows or len(layout) not in (1, x.shape[0] // windows):
        raise ValueError(
            f"{x.shape[0]} maps do not fit a layout of {windows} windows for {len(layout)} picture(s); "
            f"fold the windows into the batch: (B, K, C, n, n) -> (B * K, C, n, n)"
        )
    return x.shape[0] // windows


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
        padding = 0 if self.padding == "valid" else self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            raise ValueError(
                f"padding {self.padding!r} with mode {self.padding_mode!r}: several windows need zero padding, in cells"
            )
        stride, dilation = pair(self.stride), pair(self.dilation)
        if stride == dilation == pair(padding) == (1, 1) and self.groups == 1:
            result = filtered(x, layout, self.weight, self.bias)
            if result is not None:
                return result
        rim = rim_of(x.shape[-1], kernel=self.kernel_size, stride=stride, padding=padding, dilation=dilation)
        padded = padded_for_a_step(x, layout, rim)
        return conv_of_padded(padded, self.weight, self.bias, stride, dilation, self.groups)


class FoveatedMaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` whose rim comes from the windows around; what none covers never wins.

    Example:
        >>> layout = Layout.tiling(picture=(32, 32), size=16)
        >>> FoveatedMaxPool2d(3, 2, padding=1)(torch.rand(4, 8, 16, 16), layout).shape
        torch.Size([4, 8, 8, 8])
    """

    def forward(self, x: Tensor, layout: Layout, *, halo: bool = True) -> Tensor:  # type: ignore[override]
        """(B * K, C, n, n) -> (B * K, C, n / stride, n / stride)."""
        if layout.num_windows == 1 or not halo:
            return super().forward(x)
        if self.return_indices:
            raise ValueError("return_indices=True: with several windows the largest may lie in another; leave it out")
        rim = rim_of(
            x.shape[-1], kernel=self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation
        )
        padded = padded_for_a_step(x, layout, rim, value=float("-inf"))
        return F.max_pool2d(padded, self.kernel_size, self.stride, 0, self.dilation)


class FoveatedAvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` whose rim comes from the windows around.

    What counts in the average is what counts there: padding with `count_include_pad` (the default), cells beyond
    the padding that `ceil_mode` reaches never.

    Example:
        >>> layout = Layout.tiling(picture=(32, 32), size=16)
        >>> FoveatedAvgPool2d(2)(torch.rand(4, 8, 16, 16), layout).shape
        torch.Size([4, 8, 8, 8])
    """

    def forward(self, x: Tensor, layout: Layout, *, halo: bool = True) -> Tensor:  # type: ignore[override]
        """(B * K, C, n, n) -> (B * K, C, n / stride, n / stride)."""
        if layout.num_windows == 1 or not halo:
            return super().forward(x)
        rim = rim_of(x.shape[-1], kernel=self.kernel_size, stride=self.stride, padding=self.padding)
        padded = padded_for_a_step(x, layout, rim)
        pooled = F.avg_pool2d(padded, self.kernel_size, self.stride, 0, divisor_override=self.divisor_override)
        below, beside = pair(self.padding)
        if self.divisor_override or (self.count_include_pad and rim[1] <= beside and rim[3] <= below):
            return pooled
        return pooled / self._counted(x, layout, rim)

    def _counted(self, x: Tensor, layout: Layout, rim: Padding) -> Tensor:
        """(B * K, 1, n / stride, n / stride): the part of each average that counts."""

        def compute() -> Tensor:
            n, padding = x.shape[-1], pair(self.padding)
            held = halo_pad(x.new_ones(len(layout) * layout.num_windows, 1, n, n), layout, rim)
            if self.count_include_pad:
                held = with_dense_padding(held, layout, n, padding, padding)
            return F.avg_pool2d(held, self.kernel_size, self.stride)

        key = ("counted", rim, x.shape[-1], x.device, x.dtype, self.kernel_size, self.stride, self.count_include_pad)
        return layout.remembered((*key, self.padding), compute).repeat(_batch_of(x, layout) // len(layout), 1, 1, 1)


def with_dense_padding(
    held: Tensor, layout: Layout, n: int, before: tuple[int, int], after: tuple[int, int], ends: Tensor | None = None
) -> Tensor:
    """Padded maps with ones where the dense network's own padding lies, around the whole map and not around a window.

    Args:
        held: (B * K, 1, n + ..., n + ...), with `before` as the rim at the left and top.
        layout: of the windows.
        n: cells along a window's side.
        before: the padding in cells, (y, x); likewise `after`.
        ends: (B, K, 2), where the dense map ends along y and x, in cells of each window's level; by default where the
            last window does.
    """
    size = layout.cell_pixels(n)[..., None]
    if ends is None:
        span = (layout.size << layout.levels)[..., None]
        ends = torch.where(layout.valid[..., None], layout.origins + span, 0).amax(1, keepdim=True) / size
    first, last = (layout.origins / size).flatten(0, 1), ends.flatten(0, 1).double()  # (B * K, 2)
    sides = []
    for axis in (0, 1):
        cells = torch.arange(held.shape[2 + axis], dtype=torch.float64, device=first.device) - before[axis]
        place = first[:, axis, None] + cells
        sides.append((place > -before[axis] - 0.5) & (place < last[:, axis, None] + after[axis] - 0.25))
    padded = sides[0][:, None, :, None] & sides[1][:, None, None, :]
    return torch.where(padded.to(held.device), torch.ones_like(held), held)


def area_mean(x: Tensor, layout: Layout) -> Tensor:
    """Mean over the picture: every cell weighs what it alone stands for of it.

    Args:
        x: (B * K, C, n, n).
        layout: of the same windows.

    Returns:
        (B, C). One window that the picture fills runs the ordinary mean; windows that hold nothing of it give 0.
    """
    batch, n = _batch_of(x, layout), x.shape[-1]
    if layout.num_windows == 1 and _fills(layout):
        return x.mean((2, 3))
    areas = layout.areas(n).double()  # in half precision an area could be infinite
    share = areas / areas.sum((1, 2, 3), keepdim=True).clamp(min=1e-9)
    # A share of a large picture is out of the range of half precision.
    maps = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weight = share.to(maps).expand(batch, -1, -1, -1)
    return torch.einsum("bkchw,bkhw->bc", maps.view(batch, layout.num_windows, *x.shape[1:]), weight).to(x.dtype)


def _fills(layout: Layout) -> bool:
    """Whether every picture fills its only window, so that all areas are equal."""
    if torch.compiler.is_compiling():  # a traced graph cannot know it; the weights are equal, then
        return False
    covered = layout.size << layout.levels
    return layout.remembered("fills", lambda: bool((layout.origins == 0).all() and (layout.pictures == covered).all()))
