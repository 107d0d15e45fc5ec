"""A narrow periphery: windows coarser than level 0 compute only the leading channels, by slicing the same weights.

Slimmable networks (Yu et al. 2019), with the width chosen by eccentricity. The saving is real: the convolutions of the
periphery are smaller dense ones. Coarse windows never read finer ones, so they need no channel that they lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.kept_norm import norm_kept
from foveal.halo import FoveatedConv2d, HaloTable, Padding, fill, halo_table, rim_of
from foveal.layout import Layout
from foveal.weighted_rows import weighted_rows
from foveal.winograd import TileTable, can_filter, filter_tiles, tile_tables


@dataclass(frozen=True)
class Split:
    """Maps of one batch, the fovea in full width and the periphery narrow.

    Args:
        fine: (F, C, n, n), all level-0 windows of the batch.
        coarse: (G, C', n, n), all others, with C' <= C leading channels.
    """

    fine: Tensor
    coarse: Tensor

    def relu(self) -> Split:
        return Split(self.fine.relu(), self.coarse.relu())

    def __add__(self, other: Split) -> Split:
        return Split(self.fine + other.fine, self.coarse + other.coarse)


def _rows_of(layout: Layout, batch: int) -> tuple[Tensor, Tensor]:
    """Which windows of the folded batch are fine, and which coarse: two (F,) and (G,) int64."""
    fine = (layout.levels == 0).expand(batch, -1).flatten()
    return fine.nonzero()[:, 0], (~fine).nonzero()[:, 0]


def split(x: Tensor, layout: Layout) -> Split:
    """(B * K, C, n, n) -> the fovea's maps and the periphery's."""
    fine, coarse = _rows_of(layout, x.shape[0] // layout.num_windows)
    return Split(x[fine], x[coarse])


def merge(x: Split, layout: Layout) -> Tensor:
    """(B * K, C, n, n), zero where the periphery did not compute."""
    total = len(x.fine) + len(x.coarse)
    fine, coarse = _rows_of(layout, total // layout.num_windows)
    wide = F.pad(x.coarse, (0, 0, 0, 0, 0, x.fine.shape[1] - x.coarse.shape[1]))
    order = torch.cat([fine, coarse]).argsort()
    return torch.cat([x.fine, wide])[order].contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Tables:
    coarse: HaloTable  # from the periphery to itself
    fine: HaloTable  # from the fovea to itself
    across: HaloTable  # from the periphery to the fovea


def _tables(layout: Layout, n: int, rim: Padding, batch: int, like: Tensor, coarsely: Tensor) -> _Tables:
    table = halo_table(layout, n, rim, batch=batch)
    fine, coarse = _rows_of(layout, batch)
    slot = torch.empty(len(fine) + len(coarse), dtype=torch.int64, device=fine.device)
    slot[fine] = torch.arange(len(fine), device=fine.device)
    slot[coarse] = torch.arange(len(coarse), device=fine.device)
    is_fine = torch.zeros(len(slot), dtype=torch.bool, device=fine.device)
    is_fine[fine] = True
    left, right, top, bottom = rim
    padded, cells = (n + left + right) * (n + top + bottom), n * n
    window, origin = table.target // padded, table.source[:, 0] // cells
    target = slot[window] * padded + table.target % padded
    source = slot[table.source // cells] * cells + table.source % cells

    covered = torch.ones_like(window, dtype=torch.bool) if table.covered is None else table.covered

    def where(keep: Tensor, like: Tensor) -> HaloTable:
        keep = keep & covered  # a traced table also holds the rows that no window covers
        weight = table.weight[keep].to(like)
        return HaloTable(target[keep].to(like.device), source[keep].to(like.device), weight, None)

    return _Tables(
        where(~is_fine[window], coarsely),
        where(is_fine[window] & is_fine[origin], like),
        where(is_fine[window] & ~is_fine[origin], coarsely),
    )


def split_halo(
    fine: Tensor,
    coarse: Tensor,
    layout: Layout,
    rim: Padding,
    spread: Callable[[Tensor], Tensor],
    value: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`halo_pad` of the fovea's and the periphery's maps, each by itself and the fovea from the periphery.

    Args:
        fine: (F, C, n, n), all level-0 windows of the batch.
        coarse: (G, C', n, n), all others; in a dtype of their own.
        layout: of all windows.
        rim: (left, right, top, bottom) in cells.
        spread: (R, C') -> (R, C), the periphery's channels in their places among all.
        value: of rim cells that no window covers.

    Returns:
        Both, padded.
    """
    tables = _known_tables(fine, coarse, layout, rim)
    padded = fill(fine, tables.fine, rim, value)
    rows = coarse.permute(0, 2, 3, 1).reshape(-1, coarse.shape[1])
    across = weighted_rows(rows, tables.across.source, tables.across.weight)
    flat = padded.permute(0, 2, 3, 1).reshape(-1, fine.shape[1])
    flat = flat.index_copy(0, tables.across.target, spread(across).to(flat.dtype))
    padded = flat.view(len(fine), *padded.shape[2:], fine.shape[1]).permute(0, 3, 1, 2)
    return padded, fill(coarse, tables.coarse, rim, value)


def split_filtered(
    fine: Tensor, coarse: Tensor, layout: Layout, weight: Tensor, bias: Tensor | None, narrow: int
) -> tuple[Tensor, Tensor] | None:
    """A 3 x 3 convolution of stride 1 of both with their halos, where there is a faster way than padding; else None.

    Args:
        fine, coarse, layout: as of `split_halo`; the periphery has the leading channels.
        weight: (C_out, C, 3, 3).
        bias: (C_out,).
        narrow: how many channels of the result the periphery computes, the leading ones.
    """
    n = fine.shape[-1]
    fits = weight.shape[1] == fine.shape[1]  # another number of channels is for the convolution to refuse
    if torch.compiler.is_compiling() or not fits:
        return None
    if not (can_filter(fine, weight, n) and can_filter(coarse, weight, n)):
        return None
    batch, channels = (len(fine) + len(coarse)) // layout.num_windows, max(weight.shape[:2])

    def compute() -> tuple[list[TileTable], list[TileTable], list[TileTable]]:
        tables = _known_tables(fine, coarse, layout, (1, 1, 1, 1))
        return (
            tile_tables(tables.fine, len(fine), n, channels),
            tile_tables(tables.across, len(fine), n, channels, rim_alone=True),
            tile_tables(tables.coarse, len(coarse), n, channels),
        )

    inner, across, outer = layout.remembered(("slim tiles", n, channels, batch), compute)
    less = None if bias is None else bias[:narrow]
    return (
        filter_tiles(fine, inner, weight, bias, n=n, beside=(coarse, across)),
        filter_tiles(coarse, outer, weight, less, n=n, narrow=narrow),
    )


def _known_tables(fine: Tensor, coarse: Tensor, layout: Layout, rim: Padding) -> _Tables:
    n, batch = fine.shape[-1], (len(fine) + len(coarse)) // layout.num_windows
    key = ("slim", n, rim, batch, fine.dtype, coarse.dtype, fine.device)
    return layout.remembered(key, lambda: _tables(layout, n, rim, batch, fine, coarse))


class SlimConv2d(FoveatedConv2d):
    """`FoveatedConv2d` that also takes a `Split`: the periphery runs on the leading `width` part of its channels.

    Args:
        width: fraction of the output channels that the periphery computes, in (0, 1].
        Other arguments are those of `torch.nn.Conv2d`; no groups.
    """

    def __init__(self, *args: int, width: float = 1.0, **kwargs: int | bool) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.narrow = narrow_channels(self.out_channels, width)

    def forward(self, x: Tensor | Split, layout: Layout, *, halo: bool = True) -> Tensor | Split:  # type: ignore[override]
        """(B * K, C, n, n), or a `Split` of it -> the same kind."""
        if isinstance(x, Tensor):
            return super().forward(x, layout, halo=halo)
        weight = self.weight[: self.narrow, : x.coarse.shape[1]]
        bias = None if self.bias is None else self.bias[: self.narrow]
        if layout.num_windows == 1 or not halo:
            fine = F.conv2d(x.fine, self.weight, self.bias, self.stride, self.padding, self.dilation)
            return Split(fine, F.conv2d(x.coarse, weight, bias, self.stride, self.padding, self.dilation))
        n, narrow, wide = x.fine.shape[-1], x.coarse.shape[1], x.fine.shape[1]
        assert not isinstance(self.padding, str)
        rim = rim_of(n, kernel=self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation)
        if rim == (1, 1, 1, 1) and self.kernel_size == (3, 3) and self.stride == (1, 1):
            both = split_filtered(x.fine, x.coarse, layout, self.weight, self.bias, self.narrow)
            if both is not None:
                return Split(*both)
        fine, coarse = x.fine, x.coarse
        if any(rim):
            fine, coarse = split_halo(fine, coarse, layout, rim, lambda rows: F.pad(rows, (0, wide - narrow)))
        fine = F.conv2d(fine, self.weight, self.bias, self.stride, 0, self.dilation)
        return Split(fine, F.conv2d(coarse, weight, bias, self.stride, 0, self.dilation))


class SlimNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with statistics and affine terms of its own for the narrow width.

    Args:
        channels: C.
        width: fraction of the channels that the periphery computes, in (0, 1].
    """

    def __init__(self, channels: int, *, width: float = 1.0) -> None:
        super().__init__(channels)
        self.periphery = nn.BatchNorm2d(narrow_channels(channels, width)) if width < 1 else None

    def forward(self, x: Tensor | Split, layout: Layout | None = None) -> Tensor | Split:  # type: ignore[override]
        """(B * K, C, n, n), or a `Split` of it -> the same kind.

        Args:
            x: maps.
            layout: of their windows; in training, cells outside the picture then do not count in the statistics.

        Raises:
            ValueError: in training, if fewer than two cells of a width lie inside a picture.
        """
        kept = None if layout is None or not self.training else _kept(layout, x)
        if isinstance(x, Tensor):
            return super().forward(x) if kept is None else norm_kept(self, x, kept)
        assert self.periphery is not None
        if kept is None:
            return Split(super().forward(x.fine), self.periphery(x.coarse))
        assert layout is not None
        fine, coarse = _rows_of(layout, len(kept) // layout.num_windows)
        return Split(
            norm_kept(self, x.fine, kept[fine]) if len(fine) else x.fine,
            norm_kept(self.periphery, x.coarse, kept[coarse]) if len(coarse) else x.coarse,
        )


def _kept(layout: Layout, x: Tensor | Split) -> Tensor | None:
    """(B * K, n, n) bool, which cells lie in a picture and do not only fill the batch; None where all do."""
    n = (x if isinstance(x, Tensor) else x.fine).shape[-1]
    windows = len(x) if isinstance(x, Tensor) else len(x.fine) + len(x.coarse)

    def compute() -> Tensor | None:
        kept = layout.inside(n) & layout.valid[..., None, None]
        return None if not torch.compiler.is_compiling() and bool(kept.all()) else kept

    kept = layout.remembered(("kept", n), compute)
    return None if kept is None else kept.expand(windows // layout.num_windows, -1, -1, -1).flatten(0, 1)


def narrow_channels(channels: int, width: float) -> int:
    """How many leading channels a fraction of them is, at least one.

    Raises:
        ValueError: for a fraction outside (0, 1].
    """
    if not 0 < width <= 1:
        raise ValueError(f"periphery_channels is {width}; expected a fraction in (0, 1]")
    return max(1, round(channels * width))
