"""3 x 3 convolutions of window maps with fewer multiplications, their halos filled on the way.

Minimal filtering (Winograd 1980; Lavin and Gray 2016): a tile of 2 x 2 results takes 16 products for each pair of
channels instead of 36. A halo is a weighted sum of cells, and so is what a tile's filter takes: both together are one
weighted gather, then come 16 ordinary matrix products, then one more gather. No padded map is ever made. A dense
network's large maps are bound by memory in the gathers; the few cells of windows are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveal.halo_table import HaloTable
from foveal.weighted_rows import weighted_rows

FEWEST_TILES = 16
"""With fewer, reading the transformed weights costs more than the multiplications that are saved."""

FEWEST_CHANNELS = 64

_CHUNK_BYTES = 1 << 21  # of what is multiplied at a time: larger buffers are fresh pages in each call

_INTO = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUT = ((1, 1, 1, 0), (0, 1, -1, -1))


@dataclass(frozen=True)
class TileTable:
    """How the cells of some windows become tiles, and tiles cells again.

    Args:
        index, offsets, weight: for each of 16 * M rows the cells, of all windows, that it is a weighted sum of.
        tiles: M.
        back, sign: (cells, 9), for each cell of these windows the rows that it is a sum of.
    """

    index: Tensor
    offsets: Tensor
    weight: Tensor
    tiles: int
    back: Tensor
    sign: Tensor


def can_filter(x: Tensor, weight: Tensor, n: int) -> bool:
    """Whether this is faster for a 3 x 3 convolution of stride 1, by what was measured, on CPUs, without gradients.

    Args:
        x: (N, C, ...), the maps, padded or not.
        weight: (C_out, C, 3, 3).
        n: cells along a map's side, without a rim.
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and n % 2 == 0
        and len(x) * (n // 2) ** 2 >= FEWEST_TILES
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and (torch.compiler.is_compiling() or can_keep(weight))
    )


def can_keep(weight: Tensor) -> bool:
    """Not what is made anew in each call, nor inference tensors, whose changes cannot be told."""
    return isinstance(weight, nn.Parameter) and not weight.is_inference()


def tile_tables(
    halo: HaloTable | None, windows: int, n: int, channels: int, *, rim_alone: bool = False
) -> list[TileTable]:
    """The tables of all windows, a few windows at a time.

    Args:
        halo: of a rim of 1 around maps of n x n cells; None where the maps that will come have their rims already.
        windows: N, of the whole batch.
        n: even.
        channels: of the maps; the more there are, the fewer windows are taken at a time.
        rim_alone: leave the windows' own cells out, for a halo that is read from other maps.
    """
    side, tiles = n + 2, (n // 2) ** 2
    first, count, source, weight = (
        _padded_sources(windows, n) if halo is None else _sources(halo, windows, n, rim_alone)
    )
    cells, signs = _patches(n)  # (16, tiles, 4) in a padded window, (16, 1, 4)
    back, sign = _back(n)  # (n * n, 9): place among the 16, tile; (n * n, 9)
    at_once = max(1, _CHUNK_BYTES // (16 * tiles * channels * 4))
    tables = []
    for start in range(0, windows, at_once):
        many = min(at_once, windows - start)
        own = np.arange(start, start + many) * (side * side)
        parts = (cells[:, None] + own[:, None, None]).reshape(-1)  # (16 * many * tiles * 4)
        each = count[parts]
        before = each.cumsum() - each
        place = np.arange(int(each.sum())) + np.repeat(first[parts] - before, each)
        shares = weight[place] * np.repeat(np.broadcast_to(signs, (16, many * tiles, 4)).reshape(-1), each)
        rows = back[..., 0] * (many * tiles) + back[..., 1] + (np.arange(many) * tiles)[:, None, None]
        made = source[place], before[::4], shares.astype(np.float32), rows.reshape(-1, 9), np.tile(sign, (many, 1))
        index, offsets, share, back_rows, back_sign = (torch.from_numpy(np.ascontiguousarray(part)) for part in made)
        tables.append(TileTable(index, offsets, share, many * tiles, back_rows, back_sign))
    return tables


def filter_tiles(
    x: Tensor,
    tables: list[TileTable],
    weight: Tensor,
    bias: Tensor | None,
    *,
    n: int,
    narrow: int | None = None,
    kernels: Tensor | None = None,
    beside: tuple[Tensor, list[TileTable]] | None = None,
) -> Tensor:
    """The convolution: (N, C, n, n) -> (N, C_out, n, n), in channels-last memory.

    Args:
        x: maps, with their rims if the tables are for such; channels-last memory is fastest. With `narrow` they may
            have fewer channels than the kernel takes, the leading ones.
        tables: of their windows.
        weight: (C_out, C, 3, 3).
        bias: (C_out,), or as many as are computed.
        n: cells along a map's side, without a rim.
        narrow: compute only so many of the channels, the leading ones.
        kernels: the kernel's transform, where it is at hand.
        beside: other maps, of the leading channels, that part of the halo is read from, and the tables for that.
    """
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    kernels = (transformed(weight, transform_kernel) if kernels is None else kernels)[:, : x.shape[1], :narrow]
    others = None if beside is None else beside[0].permute(0, 2, 3, 1).reshape(-1, beside[0].shape[1])
    parts = []
    for number, table in enumerate(tables):
        tiles = weighted_rows(rows, table.index, table.weight, table.offsets)  # (16 * M, C)
        if beside is not None and others is not None:
            other = beside[1][number]
            tiles[:, : others.shape[1]] += weighted_rows(others, other.index, other.weight, other.offsets)
        products = torch.bmm(tiles.view(16, table.tiles, -1), kernels).flatten(0, 1)
        parts.append(weighted_rows(products, table.back, table.sign))
    cells = parts[0] if len(parts) == 1 else torch.cat(parts)
    cells = cells if bias is None else cells.add_(bias)
    return cells.view(len(x), n, n, -1).permute(0, 3, 1, 2)


@lru_cache(maxsize=256)
def padded_tables(windows: int, n: int, channels: int) -> list[TileTable]:
    """The tables of maps that have their rims already; they are the same for all layouts."""
    with torch.inference_mode(False):
        return tile_tables(None, windows, n, channels)


_Sources = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _padded_sources(windows: int, n: int) -> _Sources:
    cells = np.arange(windows * (n + 2) ** 2)
    return cells, np.ones_like(cells), cells, np.ones(len(cells))


def _sources(halo: HaloTable, windows: int, n: int, rim_alone: bool) -> _Sources:
    """For each cell of the padded maps: where its sources begin, how many; then the sources and their weights."""
    side = n + 2
    padded = np.arange(windows * side * side).reshape(windows, side, side)
    inside = padded[:, 1:-1, 1:-1].ravel()[: 0 if rim_alone else None]
    target, source, weight = halo.target.numpy(), halo.source.numpy(), halo.weight.double().numpy()
    held = weight != 0
    number = held.sum(1)
    count, first = np.zeros((2, padded.size), dtype=np.int64)
    own = np.arange(len(inside))
    count[inside], first[inside] = 1, own
    count[target], first[target] = number, len(inside) + number.cumsum() - number
    return first, count, np.concatenate([own, source[held]]), np.concatenate([np.ones(len(inside)), weight[held]])


@cache
def _patches(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    into = np.kron(_INTO, _INTO)  # (16, 16): each row takes 4 of a tile's 4 x 4 cells
    taken = into.nonzero()[1].reshape(16, 4)
    grid = np.arange((n + 2) ** 2).reshape(n + 2, n + 2)
    tiles = np.lib.stride_tricks.sliding_window_view(grid, (4, 4))[::2, ::2].reshape(-1, 16)
    signs = np.take_along_axis(into, taken, 1)[:, None].astype(np.float64)
    return np.ascontiguousarray(tiles[:, taken].transpose(1, 0, 2)), signs


@cache
def _back(n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    out = np.kron(_OUT, _OUT)  # (4, 16): each result takes 9 of a tile's 16
    taken = out.nonzero()[1].reshape(4, 9)
    row = np.arange(n)
    which = ((row % 2)[:, None] * 2 + row % 2).ravel()
    tile = ((row // 2)[:, None] * (n // 2) + row // 2).ravel()
    back = np.stack([taken[which], np.broadcast_to(tile[:, None], (n * n, 9))], -1)
    return back, np.take_along_axis(out, taken, 1)[which].astype(np.float32)


@dataclass(frozen=True)
class _Kept:
    """A kernel's transforms, by what makes them, with what tells whether the kernel has changed since."""

    version: int
    place: int
    sums: Tensor
    made: dict[Callable[[Tensor], Tensor], Tensor]


_KEPT: dict[int, tuple[weakref.ref[Tensor], _Kept]] = {}


def transformed(weight: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """A kernel's transform, worked out in float64, and kept for as long as the kernel lives and stays as it is."""
    # Writing through `.data` leaves the version as it is: every number of the kernel has its part in these sums.
    flat = weight.detach().permute(0, 2, 3, 1).reshape(len(weight), -1)
    sums = torch.mv(flat, _anything(flat.shape[1]))
    number, known = id(weight), _KEPT.get(id(weight))
    kept = known[1] if known is not None and known[0]() is weight else None
    same = kept is not None and (kept.version, kept.place) == (weight._version, weight.data_ptr())
    if kept is None or not same or not torch.equal(kept.sums, sums):
        kept = _Kept(weight._version, weight.data_ptr(), sums, {})
        _KEPT[number] = (weakref.ref(weight, lambda _: _KEPT.pop(number, None)), kept)
    if transform not in kept.made:
        with torch.inference_mode(False), torch.no_grad():
            kept.made[transform] = transform(weight.detach().double()).float().contiguous()
    return kept.made[transform]


def transform_kernel(weight: Tensor) -> Tensor:
    """(C_out, C, 3, 3) -> (16, C, C_out), in the same dtype; computed anew in each call."""
    kernel = torch.tensor(_KERNEL, dtype=weight.dtype)
    return torch.einsum("pq,ocq->pco", torch.kron(kernel, kernel), weight.flatten(2))


@lru_cache(maxsize=64)
def _anything(count: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.randn(count, generator=torch.Generator().manual_seed(count))
