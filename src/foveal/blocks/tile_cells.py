"""Tiles of maps: their mean magnitudes, the cells that they read, and maps made of a few of them with zeros between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.scratch import scratch

_AT_ONCE = 1 << 19  # numbers: what is read once more at once should still be in the cache, in memory that is used again


@dataclass(frozen=True)
class Tiles:
    """Some tiles of a batch of maps, in the order of the maps.

    Args:
        maps: (M,) int64, which map each lies in.
        down, across: (M,) int64, which of the map's tiles it is.
        side: cells along a tile's side.
    """

    maps: Tensor
    down: Tensor
    across: Tensor
    side: int

    def cells(self, sides: tuple[int, int], window: tuple[int, int], before: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(M, rows, columns) twice: the cells of windows, as rows of all maps one after the other; which lie in a map.

        Args:
            sides: of a map, in cells.
            window: its sides, in cells, `before` of them above and to the left of the tile.
        """
        places, held = [], []
        for which, side, many, rim in zip((self.down, self.across), sides, window, before, strict=True):
            place = which[:, None] * self.side + torch.arange(-rim, many - rim, device=which.device)
            places.append(place.clamp(0, side - 1))
            held.append((place >= 0) & (place < side))
        index = (self.maps[:, None] * sides[0] + places[0])[:, :, None] * sides[1] + places[1][:, None]
        return index, held[0][:, :, None] & held[1][:, None]


def may_write(x: Tensor) -> bool:
    """Whether functions may be handed memory to write to: without gradients and graphs; on CPUs, as was measured."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def mean_magnitudes(x: Tensor, tile: int) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / tile), ceil(W / tile)), the mean of the magnitudes in each tile."""
    if torch.compiler.is_compiling() or not len(x):  # a graph for any batch cannot count its parts
        return F.avg_pool2d(x.abs(), tile, ceil_mode=True)
    batch, channels, height, width = x.shape
    whole = not (height % tile or width % tile) and x.is_contiguous(memory_format=torch.channels_last)
    # A few rows of tiles at a time: all magnitudes would be as large as the map itself, in fresh memory.
    if not (whole and may_write(x)):
        rows = tile * max(1, _AT_ONCE // 4 // max(1, x[0, :, :tile].numel()))
        parts = x.split(max(1, _AT_ONCE // 4 // x[0].numel()))
        strips = [[F.avg_pool2d(y.abs(), tile, ceil_mode=True) for y in part.split(rows, 2)] for part in parts]
        return torch.cat([torch.cat(strip, 2) for strip in strips])
    strip = x.permute(0, 2, 3, 1).view(-1, tile, width * channels)
    at_once = min(len(strip), max(1, _AT_ONCE // strip[0].numel()))
    buffer = scratch(mean_magnitudes, (at_once, *strip.shape[1:]), lambda: torch.empty(at_once, *strip.shape[1:]))
    sums = x.new_empty(len(strip), width * channels)
    for part, into in zip(strip.split(at_once), sums.split(at_once), strict=True):
        torch.sum(torch.abs(part, out=buffer[: len(part)]), 1, out=into)
    columns = sums.view(batch, height // tile, width // tile, tile, channels).sum(3)
    return columns.mul_(1 / tile**2).permute(0, 3, 1, 2)


def read(x: Tensor, tiles: Tiles, window: tuple[int, int], before: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (M, C, *window) in channels-last memory, zero outside of the map; as `Tiles.cells` takes it."""
    index, inside = tiles.cells((x.shape[2], x.shape[3]), window, before)
    cells = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # a view of channels-last memory
    found = cells.index_select(0, index.flatten()).masked_fill_(~inside.view(-1, 1), 0)
    return found.view(*index.shape, x.shape[1]).permute(0, 3, 1, 2)


def write(values: Tensor, tiles: Tiles, maps: int, sides: tuple[int, int]) -> Tensor:
    """(M, C, tile, tile) -> (maps, C, H, W) in channels-last memory, with zeros between them."""
    rows = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])
    index, inside = tiles.cells(sides, (tiles.side, tiles.side), (0, 0))
    index = index.flatten()
    if sides[0] % tiles.side or sides[1] % tiles.side:
        index, rows = index[inside.flatten()], rows[inside.flatten()]
    whole = rows.new_zeros(maps * sides[0] * sides[1], rows.shape[1]).index_copy_(0, index, rows)
    return whole.view(maps, *sides, values.shape[1]).permute(0, 3, 1, 2)
