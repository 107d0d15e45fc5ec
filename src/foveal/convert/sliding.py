"""Kernels that slide: convolutions, pools with a kernel, and padding as a step of its own. All take their rims from
the windows around.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.extent import Step, after_step, beyond, reaches
from foveal.convert.mirrored import mirrored
from foveal.convert.pooling import fills
from foveal.convert.window_maps import (
    NO_RIM,
    POOLED,
    WHOLE_POOL,
    Kind,
    Look,
    Refused,
    Unfit,
    WindowMaps,
    bare,
    name_of,
    named,
    once_a_picture,
    parameters,
    plainly,
    rule,
    side_of,
    wrap,
)
from foveal.halo import filtered, halo_pad, padded_for_a_step, with_dense_padding
from foveal.halo_table import Padding, pair
from foveal.small_conv import conv_of_padded

_CONV = "input weight bias stride padding dilation groups"
_POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
_MEAN = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"


@rule(F.conv2d, torch.conv2d)
def _conv2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**CONV_DEFAULTS, **parameters(_CONV, args, kwargs)}
    x, weight = given["input"], given["weight"]
    if not isinstance(x, WindowMaps):
        raise Refused("conv2d() with a kernel made from maps of windows")
    rest = [given[name] for name in CONV_DEFAULTS]
    if not x._kind.space:
        return once_a_picture(F.conv2d, x, weight, *rest)
    step = _known_step(tuple(weight.shape[2:]), given["stride"], given["padding"], given["dilation"])
    if x._look.halo and x._kind == _PLAIN and step == THREE and given["groups"] == 1:
        found = plainly(filtered, bare(x), x._look.layout, weight, given["bias"])
        if found is not None:
            return wrap(found, x._look, _PLAIN)
    maps, _, own, cut = _ready(func, x, step, 0.0)
    one = x._look.layout.num_windows == 1 or isinstance(given["padding"], str)
    if own and (one or max(maps.shape[2:]) > 2 * max(step.stride)):
        return wrap(plainly(F.conv2d, maps, weight, *rest), x._look, _kind(x, cut))
    if own:  # of so few cells the padding comes first, too
        below, beside = step.before
        maps = F.pad(maps, (beside, beside, below, below))
    result = plainly(conv_of_padded, maps, weight, given["bias"], step.stride, _two(given["dilation"]), given["groups"])
    return wrap(result, x._look, _kind(x, cut))


_PLAIN = Kind((2, 3))

THREE = Step((3, 3), (1, 1), (1, 1), (1, 1))
"""The step of the most usual convolution: 3 x 3, stride 1, padding 1."""

CONV_DEFAULTS: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}


@rule(*named("max_pool2d", F, torch), F.max_pool2d_with_indices)
def _max_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters(_POOL, args, kwargs)
    x = given["input"]
    if given.get("return_indices"):
        raise Refused("max_pool2d() with return_indices=True: the largest may lie in another window")
    kernel, stride, padding = _sides(given)
    dilation, ceil = given.get("dilation", 1), bool(given.get("ceil_mode", False))
    if not x._kind.space:
        return once_a_picture(F.max_pool2d, x, kernel, stride, padding, dilation, ceil)
    if isinstance(given["kernel_size"], torch.Size):
        return whole_pool(func, F.adaptive_max_pool2d, args, kwargs)
    step = sliding_step(kernel, stride, padding, dilation, ceil)
    maps, step, own, cut = _ready(func, x, step, torch.finfo(x.dtype).min)  # -inf times a weight of 0 is no number
    pooled = plainly(F.max_pool2d, maps, kernel, stride, padding if own else 0, dilation, ceil and own)
    result = wrap(pooled, x._look, _kind(x, cut))
    return wrap(sealed(result, 0.0), x._look, result._kind) if cut else result


@rule(*named("avg_pool2d", F, torch, torch._C._nn))
def _avg_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters(_MEAN, args, kwargs)
    x = given["input"]
    kernel, stride, padding = _sides(given)
    ceil, counts = bool(given.get("ceil_mode", False)), bool(given.get("count_include_pad", True))
    divisor = given.get("divisor_override")
    if not x._kind.space:
        return once_a_picture(F.avg_pool2d, x, kernel, stride, padding, ceil, counts, divisor)
    if isinstance(given["kernel_size"], torch.Size):
        return whole_pool(func, F.adaptive_avg_pool2d, args, kwargs)
    step = Step(kernel, stride, padding, padding, ceil)
    maps, step, own, cut = _ready(func, x, step, 0.0)
    kind = _kind(x, cut)
    if own:
        pooled = plainly(F.avg_pool2d, maps, kernel, stride, padding, ceil, counts, divisor)
        return wrap(pooled, x._look, kind)
    pooled = F.avg_pool2d(maps, kernel, stride, 0, divisor_override=divisor)
    if divisor is None:
        part = counted(x._look, x._kind, side_of(x), step, counts, rows=len(maps))
        pooled = pooled if part is None else pooled / part.to(pooled)
    return wrap(pooled, x._look, kind)


def whole_pool(func: Any, pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A pool whose kernel is a `torch.Size`, so the shape of a map: over that map it is a pool of the whole picture."""
    given = parameters(_POOL if pool is F.adaptive_max_pool2d else _MEAN, args, kwargs)
    x, kernel = given["input"], tuple(given["kernel_size"])
    if fills(x._look.layout):
        return wrap(plainly(func, *args, **kwargs), x._look, POOLED if kernel == tuple(x.shape[2:]) else Kind((2, 3)))
    plain = _two(given.get("padding", 0)) == (0, 0) and _two(given.get("dilation", 1)) == (1, 1)
    own = x._kind.space == (2, 3) and kernel == tuple(x.shape[2:])
    if not (own and plain and given.get("divisor_override") is None):
        raise Refused(
            f"{name_of(func)} with a kernel of {kernel}, which is the shape of a map, so of one window's and not of "
            f"the picture's; {WHOLE_POOL}"
        )
    return pool(x, 1)


@rule(F.pad, torch._C._nn.pad, torch.constant_pad_nd)
def _pad(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input pad mode value", args, kwargs)
    x, pad, mode, value = given["input"], tuple(given["pad"]), given.get("mode", "constant"), given.get("value") or 0.0
    if not x._kind.space:
        return once_a_picture(F.pad, x, pad, mode, value)
    look, (space, rim, cut) = x._look, x._kind
    if not any(pad):
        return x
    if space != (2, 3) or len(pad) > 4:
        if any(_padded_over(pad, dim, x.ndim) for dim in (0, *space)):
            raise Refused("pad() over windows or, of maps that are not (B, C, H, W), over space")
        return wrap(plainly(F.pad, bare(x), pad, mode, value), look, x._kind)
    pad = (*pad, 0, 0)[:4]
    value = max(value, torch.finfo(x.dtype).min)  # -inf times a weight of 0 is no number
    if any(side < 0 for side in pad) or any(rim):
        raise Refused(f"pad() by {pad} around a rim of {rim}; only a first padding, of 0 or more, can be taken")
    padded = wrap(bordered(x, pad, mode, value), look, Kind(space, pad, cut))
    padded._border = mode, value, _changes(padded)
    return padded


def _changes(x: WindowMaps) -> int | None:
    """How often the maps have been written to, where that is counted."""
    return None if torch.compiler.is_compiling() or x.is_inference() else int(x._version)


def bordered(x: WindowMaps, pad: Padding, mode: str, value: float) -> Tensor:
    """Maps (B, C, H, W) with a rim from the windows around; beside the picture it is what `F.pad` would have there."""
    look, cut = x._look, x._kind.cut
    if look.layout.num_windows == 1 or not look.halo:
        padded: Tensor = plainly(F.pad, bare(x), pad, mode, value if mode == "constant" else None)
        return padded
    if mode == "constant":
        return halo_pad(sealed(x, value), look.layout, pad, value)
    if beyond(look, cut, x.shape[-1]) is not None:
        raise Refused(f"pad() with mode {mode!r} where unpadded steps have cut the picture's edge")
    return mirrored(bare(x), look.layout, pad, mode)


def _ready(func: Any, x: WindowMaps, step: Step, value: float) -> tuple[Tensor, Step, bool, tuple[Any, ...]]:
    """The maps that a kernel can slide over.

    Returns:
        the maps; the step with the padding that maps brought along as their rim; whether the function's own padding
        is still to be done; what to remember of the dense map's extent.
    """
    look, (space, rim, cut) = x._look, x._kind
    if space != (2, 3):
        raise Refused(f"{name_of(func)} of maps over the dimensions {space}; expected (B, C, H, W)")
    n = side_of(x)
    if any(rim):
        if any(step.before) or any(step.after):
            raise Refused(f"{name_of(func)} with a padding of {step.before} around maps that are padded already")
        step = step._replace(before=(rim[2], rim[0]), after=(rim[3], rim[1]))
    if look.layout.num_windows == 1:
        return bare(x), step, True, ()
    if step.stride[0] != step.stride[1]:
        raise Refused(f"{name_of(func)} with a stride of {step.stride}: windows would be square no more")
    for stride in step.stride:
        if n % stride:
            raise Unfit(
                f"{name_of(func)}: a map of {n} x {n} cells meets a stride of {stride}, which does not divide it; "
                f"choose a window size that is a multiple of the network's stride"
            )
    for reach, early in zip(step.reach, step.before, strict=True):
        if early >= reach:
            raise Refused(f"{name_of(func)}: a kernel that reaches {reach} cells fits into its padding of {early}")
    after = after_step(cut, step, n)
    if after:
        reaches(look, after)  # refuses a dense map that grows
    needed = step.rim()
    if not look.halo and not any(rim) and step.keeps() and not cut:
        return bare(x), step, True, after
    if any(rim):
        maps = _fitted(x, rim, needed)
        if maps is not None:
            return maps, step, False, after
        return _refilled(func, x, rim, needed), step, False, after
    maps = sealed(x, value)
    if any(needed):
        maps = padded_for_a_step(maps, look.layout, needed, value) if look.halo else F.pad(maps, needed, value=value)
    return maps, step, False, after


def _fitted(x: WindowMaps, rim: Padding, needed: Padding) -> Tensor | None:
    """Maps whose rim has been filled, cut to the rim that is needed; None where it is too small."""
    if any(have < want for have, want in zip(rim, needed, strict=True)):
        return None
    maps = bare(x)
    right, bottom = rim[1] - needed[1], rim[3] - needed[3]
    return maps[:, :, : maps.shape[2] - bottom, : maps.shape[3] - right] if right or bottom else maps


def _refilled(func: Any, x: WindowMaps, rim: Padding, needed: Padding) -> Tensor:
    """Padded maps with the wider rim of a kernel that reaches further than they are padded: padded anew, so wider."""
    left, right, top, bottom = rim
    maps = bare(x)
    inside = maps[:, :, top : maps.shape[2] - bottom, left : maps.shape[3] - right]
    if x._border is not None and x._border[2] == _changes(x):
        mode, value, _ = x._border
        wider = bordered(wrap(inside, x._look, x._kind._replace(rim=NO_RIM)), needed, mode, value)
        if _continues(wider, needed, maps, rim):
            return wider
    raise Refused(
        f"{name_of(func)} with a kernel that reaches further than the {rim} cells by which its maps were padded, left, "
        f"right, above and below, and a step between; pad right before it, or by as much"
    )


def _continues(wider: Tensor, needed: Padding, maps: Tensor, rim: Padding) -> bool:
    """Whether maps are still what their padding left, where no changes are counted."""
    if torch.compiler.is_compiling() or not maps.is_inference() or maps.device.type == "meta":
        return True
    right, bottom = min(needed[1], rim[1]), min(needed[3], rim[3])
    one, other = (
        part[:, :, : part.shape[2] - have[3] + bottom, : part.shape[3] - have[1] + right]
        for part, have in ((wider, needed), (maps, rim))
    )
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def sealed(x: WindowMaps, value: float) -> Tensor:
    """The maps with `value` in all cells that the dense map would not have."""
    mask = beyond(x._look, x._kind.cut, x.shape[-1])
    if mask is None:
        return bare(x)
    windows = mask.shape[0] * mask.shape[1]
    rows = mask.flatten(0, 1).repeat(x.shape[0] // windows, 1, 1)
    return bare(x).masked_fill(rows[:, None].to(x.device), value)


def counted(look: Look, kind: Kind, n: int, step: Step, padding_counts: bool, *, rows: int) -> Tensor | None:
    """(rows, 1, n / stride, n / stride): the part of each average that the dense network counts; None for all."""
    layout, rim, cut = look.layout, step.rim(), kind.cut
    if any(kind.rim):
        padding_counts = True  # it is part of the map by now
    lower, right = step.after
    within = rim[1] <= right and rim[3] <= lower
    if padding_counts and within and not cut:
        return None

    def compute() -> Tensor | None:
        held = torch.ones(len(layout) * layout.num_windows, 1, n, n)
        mask = beyond(look, cut, n)
        if mask is not None:
            held = held.masked_fill(mask.flatten(0, 1)[:, None].to(held.device), 0)
        held = halo_pad(held, layout, rim) if look.halo else F.pad(held, rim)
        if padding_counts:
            ends = reaches(look, cut) if cut else None
            held = with_dense_padding(held, layout, n, step.before, step.after, ends)
        part = F.avg_pool2d(held, step.reach, step.stride)
        part = torch.where(part > 0, part, 1.0)
        return None if not torch.compiler.is_compiling() and bool((part == 1).all()) else part

    key = ("counted", step, n, cut, padding_counts, look.halo)
    part = layout.remembered(key, compute)
    if part is None:
        return None
    return part.repeat(rows // len(part), 1, 1, 1)


def _padded_over(pad: tuple[int, ...], dim: int, ndim: int) -> bool:
    place = ndim - 1 - dim
    return any(pad[2 * place : 2 * place + 2])


def sliding_step(kernel: Any, stride: Any, padding: Any, dilation: Any = 1, ceil: bool = False) -> Step:
    """The step of a layer's arguments, each a number for both sides or two of them; padding may be "same"."""
    reach = _reach(_two(kernel), _two(dilation))
    if padding == "same":
        before = ((reach[0] - 1) // 2, (reach[1] - 1) // 2)
        return Step(reach, _two(stride), before, (reach[0] - 1 - before[0], reach[1] - 1 - before[1]), ceil)
    before = _two(0 if padding == "valid" else padding)
    return Step(reach, _two(stride), before, before, ceil)


@functools.lru_cache(maxsize=1024)
def _step_of(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Step:
    return sliding_step(kernel, stride, padding, dilation)


def _known_step(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Step:
    """The same step, worked out once for all calls of a layer."""
    if torch.compiler.is_compiling():
        return sliding_step(kernel, stride, padding, dilation)
    given = (tuple(value) if isinstance(value, list) else value for value in (stride, padding, dilation))
    return _step_of(kernel, *given)


def _reach(kernel: Any, dilation: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (spread * (side - 1) + 1 for side, spread in zip(kernel, dilation, strict=True))
    return rows, columns


def _sides(given: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel = _two(given["kernel_size"])
    stride = given.get("stride")
    return kernel, _two(stride) if stride else kernel, _two(given.get("padding", 0))


def _two(value: Any) -> tuple[int, int]:
    return pair(value) if isinstance(value, int) or len(value) == 2 else pair(value[0])


def _kind(x: WindowMaps, cut: tuple[Any, ...]) -> Kind:
    return Kind(x._kind.space, NO_RIM, cut)
