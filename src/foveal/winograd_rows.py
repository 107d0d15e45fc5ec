"""3 x 3 convolutions of tiles with half of the multiplications, read straight from the maps in which the tiles lie.

Minimal filtering along y alone (Winograd 1980; Lavin and Gray 2016): four results below each other take 6 products for
each tap along x, instead of 12. Along both dimensions 4 would do for 9, but of large maps too much would have to be
gathered for that. At the points 0, 3/4, -3/4, 3/2, -3/2 and infinity the error of rounding is 1.3 times, in the mean,
what the plain convolution of the same memory has; with the usual 1 and 2 it would be twice.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.weighted_rows import weighted_rows
from foveal.winograd import FEWEST_CHANNELS, can_keep, transformed

FEWEST_TILES = 4
"""Of 16 x 16 cells; of fewer a plain convolution is as fast."""

_CHUNK_BYTES = 1 << 22  # of what is multiplied at a time

_A, _B = 0.75, 1.5
_POINTS = (0.0, _A, -_A, _B, -_B)
_AA, _BB = _A * _A, _B * _B
_INTO = (
    (_AA * _BB, 0, -_AA - _BB, 0, 1, 0),
    (0, -_A * _BB, -_BB, _A, 1, 0),
    (0, _A * _BB, -_BB, -_A, 1, 0),
    (0, -_B * _AA, -_AA, _B, 1, 0),
    (0, _B * _AA, -_AA, -_B, 1, 0),
    (0, _AA * _BB, 0, -_AA - _BB, 0, 1),
)
_SHARE = (_AA * _BB, *[2 * _AA * (_AA - _BB)] * 2, *[2 * _BB * (_BB - _AA)] * 2)  # what each point is divided by


def can_filter_rows(x: Tensor, weight: Tensor, tile: int, tiles: int) -> bool:
    """Whether this is faster for 3 x 3 convolutions of tiles, by what was measured, on CPUs, without gradients.

    Args:
        x: (N, C, ...), the maps.
        weight: (C_out, C, 3, 3).
        tile: cells along a tile's side.
        tiles: how many.
    """
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and tile % 4 == 0
        and tiles * tile * tile >= FEWEST_TILES * 256
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and can_keep(weight)
    )


def filter_rows(
    x: Tensor,
    maps: Tensor,
    tiles: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
    *,
    tile: int,
    before: int = 1,
) -> Tensor:
    """The convolution of M tiles: (M + 1, tile, tile, C_out), zeros after them.

    Args:
        x: (N, C, H, W); channels-last memory is fastest.
        maps: (M,) int64, which map each tile lies in.
        tiles: (M,) int64 twice, which of the map's it is along y and x.
        weight: (C_out, C, 3, 3).
        bias: (C_out,).
        tile: cells along a tile's side.
        before: how many cells above and to the left of a tile's place it begins to read: 0 of maps with their rims.
            Cells outside of the map are zero.
    """
    kernels, outputs = transformed(weight, _kernels), len(weight)
    shift = None if bias is None else torch.outer(_shares(), bias).flatten()
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    index, share = _taken(maps, tiles, (x.shape[2], x.shape[3]), tile, before)
    at_once = max(1, _CHUNK_BYTES // (6 * (tile // 4) * (tile + 2) * max(weight.shape[:2]) * 4))
    at_once = -(-len(maps) // -(-len(maps) // at_once))  # parts of one size, or nearly
    parts: list[Tensor] = []
    for cells, shares in zip(index.split(at_once), share.split(at_once), strict=True):
        many, last = len(cells), (len(parts) + 1) * at_once >= len(maps)
        sums = weighted_rows(rows, cells.view(-1), shares.view(-1), _starts(many, tile))
        sums = sums.view(many, tile // 4, tile + 2, -1).permute(0, 3, 1, 2)  # all channels of a point together
        products = F.conv2d(sums, kernels, shift, groups=6).permute(0, 2, 3, 1).reshape(-1, outputs)
        parts.append(weighted_rows(products, *_back(many, tile, last)))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(-1, tile, tile, outputs)


def _taken(
    maps: Tensor, tiles: tuple[Tensor, Tensor], sides: tuple[int, int], tile: int, before: int
) -> tuple[Tensor, Tensor]:
    """(M, tile / 4, tile + 2, 22) twice: for each 6 sums of every column the cells that they take, and their shares."""
    y, x, share, inside = _places(sides, tile, before)
    y = y.index_select(0, tiles[0]) + (maps * (sides[0] * sides[1]))[:, None, None]
    index = y[:, :, None] + x.index_select(0, tiles[1])[:, None, :, None]
    return index, share.index_select(0, tiles[0])[:, :, None] * inside.index_select(0, tiles[1])[:, None, :, None]


@lru_cache(maxsize=64)
def _places(sides: tuple[int, int], tile: int, before: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the tiles of a map take, by their place in it.

    Returns:
        (Y, tile / 4, 22) int64, the first cells of the rows; (X, tile + 2) int64, the columns; then, of the same
        shapes, the rows' shares, and 1 for columns in the map, else 0.
    """
    with torch.inference_mode(False):
        into = torch.tensor(_INTO)
        sums, taken = into.nonzero().T
        cells = [torch.arange(0, side - 2 * (1 - before), tile)[:, None] - before for side in sides]
        y = cells[0][:, :, None] + torch.arange(0, tile, 4)[:, None] + taken
        x = cells[1] + torch.arange(tile + 2)
        share = into[sums, taken] * ((y >= 0) & (y < sides[0]))
        inside = ((x >= 0) & (x < sides[1])).to(share.dtype)
        return y.clamp(0, sides[0] - 1) * sides[1], x.clamp(0, sides[1] - 1), share, inside


@lru_cache(maxsize=64)
def _starts(many: int, tile: int) -> Tensor:
    with torch.inference_mode(False):
        each = (torch.tensor(_INTO) != 0).sum(1)
        return (torch.arange(many * (tile // 4) * (tile + 2))[:, None] * 22 + each.cumsum(0) - each).flatten()


@lru_cache(maxsize=64)
def _back(many: int, tile: int, zeros: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each cell of the tiles the products that it is a sum of, their shares, and where each cell's begin.

    Args:
        many: tiles.
        tile: cells along a side.
        zeros: add a tile whose cells are sums of nothing.
    """
    with torch.inference_mode(False):
        out = torch.tensor([[*(point**power for point in _POINTS), float(power == 3)] for power in range(4)])
        first = torch.arange(many * (tile // 4))[:, None, None] * (6 * tile) + torch.arange(0, 6 * tile, 6)[:, None]
        index, share = [], []
        for row in out:  # of four below each other
            taken = row.nonzero()[:, 0]
            index.append((first + taken).flatten(1))
            share.append(row[taken].expand(len(first), tile, -1).flatten(1))
        each = (out != 0).sum(1).repeat_interleave(tile).repeat(len(first))
        each = torch.cat([each, each.new_zeros(tile * tile if zeros else 0)])
        return torch.cat(index, 1).flatten(), torch.cat(share, 1).flatten(), each.cumsum(0) - each


@cache
def _shares() -> Tensor:
    """(6,): products that together are a 1 in each of four cells."""
    with torch.inference_mode(False):
        return torch.tensor([sum(row) / share for row, share in zip(_INTO, _SHARE, strict=False)] + [0.0])


def _kernels(weight: Tensor) -> Tensor:
    """(C_out, C, 3, 3) -> (6 * C_out, C, 1, 3), in the same dtype."""
    rows = [[point**power / share for power in range(3)] for point, share in zip(_POINTS, _SHARE, strict=True)]
    kernel = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=weight.dtype)
    return torch.einsum("pk,ockl->pocl", kernel, weight).flatten(0, 1)[:, :, None]
