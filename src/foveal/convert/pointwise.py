"""Steps that look at each cell by itself: the same for windows as for the whole picture."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.extent import same_reach
from foveal.convert.window_maps import (
    POOLED,
    WHOLE_POOL,
    Kind,
    Refused,
    WindowMaps,
    bare,
    maps_in,
    name_of,
    named,
    once_a_picture,
    parameters,
    plainly,
    repeat,
    rule,
    side_of,
    wrap,
)

_NAMES = """
add sub mul div true_divide pow maximum minimum lerp addcmul addcdiv where rsub fmod floor_divide remainder
relu relu6 elu selu celu gelu silu mish hardswish hardsigmoid hardtanh leaky_relu prelu softplus softsign logsigmoid
sigmoid tanh tanhshrink threshold exp expm1 log log1p log2 sqrt rsqrt square abs absolute neg negative sign sin cos tan
erf reciprocal clamp clamp_min clamp_max clip round floor ceil nan_to_num clone detach contiguous to float half bfloat16
double type type_as zero fill cpu cuda positive frac sinc requires_grad zeros_like ones_like
eq ne lt le gt ge isnan isfinite isinf logical_not logical_and logical_or
"""
_SIGNS = """
add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv div rdiv idiv pow rpow ipow neg pos abs mod floordiv
eq ne lt le gt ge invert and or
"""
_DRAWN = "dropout alpha_dropout rrelu bernoulli rand_like randn_like"
_DRAWN_BY_CHANNEL = "feature_dropout feature_alpha_dropout dropout1d dropout2d dropout3d"


def _functions(text: str) -> list[Any]:
    names = [form for name in text.split() for form in (name, f"{name}_")]
    return [found for found in named(" ".join(names), torch, Tensor, F, torch._C._nn) if callable(found)]


@rule(*_functions(_DRAWN))
def _drawn(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Random steps: what a whole picture has stays the same for all its windows."""
    x = args[0] if args else kwargs["input"]
    if x._kind.space:
        return wrap(plainly(func, *args, **kwargs), x._look, x._kind)
    if not name_of(func).endswith("_()"):
        return once_a_picture(func, x, *args[1:], **kwargs)
    drawn = plainly(func, x._look.by_picture(bare(x)).clone(), *args[1:], **kwargs)
    plainly(Tensor.copy_, x, repeat(drawn, x._look))
    return x


@rule(*_functions(_DRAWN_BY_CHANNEL))
def _drawn_by_channel(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Whole channels dropped: those of a picture in all its windows."""
    given = parameters("input p training inplace", args, kwargs)
    x, share, training = given["input"], given.get("p", 0.5), given.get("training", given.get("train", True))
    if not x._kind.space or not training or x._look.layout.num_windows == 1:
        return _drawn(func, args, kwargs)
    if 1 in x._kind.space:
        raise Refused(f"{name_of(func)} drops along dimension 1, which is space")
    # Drawn for maps of the numbers 0 and 1, of which all that it does to any number follows.
    line = torch.arange(2, dtype=x.dtype, device=x.device).view(2, *[1] * (x.ndim - 3))
    pictures = len(x._look.by_picture(bare(x)))
    drawn = plainly(func, line.expand(pictures, x.shape[1], *line.shape).contiguous(), share, training)
    level = x._look.by_row(drawn[:, :, :1])
    slope = x._look.by_row(drawn[:, :, 1:]) - level
    if given.get("inplace") or name_of(func).endswith("_()"):
        plainly(lambda: x.mul_(slope).add_(level))
        return x
    return wrap(bare(x) * slope + level, x._look, x._kind)


@rule(*named("new_empty new_zeros new_ones new_full", Tensor))
def _new(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A tensor of as many rows as there are windows is one of what whole pictures have, such as whom to drop."""
    x, result = args[0], plainly(func, *args, **kwargs)
    rows = result.ndim > 0 and len(result) == len(x)
    return wrap(result, x._look, POOLED) if rows else result


# Of the two owners of signs, traced graphs call the second.
POINTWISE = [*_functions(_NAMES), *named(" ".join(f"__{sign}__" for sign in _SIGNS.split()), Tensor, operator)]


@rule(*POINTWISE)
def _pointwise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not any(isinstance(value, Tensor) for value in kwargs.values()):
        x = args[0]
        return wrap(plainly(func, x, **kwargs), x._look, x._kind)
    if len(args) == 2 and not kwargs and _alike(*args):
        return wrap(plainly(func, *args), args[0]._look, args[0]._kind)
    maps = maps_in([*args, *kwargs.values()])
    look, kind, ndim = maps[0]._look, *_shared(func, maps)
    refuse_places(func, [*args, *kwargs.values()], kind, ndim, maps[0].shape[0])
    return wrap(plainly(func, *args, **kwargs), look, kind)


def _alike(x: Any, y: Any) -> bool:
    """Whether these are maps of the same places: what most sums are of."""
    if not (isinstance(x, WindowMaps) and isinstance(y, WindowMaps)):
        return False
    with torch._C.DisableTorchFunctionSubclass():
        return x._look is y._look and x._kind == y._kind and x.shape == y.shape


def _shared(func: Any, maps: list[WindowMaps]) -> tuple[Kind, int]:
    """The kind of the result and its dimensions; maps of places elsewhere are refused."""
    ndim = max(x.ndim for x in maps)
    kind, first = POOLED, maps[0]
    for x in maps:
        space, rim, cut = x._kind
        if not space:
            continue
        mine = Kind(tuple(dim + ndim - x.ndim for dim in space), rim, cut)
        if not kind.space:
            kind, first = mine, x
            continue
        if kind != mine:
            n = side_of(first)
            if kind[:2] != mine[:2] or not same_reach(x._look, kind.cut, cut, n):
                raise Refused(f"{name_of(func)} of maps whose cells lie at different places: {kind} and {mine}")
        refuse_unlike_sides(func, first, x)
    return kind, ndim


def refuse_unlike_sides(func: Any, one: WindowMaps, other: WindowMaps) -> None:
    """Maps of one cell a window would be broadcast over each window, not over the picture."""
    if side_of(one) != side_of(other) and one._look.layout.num_windows > 1:
        raise Refused(
            f"{name_of(func)} of maps of {side_of(one)} and {side_of(other)} cells along a window's side; {WHOLE_POOL}"
        )


def refuse_places(func: Any, values: list[Any], kind: Kind, ndim: int, rows: int) -> None:
    """An ordinary tensor must be the same for all windows and places; a pooled one the same for all places."""
    for x in values:
        if not isinstance(x, Tensor) or not x.ndim:
            continue
        lead = ndim - x.ndim
        held = isinstance(x, WindowMaps)
        if isinstance(x, WindowMaps) and x._kind.space:
            if lead and kind.space and min(kind.space) - lead < 0:
                raise Refused(f"{name_of(func)} of maps with {x.ndim} and {ndim} dimensions")
            continue
        fixed = [dim - lead for dim in kind.space] + ([] if held else [-lead])
        if lead < 0 or (held and lead) or any(dim >= 0 and x.shape[dim] != 1 for dim in fixed):
            raise Refused(
                f"{name_of(func)} with a tensor of shape {tuple(x.shape)}, which differs from place to place or from "
                f"row to row; of maps of windows only what is the same for all of them can be taken"
            )


@rule(torch.prelu)
def _prelu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = prelu_parts(func, args, kwargs)
    return wrap(plainly(func, x, weight), x._look, x._kind)


def prelu_parts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Tensor]:
    """Maps, and the slopes of their channels."""
    given = parameters("input weight", args, kwargs)
    x, weight = given["input"], given["weight"]
    if not isinstance(x, WindowMaps) or isinstance(weight, WindowMaps):
        raise Refused(f"{name_of(func)} with slopes made from maps of windows")
    if weight.numel() > 1 and 1 in x._kind.space:
        raise Refused(f"{name_of(func)} with slopes for dimension 1, which is space")
    return x, weight


@rule(F.glu, torch._C._nn.glu)
def _glu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input dim", args, kwargs)
    x, dim = given["input"], given.get("dim", -1)
    if dim % x.ndim in (0, *x._kind.space):
        raise Refused(f"{name_of(func)} over windows or space")
    return wrap(plainly(func, *args, **kwargs), x._look, x._kind)
