"""Tiles that are read from their maps, convolved with half of the multiplications, and laid between zeros, at once."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.blocks.tile_cells import Tiles, may_write
from foveal.fresh import fresh
from foveal.winograd_rows import can_filter_rows, filter_rows

_AT_ONCE = 1 << 18  # numbers of results: more in one step would be fresh pages in each call


def filtered_tiles(
    x: Tensor,
    tiles: Tiles,
    weight: Tensor,
    bias: Tensor | None,
    *,
    pictures: int,
    sides: tuple[int, int],
    padded: bool,
) -> Tensor | None:
    """A 3 x 3 convolution of tiles, zeros elsewhere, where there is a faster way than the ordinary; else None.

    Args:
        x: (N, C, H, W), maps, with their rims or without; channels-last memory is fastest.
        tiles: as many of each picture.
        weight: (C_out, C, 3, 3).
        bias: (C_out,).
        pictures: how many the maps belong to, one picture's after the other's.
        sides: of a map in cells, without rims.
        padded: whether maps have their rims.

    Returns:
        (N, C_out, *sides), in channels-last memory.
    """
    side, outputs = tiles.side, len(weight)
    whole = not (sides[0] % side or sides[1] % side)
    if not (pictures and whole and may_write(x) and can_filter_rows(x, weight, side, len(tiles.maps))):
        return None
    each, windows = len(tiles.maps) // pictures, len(x) // pictures
    many = max(1, _AT_ONCE // (each * side * side * outputs))  # pictures at a time
    down, across = sides[0] // side, sides[1] // side
    row = torch.arange(side)[:, None]  # of a tile: its cells lie side by side in the map, too
    result = fresh(len(x) * sides[0] * across, side * outputs)
    for first in range(0, pictures, many):
        last = min(first + many, pictures)
        part = slice(first * each, last * each)
        place = tiles.down[part], tiles.across[part]
        found = filter_rows(x, tiles.maps[part], place, weight, bias, tile=side, before=0 if padded else 1)
        maps = (last - first) * windows
        slot = torch.full((maps * down * across,), len(found) - 1)
        slot[((tiles.maps[part] - first * windows) * down + place[0]) * across + place[1]] = torch.arange(len(place[0]))
        source = slot.view(maps, down, 1, across) * side + row
        into = result[first * windows * sides[0] * across : last * windows * sides[0] * across]
        torch.index_select(found.view(-1, side * outputs), 0, source.flatten(), out=into)
    return result.view(len(x), *sides, outputs).permute(0, 3, 1, 2)
