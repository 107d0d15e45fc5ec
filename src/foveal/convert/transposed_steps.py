"""Transposed convolutions: maps of windows grow by the stride, and read the cells around whose kernels reach in."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from foveal.convert.extent import Growth, after_step, reaches
from foveal.convert.sliding import sealed
from foveal.convert.window_maps import (
    Kind,
    Refused,
    WindowMaps,
    bare,
    name_of,
    once_a_picture,
    parameters,
    plainly,
    rule,
    wrap,
)
from foveal.halo import padded_for_a_step
from foveal.halo_table import pair

_NAMES = "input weight bias stride padding output_padding groups dilation"
_DEFAULTS: dict[str, Any] = {
    "bias": None,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "groups": 1,
    "dilation": 1,
}


@rule(F.conv_transpose2d, torch.conv_transpose2d)
def _conv_transpose2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**_DEFAULTS, **parameters(_NAMES, args, kwargs)}
    x, weight = given["input"], given["weight"]
    if not isinstance(x, WindowMaps) or isinstance(weight, WindowMaps):
        raise Refused(f"{name_of(func)} with a kernel made from maps of windows")
    rest = [given[name] for name in _DEFAULTS]
    look, (space, rim, cut) = x._look, x._kind
    if not space:
        return once_a_picture(F.conv_transpose2d, x, weight, *rest)
    if space != (2, 3) or any(rim):
        raise Refused(f"{name_of(func)} of maps that are padded, or not (B, C, H, W)")
    if look.layout.num_windows == 1:
        return wrap(plainly(F.conv_transpose2d, bare(x), weight, *rest), look, Kind(space))
    times, before, more, spread = (pair(given[name]) for name in ("stride", "padding", "output_padding", "dilation"))
    if times[0] != times[1]:
        raise Refused(f"{name_of(func)} with a stride of {times}: windows would be square no more")
    sides = [apart * (side - 1) + 1 for side, apart in zip(weight.shape[2:], spread, strict=True)]
    growth = Growth((sides[0], sides[1]), times, before, (before[0] - more[0], before[1] - more[1]))
    n = x.shape[-1]
    after = after_step(cut, growth, n)
    if after:
        reaches(look, after)  # refuses a dense map that grows beyond the windows
    along = [_along(*axis) for axis in zip(growth.reach, times, before, strict=True)]
    (top, bottom, below), (left, right, beside) = along
    needed = (left, right, top, bottom)
    maps = sealed(x, 0.0)
    if any(needed):
        maps = padded_for_a_step(maps, look.layout, needed) if look.halo else F.pad(maps, needed)
    shift = given["bias"], times, 0, (below, beside), given["groups"], spread
    grown = plainly(F.conv_transpose2d, maps, weight, *shift)
    y, x_ = before[0] + top * times[0], before[1] + left * times[1]
    return wrap(grown[:, :, y : y + n * times[0], x_ : x_ + n * times[1]], look, Kind(space, cut=after))


def _along(reach: int, times: int, before: int) -> tuple[int, int, int]:
    """Along one axis: the rim before and after, and the cells that no kernel writes at the end."""
    early = max(0, (reach - 1 - before) // times)
    late = max(0, 1 + (before - 1) // times)
    return early, late, max(0, before - (late - 1) * times - reach)
