"""Maps brought to more cells. What is interpolated between cells reads a rim, from the windows around."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.sliding import bordered
from foveal.convert.window_maps import (
    NO_RIM,
    POOLED,
    Kind,
    Refused,
    Unfit,
    WindowMaps,
    bare,
    parameters,
    plainly,
    rule,
    wrap,
)

_REACH = {"nearest": 0, "bilinear": 1, "bicubic": 2}
"""Cells on either side that a cell reads when it is enlarged."""


@rule(F.interpolate)
def _interpolate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input size scale_factor mode align_corners recompute_scale_factor antialias", args, kwargs)
    x, factor, mode = given["input"], given.get("scale_factor"), given.get("mode", "nearest")
    size = given.get("size")
    if isinstance(size, torch.Size):  # other maps' own, so in a window's cells; what is typed is the picture's
        one, pooled = x._look.layout.num_windows == 1, x._kind == POOLED and tuple(x.shape[-2:]) == (1, 1)
        if not pooled:
            _refuse_unplain(x)
        if one:
            return wrap(plainly(func, *args, **kwargs), x._look, Kind((2, 3)))
        if pooled:
            # Memory of its own, which may be written to.
            spread = bare(x).expand(-1, -1, *size).contiguous(memory_format=torch.channels_last)
            return wrap(spread, x._look, Kind((2, 3)))
        factor, given["size"] = _times(x, size), None
    if x._kind == POOLED:
        raise Refused("interpolate() of what has been pooled already")
    factors = tuple(factor) if isinstance(factor, tuple | list) else (factor or 0.5,)
    whole = all(side == int(side) and side >= 1 for side in factors)
    centred = not given.get("align_corners") and not given.get("antialias")
    if given.get("size") is not None or mode not in _REACH or not whole or not centred:
        raise Refused(
            "interpolate() reads across windows' edges unless it enlarges by a whole scale_factor, in mode 'nearest', "
            "'bilinear' or 'bicubic' without align_corners and antialias"
        )
    if factors[0] != factors[-1]:
        raise Refused(f"interpolate() by {factors}, unlike factors along y and x: a window stays square")
    if x._look.layout.num_windows == 1:
        _refuse_unplain(x)
        return wrap(plainly(func, *args, **kwargs), x._look, Kind(x._kind.space))
    return enlarged(x, int(factors[0]), mode)


def _times(x: WindowMaps, size: torch.Size) -> int:
    """How many times the cells of the maps a window of that size has."""
    cells = x.shape[-1]
    if len(set(size)) > 1 or size[0] % cells:
        raise Unfit(f"interpolate() of windows of {cells} x {cells} cells to {tuple(size)}, which is no whole factor")
    return int(size[0]) // int(cells)


def enlarged(x: WindowMaps, factor: int, mode: str) -> WindowMaps:
    """Maps with so many times the cells along each side.

    Args:
        x: maps that are neither padded nor cut by unpadded steps.
        factor: at least 1.
        mode: "nearest", "bilinear" or "bicubic", of which the latter two see cells as areas.
    """
    _refuse_unplain(x)
    return wrap(_enlarged(x, factor, mode), x._look, Kind(x._kind.space))


def _enlarged(x: WindowMaps, factor: int, mode: str) -> Tensor:
    reach = _REACH[mode]
    if not reach:
        near: Tensor = plainly(F.interpolate, bare(x), scale_factor=float(factor), mode=mode)
        return near
    # The dense map's own cells go on beyond the picture's edge, which is what mode "replicate" means.
    maps = bordered(x, (reach, reach, reach, reach), "replicate", 0.0)
    grown: Tensor = plainly(F.interpolate, maps, scale_factor=float(factor), mode=mode, align_corners=False)
    rim, side = reach * factor, grown.shape[-1]
    return grown[:, :, rim : side - rim, rim : side - rim]


def _refuse_unplain(x: WindowMaps) -> None:
    if x._kind.space != (2, 3) or x._kind.rim != NO_RIM or x._kind.cut:
        raise Refused("interpolate() of maps that are not (B, C, H, W), padded or cut by unpadded steps")
