"""What gates look at beyond their cell: where it lies, and the whole rows and columns that it lies in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveal.blocks.channel_gating import once_each
from foveal.blocks.coordinate_attention import weighed_by_lines
from foveal.blocks.eccentricity_map import layout_eccentricity, place_of, squared_eccentricity
from foveal.convert.pooling import dense_cells, fills, is_planned_whole, shares
from foveal.convert.window_maps import (
    Refused,
    WindowMaps,
    bare,
    once_a_picture,
    parameters,
    plainly,
    rule,
    side_of,
    wrap,
)
from foveal.layout import Layout


@rule(once_each)
def _once_each(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """An ordinary tensor, so that what is counted over pictures is not counted by window."""
    x = args[0]
    if x._kind.space:
        raise Refused("what each picture has, taken of maps that still have places")
    return x._look.by_picture(bare(x))


@rule(squared_eccentricity)
def _squared_eccentricity(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("x place", args, kwargs)
    x, place = given["x"], given.get("place")
    if not x._kind.space:
        return once_a_picture(func, x, place)
    _refuse_unready("eccentricity", x)
    layout = x._look.layout
    center = None if place is None else place_of(place, bare(x), len(x) // layout.num_windows)
    if fills(layout) and (center is not None or _looks_at_the_middle(layout)):
        # One row, though each is a window: it is the same for every picture.
        return wrap(plainly(func, bare(x), center).expand(len(x), -1, -1, -1), x._look, x._kind)
    squares = layout_eccentricity(layout, side_of(x), center).to(x.device)
    squares = squares.expand(len(x) // layout.num_windows, -1, -1, -1)
    return wrap(squares.flatten(0, 1)[:, None], x._look, x._kind)


def _looks_at_the_middle(layout: Layout) -> bool:
    return layout.remembered("middle", lambda: bool((layout.fixations == 0.5).all()), shared=False)


@rule(weighed_by_lines)
def _weighed_by_lines(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Coordinate attention (Hou et al. 2021) over the rows and columns of the whole picture."""
    given = parameters("x block", args, kwargs)
    x, block = given["x"], given["block"]
    if not x._kind.space:
        return once_a_picture(func, x, block)
    _refuse_unready("means of rows and columns", x)
    if fills(x._look.layout) or is_planned_whole(x._look.layout):
        return wrap(plainly(func, bare(x), block), x._look, x._kind)
    with torch._C.DisableTorchFunctionSubclass():
        maps = bare(x).unflatten(0, (-1, x._look.layout.num_windows))
        means = [_line_means(x, maps, axis) for axis in (0, 1)]
        lines = [mean.shape[2] for mean in means]
        hidden = block.act(block.bn1(block.conv1(torch.cat(means, 2)[..., None])))
        for axis, (narrow, widen) in enumerate(zip(hidden.split(lines, 2), (block.conv_h, block.conv_w), strict=True)):
            gate = block.gate(widen(narrow))[..., 0]  # (B, C, lines)
            spread = torch.einsum("bcp,bkip->bkci", gate, _line_parts(x, axis).to(gate).expand(len(gate), -1, -1, -1))
            maps = maps * (spread[..., None] if axis == 0 else spread[..., None, :])
        return wrap(maps.flatten(0, 1), x._look, x._kind)


def _line_means(x: WindowMaps, maps: Tensor, axis: int) -> Tensor:
    """(B, K, C, n, n) -> (B, C, lines), the means over the picture's rows (axis 0) or columns (1)."""

    def compute() -> tuple[Tensor, Tensor]:
        cells = dense_cells(x)
        many = _lines(cells, axis)
        places = torch.arange(many, device=cells.device)
        line = torch.stack([places, places + 1], -1).expand(len(cells), -1, -1)
        whole = torch.stack([torch.zeros_like(cells), cells], -1)[:, 1 - axis, None]  # (B, 1, 2)
        part = shares(x, (line, whole) if axis == 0 else (whole, line)).flatten(4)
        # Of the smaller pictures of a batch the last line stands for those that they lack, which no cell reads.
        return part, places.expand(len(cells), -1).minimum(cells[:, axis, None] - 1)

    part, index = x._look.layout.remembered(("line means", axis, x._kind.cut, side_of(x)), compute)
    part = part.to(maps).expand(len(maps), -1, -1, -1, -1)
    means = torch.einsum("bkchw,bkhwp->bcp", maps, part)
    return means.gather(2, index.to(maps.device).expand(len(maps), -1)[:, None].expand_as(means))


def _line_parts(x: WindowMaps, axis: int) -> Tensor:
    """(B, K, n, lines) float64: of each row (axis 0) or column (1) of cells, the part that lies in each line.

    They add up to 1, or to 0 beside the picture, where the dense network's next padding would be.
    """

    def compute() -> Tensor:
        layout, n, cells = x._look.layout, side_of(x), dense_cells(x)
        steps = torch.arange(n, dtype=torch.float64, device=cells.device)
        size = layout.cell_pixels(n)[..., None]
        begin = (layout.origins[..., axis, None] + steps * size)[..., None] / (layout.size / n)  # (B, K, n, 1)
        end = (begin + size[..., None] / (layout.size / n)).minimum(cells[:, axis, None, None, None].double())
        line = torch.arange(_lines(cells, axis), device=cells.device)
        overlap = (end.minimum(line + 1) - begin.maximum(line)).clamp(min=0)
        return overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-9)

    return x._look.layout.remembered(("line parts", axis, x._kind.cut, side_of(x)), compute)


def _lines(cells: Tensor, axis: int) -> int:
    if torch.compiler.is_compiling():
        raise Refused("rows and columns of the picture in a graph for any layout; fix the layout with planned()")
    return int(cells[:, axis].max())


def _refuse_unready(what: str, x: WindowMaps) -> None:
    if x._kind.space != (2, 3) or any(x._kind.rim):
        raise Refused(f"{what} of maps that are padded, or not (B, C, H, W)")
