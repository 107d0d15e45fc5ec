"""Rims that mirror or repeat cells of the map (`F.pad` with mode "reflect" or "replicate"), about the picture's edge.

Between a window and the edge there may lie others: what is mirrored is the padded map, of which their cells are a part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.convert.window_maps import Refused, Unfit
from foveal.halo import halo_pad
from foveal.halo_table import Padding
from foveal.layout import Layout


def mirrored(maps: Tensor, layout: Layout, pad: Padding, mode: str) -> Tensor:
    """Maps with a rim from the windows around; where none is, cells of the same row, then of the same column.

    Args:
        maps: (B * K, C, n, n).
        layout: of the windows.
        pad: (left, right, top, bottom) in cells.
        mode: "reflect" or "replicate".

    Returns:
        (B * K, C, n + top + bottom, n + left + right).

    Raises:
        Refused: for another mode, or where fewer cells are known than are to be mirrored.
    """
    if mode not in ("reflect", "replicate"):
        raise Refused(f"pad() with mode {mode!r}; across windows only 'constant', 'reflect' and 'replicate' are known")
    n, (left, right, top, bottom) = maps.shape[-1], pad
    wide = pad
    if mode == "reflect":  # what is mirrored at one side may lie beyond the window's other side
        wide = (max(left, right + 1 - n), max(right, left + 1 - n), max(top, bottom + 1 - n), max(bottom, top + 1 - n))
    padded = halo_pad(maps, layout, wide)
    rows, channels, height, width = padded.shape

    def compute() -> Tensor:
        reached = halo_pad(torch.ones(len(layout) * layout.num_windows, 1, n, n), layout, wide)[:, 0] > 0.5
        column, filled = _inward(reached, wide[0], n, mode)
        row, filled = _inward(filled.mT, wide[2], n, mode)
        row, filled = row.mT, filled.mT
        cell = row * width + column.gather(1, row)
        lines = slice(wide[2] - top, height - (wide[3] - bottom))
        cell, filled = (x[:, lines, wide[0] - left : width - (wide[1] - right)] for x in (cell, filled))
        if not torch.compiler.is_compiling() and not bool(filled.all()):
            raise Unfit(
                f"pad() by {pad} with mode 'reflect': of the map of {n} x {n} cells, and of the windows around, there "
                f"are fewer cells than are to be mirrored"
            )
        return cell

    cell = layout.remembered(("mirrored", n, pad, mode), compute).to(maps.device)
    first = torch.arange(rows, device=maps.device)[:, None, None] * (height * width)
    source = cell.repeat(rows // len(cell), 1, 1) + first
    taken = padded.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, source.flatten())
    return taken.view(*source.shape, channels).permute(0, 3, 1, 2)


def _inward(reached: Tensor, first: int, n: int, mode: str) -> tuple[Tensor, Tensor]:
    """Which cell of its own row each cell takes: itself, or out of reach one on the way to the window and in it.

    Args:
        reached: (N, H, W) bool, the cells that have a value.
        first: where in the row the window begins; n: its cells.
        mode: "reflect" or "replicate".

    Returns:
        (N, H, W) int64 places along the row, and (N, H, W) bool, whether there is a value now.
    """
    place = torch.arange(reached.shape[-1], device=reached.device)
    near = list(torch.where(reached, place, -1).unbind(-1))
    for x in range(first + n, len(near)):
        near[x] = torch.where(reached[..., x], near[x], near[x - 1])
    for x in range(first - 1, -1, -1):
        near[x] = torch.where(reached[..., x], near[x], near[x + 1])
    last = torch.stack(near, -1)  # the cell itself, or the last one before the edge
    found = last >= 0
    if mode == "replicate":
        return last.clamp(min=0), found
    opposite = 2 * last - place
    within = found & (opposite >= 0) & (opposite < len(near))
    opposite = torch.where(within, opposite, 0)
    return opposite, within & reached.gather(-1, opposite)
