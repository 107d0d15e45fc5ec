"""Steps over channels, which look at each cell by itself, and those on what a whole picture has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.window_maps import (
    POOLED,
    Refused,
    WindowMaps,
    name_of,
    named,
    once_a_picture,
    parameters,
    plainly,
    rule,
    wrap,
)


@rule(F.linear)
def _linear(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input weight bias", args, kwargs)
    x = given["input"]
    if not isinstance(x, WindowMaps) or isinstance(given["weight"], WindowMaps):
        raise Refused("linear() with weights made from maps of windows")
    if not x._kind.space:
        return once_a_picture(F.linear, x, given["weight"], given.get("bias"))
    if x.ndim - 1 in x._kind.space:
        raise Refused("linear() over space: its weights belong to places of a map of one size")
    return wrap(plainly(func, *args, **kwargs), x._look, x._kind)


@rule(F.conv1d, torch.conv1d)
def _conv1d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if not isinstance(x, WindowMaps) or x._kind.space:
        raise Refused("conv1d() over space")
    return once_a_picture(func, x, *args[1:], **kwargs)


@rule(*named("matmul bmm baddbmm __matmul__", torch, Tensor))
def _matmul(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    one, other = operands[:2]
    weights = len(operands) == 2 and not isinstance(other, WindowMaps) and other.ndim == 2
    if weights and isinstance(one, WindowMaps) and one.ndim - 1 not in (0, *one._kind.space):
        return wrap(plainly(func, *args, **kwargs), one._look, one._kind)
    pooled = [x for x in operands if isinstance(x, WindowMaps) and not x._kind.space and x.ndim > 2]
    if len(pooled) == len(operands) and len({x.ndim for x in pooled}) == 1:
        return wrap(plainly(func, *args, **kwargs), pooled[0]._look, POOLED)
    raise Refused(f"{name_of(func)} over space: attention between the cells of one window is not that of a picture")
