"""A periphery of its own for any network: windows coarser than level 0 go apart from the fovea's, through the leading
part of every layer's channels, in a dtype of their own, or both.

Slimmable networks (Yu et al. 2019), with the width chosen by eccentricity. The convolutions of the periphery are
smaller dense ones, by slices of the same weights. Coarse windows never read finer ones, so they need no channel that
they lack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.blocks.kept_norm import batch_norm_kept
from foveal.blocks.slim import narrow_channels, split_filtered, split_halo
from foveal.convert.extent import Step
from foveal.convert.norms import kept_cells
from foveal.convert.pointwise import POINTWISE, prelu_parts, refuse_places, refuse_unlike_sides
from foveal.convert.sliding import CONV_DEFAULTS, THREE, counted, sliding_step, whole_pool
from foveal.convert.window_maps import (
    NO_RIM,
    RULES,
    Kind,
    Look,
    Refused,
    Rule,
    WindowMaps,
    bare,
    maps_in,
    name_of,
    named,
    parameters,
    plainly,
    refuse_own_gradients,
    repeat,
    wrap,
)
from foveal.halo_table import pair
from foveal.small_conv import conv_of_padded
from foveal.winograd import can_filter, filter_tiles, padded_tables

Ranges = tuple[tuple[int, int], ...]
"""Which of a layer's channels the periphery holds, from and to."""


@dataclasses.dataclass(frozen=True, eq=False)
class Periphery:
    """What all maps of one call share, beside their look.

    Args:
        channels: leading fraction of every layer's channels that coarse windows compute.
        dtype: in which they do.
        whole: the look of all windows.
        fine: (F,) int64, the level-0 windows among all; likewise `coarse`, the others.
        picture_of: (G,) int64, which picture each coarse window belongs to.
    """

    channels: float
    dtype: torch.dtype
    whole: Look
    fine: Tensor
    coarse: Tensor
    picture_of: Tensor


class SplitMaps(WindowMaps):
    """The maps of the fovea, which hold beside them those of the periphery."""

    _rest: Tensor
    _held: Ranges
    _periphery: Periphery

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = SPLIT_RULES.get(func)
        if rule is None:
            if getattr(func, "__name__", "") == "__get__" or RULES.get(func) is RULES[Tensor.size]:
                return super().__torch_function__(func, types, args, kwargs)
            raise Refused(f"{name_of(func)} is not known with a periphery of its own width or dtype")
        return rule(func, args, kwargs or {})


SPLIT_RULES: dict[Any, Rule] = {}


def _rule(*functions: Any) -> Any:
    def register(how: Rule) -> Rule:
        SPLIT_RULES.update(dict.fromkeys(functions, how))
        return how

    return register


def split_maps(x: Tensor, look: Look, channels: float, dtype: torch.dtype | None) -> WindowMaps:
    """(B * K, C, S, S) -> the fovea's maps with the periphery's beside them, where there is a periphery.

    Raises:
        ValueError: if a picture has no window of level 0.
    """
    layout, batch = look.layout, len(x) // look.layout.num_windows

    def compute() -> tuple[Tensor, ...]:
        is_fine = (layout.levels == 0).expand(batch, -1)
        fine, coarse = is_fine.flatten().nonzero()[:, 0], (~is_fine).flatten().nonzero()[:, 0]
        first = torch.searchsorted(fine, torch.arange(batch) * layout.num_windows)
        if not bool(is_fine.any(1).all()):
            raise ValueError("a picture has no window of level 0; a periphery of its own needs a fovea in each")
        return fine, coarse, first, fine // layout.num_windows, coarse // layout.num_windows

    parts = layout.remembered(("fovea", batch), compute)
    fine, coarse, first, picture_of, coarse_of = (rows.to(x.device) for rows in parts)
    if not len(coarse):
        return wrap(x, look, Kind((2, 3)))
    mine = dataclasses.replace(look, picture_of=picture_of, first=first)
    periphery = Periphery(channels, dtype or x.dtype, look, fine, coarse, coarse_of)
    rest = x.index_select(0, coarse).to(periphery.dtype)
    return _wrap(x.index_select(0, fine), rest, mine, Kind((2, 3)), ((0, x.shape[1]),), periphery)


def merged(x: SplitMaps) -> Tensor:
    """(B * K, C, n, n) in the fovea's dtype, zero where the periphery did not compute."""
    face, rest, periphery = bare(x), x._rest.to(x.dtype), x._periphery
    rest = _spread(rest, x._held, face.shape[1])
    order = torch.cat([periphery.fine, periphery.coarse]).argsort()
    return torch.cat([face, rest]).index_select(0, order)


def _wrap(face: Tensor, rest: Tensor, look: Look, kind: Kind, held: Ranges, periphery: Periphery) -> SplitMaps:
    refuse_own_gradients(look)
    maps = face.as_subclass(SplitMaps)
    maps._look, maps._kind, maps._rest, maps._held, maps._periphery = look, kind, rest, held, periphery
    return maps


def _like(x: SplitMaps, face: Tensor, rest: Tensor, held: Ranges | None = None) -> SplitMaps:
    return _wrap(face, rest, x._look, x._kind, x._held if held is None else held, x._periphery)


def _take(x: Tensor, dim: int, held: Ranges) -> Tensor:
    """The channels that the periphery holds, out of all."""
    if held == ((0, x.shape[dim]),):
        return x
    parts = [x.narrow(dim, first, last - first) for first, last in held]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _spread(rest: Tensor, held: Ranges, channels: int) -> Tensor:
    """The periphery's channels in their places among all, zeros between; channels are dimension 1."""
    if held == ((0, channels),):
        return rest
    parts, place, used = [], 0, 0
    for first, last in (*held, (channels, channels)):
        if first > place:
            parts.append(rest.new_zeros(len(rest), first - place, *rest.shape[2:]))
        parts.append(rest[:, used : used + last - first])
        place, used = last, used + last - first
    return torch.cat(parts, 1)


@_rule(*POINTWISE)
def _pointwise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    maps = maps_in([*args, *kwargs.values()])
    splits = [x for x in maps if isinstance(x, SplitMaps)]
    x = splits[0]
    if any(other._held != x._held or other.ndim != 4 for other in splits):
        raise Refused(f"{name_of(func)} of maps of which the periphery holds unlike channels")
    if any(not isinstance(other, SplitMaps) and other._kind.space for other in maps):
        raise Refused(f"{name_of(func)} of maps with and without a periphery of their own")
    for other in splits[1:]:
        refuse_unlike_sides(func, x, other)
    refuse_places(func, [*args, *kwargs.values()], x._kind, 4, len(x))
    face = [_face(value) for value in args], {name: _face(value) for name, value in kwargs.items()}
    rest = [_rest(value, x) for value in args], {name: _rest(value, x) for name, value in kwargs.items()}
    return _like(x, plainly(func, *face[0], **face[1]), plainly(func, *rest[0], **rest[1]))


def _face(value: Any) -> Any:
    return bare(value) if isinstance(value, WindowMaps) else value


def _rest(value: Any, x: SplitMaps) -> Any:
    if isinstance(value, SplitMaps):
        return value._rest
    if isinstance(value, WindowMaps):
        rows = value._look.by_picture(bare(value)).index_select(0, x._periphery.picture_of)
        return _take(rows, 1, x._held).to(x._periphery.dtype) if rows.shape[1] != 1 else rows.to(x._periphery.dtype)
    if isinstance(value, Tensor) and value.ndim:
        wide = value.ndim > 2 and value.shape[-3] == x.shape[1] != 1
        value = _take(value, value.ndim - 3, x._held) if wide else value
        return value.to(x._periphery.dtype) if value.is_floating_point() else value
    return value


@_rule(torch.prelu)
def _prelu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = prelu_parts(func, args, kwargs)
    narrow = weight if weight.numel() == 1 else _take(weight, 0, x._held)
    return _like(x, torch.prelu(bare(x), weight), torch.prelu(x._rest, narrow.to(x._periphery.dtype)))


@_rule(F.conv2d, torch.conv2d)
def _conv2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**CONV_DEFAULTS, **parameters("input weight bias stride padding dilation groups", args, kwargs)}
    x, weight, groups = given["input"], given["weight"], given["groups"]
    step = sliding_step(weight.shape[2:], given["stride"], given["padding"], given["dilation"])
    narrow, held, slice_groups = _narrowed(weight, groups, x)
    bias = given["bias"]
    narrow_bias = None if bias is None else _take(bias, 0, held).to(x._periphery.dtype)
    whole = groups == 1 and weight.shape[1] == x.shape[1] and not torch.compiler.is_compiling()
    leading = whole and len(x._held) == 1 and x._held[0][0] == 0
    if step == THREE and x._look.halo and leading:
        found = split_filtered(bare(x), x._rest, x._look.layout, weight, bias, held[0][1])
        if found is not None:
            return _wrap(*found, x._look, x._kind, held, x._periphery)
    face, rest, own = _padded(func, x, step, 0.0)
    stride, padding, dilation = given["stride"], given["padding"] if own else 0, given["dilation"]
    fast = step == THREE and not padding and leading
    n, outputs = x.shape[-1], held[0][1]

    def both(part: Tensor, kernel: Tensor, shift: Tensor | None, groups: int, narrow: int | None) -> Tensor:
        if fast and can_filter(part, weight, n):
            tables = padded_tables(len(part), n, max(part.shape[1], outputs))
            return filter_tiles(part, tables, weight, shift, n=n, narrow=narrow)
        if padding:
            return F.conv2d(part, kernel, shift, stride, padding, dilation, groups)
        return conv_of_padded(part, kernel, shift, step.stride, pair(dilation), groups)

    return _wrap(
        both(face, weight, bias, groups, None),
        both(rest, narrow.to(rest.dtype), narrow_bias, slice_groups, outputs),
        x._look,
        x._kind,
        held,
        x._periphery,
    )


def _narrowed(weight: Tensor, groups: int, x: SplitMaps) -> tuple[Tensor, Ranges, int]:
    """The periphery's part of a kernel, the channels that come out of it, and its groups."""
    width, outputs, inputs = x._periphery.channels, weight.shape[0], x.shape[1]
    if groups == 1:
        held: Ranges = ((0, narrow_channels(outputs, width)),)
        return _take(_take(weight, 0, held), 1, x._held), held, 1
    if weight.shape[1] == 1 and outputs == inputs == groups:  # depthwise: what comes in goes out
        return _take(weight, 0, x._held), x._held, sum(last - first for first, last in x._held)
    each = inputs // groups
    (first, last), *more = x._held
    if first or more or last % each:
        raise Refused(
            f"conv2d() in {groups} groups of {each} channels, of which the periphery holds {x._held}: no whole groups"
        )
    kept = last // each
    held = ((0, kept * (outputs // groups)),)
    return _take(weight, 0, held), held, kept


def _padded(func: Any, x: SplitMaps, step: Step, value: float) -> tuple[Tensor, Tensor, bool]:
    """Both parts, ready for a kernel without padding; and whether the function's own is still to be done."""
    n = x.shape[-1]
    if not step.keeps():
        raise Refused(f"{name_of(func)} without padding, which cuts the dense map, with a periphery of its own")
    if any(n % stride for stride in step.stride):
        raise Refused(f"{name_of(func)}: a stride of {step.stride} does not divide a map of {n} x {n} cells")
    if not x._look.halo:
        return bare(x), x._rest, True
    rim = step.rim()
    if not any(rim):
        return bare(x), x._rest, False
    channels = x.shape[1]
    face, rest = split_halo(bare(x), x._rest, x._look.layout, rim, lambda rows: _spread(rows, x._held, channels), value)
    return face, rest, False


@_rule(*named("max_pool2d", F, torch), F.max_pool2d_with_indices)
def _max_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input kernel_size stride padding dilation ceil_mode return_indices", args, kwargs)
    x, kernel, dilation = given["input"], given["kernel_size"], given.get("dilation", 1)
    if given.get("return_indices"):
        raise Refused("max_pool2d() with return_indices=True: the largest may lie in another window")
    if isinstance(kernel, torch.Size):
        return whole_pool(func, F.adaptive_max_pool2d, args, kwargs)
    stride = given.get("stride") or kernel
    step = sliding_step(kernel, stride, given.get("padding", 0), dilation, bool(given.get("ceil_mode", False)))
    # Of what none covers, which never wins: a number that both parts can hold.
    least = max(torch.finfo(part.dtype).min for part in (bare(x), x._rest))
    face, rest, own = _padded(func, x, step, least)
    padding, ceil = step.before if own else 0, step.ceil and own
    face, rest = (F.max_pool2d(part, kernel, stride, padding, dilation, ceil) for part in (face, rest))
    return _like(x, face, rest)


@_rule(*named("avg_pool2d", F, torch, torch._C._nn))
def _avg_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    given = parameters(names, args, kwargs)
    x, kernel, counts = given["input"], given["kernel_size"], bool(given.get("count_include_pad", True))
    if isinstance(kernel, torch.Size):
        return whole_pool(func, F.adaptive_avg_pool2d, args, kwargs)
    stride, divisor, ceil = given.get("stride") or kernel, given.get("divisor_override"), bool(given.get("ceil_mode"))
    step = sliding_step(kernel, stride, given.get("padding", 0), 1, ceil)
    face, rest, own = _padded(func, x, step, 0.0)
    padding, ceil = step.before if own else 0, ceil and own
    include = counts if not x._look.halo else True
    face, rest = (F.avg_pool2d(part, kernel, stride, padding, ceil, include, divisor) for part in (face, rest))
    if x._look.halo and divisor is None:
        part = counted(x._periphery.whole, x._kind, x.shape[-1], step, counts, rows=len(x) + len(x._rest))
        if part is not None:
            face = face / part.to(face).index_select(0, x._periphery.fine)
            rest = rest / part.to(rest).index_select(0, x._periphery.coarse)
    return _like(x, face, rest)


@_rule(F.batch_norm, torch.batch_norm)
def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input running_mean running_var weight bias training momentum eps"
    given = parameters(names, args, kwargs)
    x, training = given.pop("input"), given.get("training", False)
    given.pop("cudnn_enabled", None)
    vectors = {name: given[name] for name in names.split()[1:5] if given.get(name) is not None}
    if not training:
        narrow = {name: _take(value, 0, x._held) for name, value in vectors.items()}
        return _like(x, F.batch_norm(bare(x), **given), F.batch_norm(x._rest, **{**given, **narrow}))
    # Statistics of the channels that both hold come from both; of the others, from the fovea alone.
    face, rest, channels = bare(x), x._rest.to(x.dtype), torch.arange(x.shape[1], device=x.device)
    both = _take(channels, 0, x._held)
    alone = channels[~torch.isin(channels, both)]
    kept = kept_cells(x._periphery.whole, x._kind, x.shape[-1], len(face) + len(rest))
    kept = torch.ones(len(face) + len(rest), *x.shape[2:], dtype=torch.bool) if kept is None else kept
    kept_fine, kept_coarse = kept[x._periphery.fine.cpu()], kept[x._periphery.coarse.cpu()]
    result = torch.empty_like(face)
    together = _norm(torch.cat([face[:, both], rest]), torch.cat([kept_fine, kept_coarse]), both, vectors, given)
    result = result.index_copy(1, both, together[: len(face)])
    if len(alone):
        result = result.index_copy(1, alone, _norm(face[:, alone], kept_fine, alone, vectors, given))
    return _like(x, result, together[len(face) :].clone().to(x._periphery.dtype))


def _norm(x: Tensor, kept: Tensor, channels: Tensor, vectors: dict[str, Tensor], given: dict[str, Any]) -> Tensor:
    """Batch norm in training of some of the channels; their running statistics move."""
    parts = {name: value[channels] for name, value in vectors.items()}
    result = batch_norm_kept(x, kept, **parts, momentum=given.get("momentum", 0.1), eps=given.get("eps", 1e-5))
    with torch.no_grad():
        for name in ("running_mean", "running_var"):
            if name in vectors:
                vectors[name][channels] = parts[name]
    return result


@_rule(*named("cat concat concatenate", torch))
def _cat(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("tensors dim", args, kwargs)
    parts: Sequence[Any] = given["tensors"]
    if given.get("dim", 0) not in (1, -3) or not all(isinstance(part, SplitMaps) for part in parts):
        raise Refused(f"{name_of(func)} of other than channels, or with maps without a periphery of their own")
    held: list[tuple[int, int]] = []
    place = 0
    for part in parts:
        held += [(first + place, last + place) for first, last in part._held]
        place += part.shape[1]
    face, rest = torch.cat([bare(part) for part in parts], 1), torch.cat([part._rest for part in parts], 1)
    return _like(parts[0], face, rest, tuple(held))


@_rule(Tensor.expand_as)
def _expand_as(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not isinstance(args[0], WindowMaps) or args[0]._kind.space:
        raise Refused(f"{name_of(func)} of other than what a whole picture has")
    return args[0]  # it broadcasts as it is, to either width


@_rule(*named("mean sum amax adaptive_avg_pool2d adaptive_max_pool2d", torch, Tensor, F, torch._C._nn))
def _over_space(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, look = args[0], args[0]._look
    whole = x._periphery.whole
    result = RULES[func](func, (wrap(merged(x), whole, Kind((2, 3), NO_RIM, x._kind.cut)), *args[1:]), kwargs)
    if result._kind.space:
        raise Refused(f"{name_of(func)} over channels, of which the periphery lacks some")
    return repeat(whole.by_picture(bare(result)), look)
