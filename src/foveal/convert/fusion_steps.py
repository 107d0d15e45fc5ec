"""How windows take the steps of necks: maps brought to the cells of others, and the eccentricity of every cell."""

from __future__ import annotations

from typing import Any

from foveal.blocks.eccentricity_map import squared_eccentricity_around
from foveal.blocks.resized_like import resized_like
from foveal.convert.resampling import enlarged
from foveal.convert.window_maps import (
    Kind,
    Refused,
    Unfit,
    WindowMaps,
    bare,
    parameters,
    plainly,
    rule,
    side_of,
    wrap,
)


@rule(resized_like)
def _resized_like(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("x like mode", args, kwargs)
    x, like, mode = given["x"], given["like"], given.get("mode", "bilinear")
    if not (isinstance(x, WindowMaps) and isinstance(like, WindowMaps)):
        raise Refused("resized_like() of maps of windows and an ordinary tensor")
    if any(maps._kind.space != (2, 3) or any(maps._kind.rim) for maps in (x, like)):
        raise Refused("resized_like() of maps that are padded, or not (B, C, H, W)")
    n, wanted = side_of(x), side_of(like)
    if n == wanted:
        return x
    if wanted % n:
        raise Unfit(f"resized_like(): {wanted} cells a side are no multiple of {n}, so cells would lie across windows")
    if x._look.layout.num_windows == 1:
        return wrap(plainly(resized_like, bare(x), bare(like), mode), x._look, Kind((2, 3)))
    return enlarged(x, wanted // n, mode)


@rule(squared_eccentricity_around)
def _squared_eccentricity_around(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise Refused("eccentricity around a given fixation: a glimpse has its own, in its layout")
