"""Steps that only move numbers about: reshaping, permuting, joining, splitting. The cells must stay in their places."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.extent import same_reach
from foveal.convert.window_maps import (
    WHOLE_POOL,
    Refused,
    WindowMaps,
    bare,
    maps_in,
    name_of,
    named,
    parameters,
    plainly,
    rule,
    side_of,
    wrap,
)


@rule(
    *named("reshape view flatten unflatten reshape_as view_as", torch, Tensor),
    torch.nn.Flatten.forward,
)
def _reshape(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0] if args else kwargs["input"]
    if not isinstance(x, WindowMaps):
        raise Refused(f"{name_of(func)} of an ordinary tensor like maps of windows")
    result = plainly(func, *args, **kwargs)
    return wrap(result, x._look, x._kind._replace(space=_found(func, x, result.shape)))


def _found(func: Any, x: WindowMaps, shape: Sequence[int]) -> tuple[int, ...]:
    """Where the dimensions over space are after reshaping."""
    old, space = tuple(x.shape), x._kind.space
    if not space:
        if not shape or shape[0] != old[0]:
            raise Refused(f"{name_of(func)} from {old} to {tuple(shape)} mixes windows")
        return ()
    first, last = space[0], space[-1] + 1
    middle = old[first:last]
    for sides in (middle, (math.prod(middle),), _unfolded(middle)):  # as they are, flattened, or flat before
        for place in range(1, len(shape) - len(sides) + 1):
            before = math.prod(old[1:first]) == math.prod(shape[1:place])
            if before and shape[0] == old[0] and tuple(shape[place : place + len(sides)]) == sides:
                return tuple(range(place, place + len(sides)))
    raise Refused(f"{name_of(func)} from {old} to {tuple(shape)} mixes windows, or cells with channels{_hint(middle)}")


def _hint(sides: Sequence[int]) -> str:
    """More words where one cell a window is left, which was mostly meant as a pool of the whole picture."""
    return f"; {WHOLE_POOL}" if set(sides) == {1} else ""


def _unfolded(sides: tuple[int, ...]) -> tuple[int, ...]:
    """(n, n) from a flat (n * n,); what it is otherwise."""
    root = math.isqrt(sides[0])
    return (root, root) if len(sides) == 1 and root * root == sides[0] else sides


@rule(
    *named("permute transpose swapaxes swapdims transpose_ movedim moveaxis", torch, Tensor),
)
def _permute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    # The same on an empty tensor whose sides are told apart by their lengths.
    places = plainly(func, torch.empty(*range(x.ndim), device="meta"), *args[1:], **kwargs).shape
    if places[0] != 0:
        raise Refused(f"{name_of(func)} moves the windows, which are the first dimension")
    space = tuple(places.index(dim) for dim in x._kind.space)
    if space != tuple(sorted(space)):
        raise Refused(f"{name_of(func)} exchanges rows and columns")
    kind = x._kind._replace(space=space)
    if func is Tensor.transpose_:
        plainly(func, x, *args[1:], **kwargs)
        x._kind = kind
        return x
    return wrap(plainly(func, bare(x), *args[1:], **kwargs), x._look, kind)


@rule(*named("unsqueeze squeeze", torch, Tensor))
def _squeeze(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input dim", args, kwargs)
    x, dim = given["input"], given.get("dim")
    result = plainly(func, *args, **kwargs)
    if func in (torch.unsqueeze, Tensor.unsqueeze):
        place = dim % (x.ndim + 1)
        space = tuple(at + (place <= at) for at in x._kind.space)
        if place == 0:
            raise Refused(f"{name_of(func)} before the windows, which are the first dimension")
    else:
        gone = [dim] if isinstance(dim, int) else list(range(x.ndim) if dim is None else dim)
        gone = [at % x.ndim for at in gone if x.shape[at] == 1]
        if {0, *x._kind.space} & set(gone):
            hint = _hint([x.shape[at] for at in x._kind.space])
            raise Refused(f"{name_of(func)} of a dimension over windows or space{hint}")
        space = tuple(at - sum(place < at for place in gone) for at in x._kind.space)
    return wrap(result, x._look, x._kind._replace(space=space))


@rule(*named("cat concat concatenate", torch))
def _cat(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("tensors dim", args, kwargs)
    parts, dim = given["tensors"], given.get("dim", given.get("axis", 0))
    x = maps_in(parts)[0]
    if not all(isinstance(part, WindowMaps) for part in parts):
        raise Refused(f"{name_of(func)} of maps of windows with an ordinary tensor")
    for part in parts:
        _refuse_unlike(func, x, part)
    if dim % x.ndim in (0, *x._kind.space):
        raise Refused(f"{name_of(func)} over windows or space")
    return wrap(plainly(torch.cat, list(parts), dim), x._look, x._kind)


@rule(torch.stack)
def _stack(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("tensors dim", args, kwargs)
    parts, dim = given["tensors"], given.get("dim", 0)
    x = parts[0]
    for part in parts:
        if not isinstance(part, WindowMaps):
            raise Refused(f"{name_of(func)} of maps of windows with an ordinary tensor")
        _refuse_unlike(func, x, part)
    place = dim % (x.ndim + 1)
    if place == 0:
        raise Refused(f"{name_of(func)} before the windows, which are the first dimension")
    space = tuple(at + (place <= at) for at in x._kind.space)
    return wrap(plainly(torch.stack, list(parts), dim), x._look, x._kind._replace(space=space))


def _refuse_unlike(func: Any, one: WindowMaps, other: WindowMaps) -> None:
    (space, rim, cut), (there, rim_there, cut_there) = one._kind, other._kind
    if (space, rim) != (there, rim_there) or (space and not same_reach(one._look, cut, cut_there, side_of(one))):
        raise Refused(f"{name_of(func)} of maps whose cells lie at different places: {one._kind} and {other._kind}")


@rule(*named("chunk split split_with_sizes tensor_split unbind unsafe_chunk", torch, Tensor))
def _split(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input dim" if name_of(func) == "unbind()" else "input sections dim"
    given = parameters(names, args, kwargs)
    x, dim = given.get("input", args[0]), given.get("dim", 0)
    place = dim % x.ndim
    if place in (0, *x._kind.space):
        raise Refused(f"{name_of(func)} over windows or space")
    parts = plainly(func, *args, **kwargs)
    lost = parts[0].ndim < x.ndim
    space = tuple(at - (lost and place < at) for at in x._kind.space)
    return tuple(wrap(part, x._look, x._kind._replace(space=space)) for part in parts)


@rule(Tensor.__getitem__, operator.getitem)  # the latter in traced graphs
def _getitem(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, index = args
    result = plainly(func, *args)
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(entry, Tensor | list) for entry in entries):
        raise Refused("indexing by a tensor or a list")
    if Ellipsis in entries:
        place = entries.index(Ellipsis)
        lacking = x.ndim - sum(entry is not None for entry in entries) + 1
        entries[place : place + 1] = [slice(None)] * lacking
    space, dim, now = [], 0, 0
    for entry in [*entries, *[slice(None)] * (x.ndim - sum(entry is not None for entry in entries))]:
        if entry is None:
            now += 1
            if dim == 0:
                raise Refused("indexing that moves the windows, which are the first dimension")
            continue
        whole = isinstance(entry, slice) and entry.indices(x.shape[dim]) == (0, x.shape[dim], 1)
        if dim in (0, *x._kind.space) and not whole:
            raise Refused(f"indexing that takes a part of the {'windows' if dim == 0 else 'cells'}: {index}")
        if dim in x._kind.space:
            space.append(now)
        now += isinstance(entry, slice)
        dim += 1
    return wrap(result, x._look, x._kind._replace(space=tuple(space)))


@rule(*named("narrow select index_select", torch, Tensor))
def _narrow(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input dim", args, kwargs)
    x, place = given["input"], given["dim"] % given["input"].ndim
    if place in (0, *x._kind.space):
        raise Refused(f"{name_of(func)} of a part of the windows or cells")
    result = plainly(func, *args, **kwargs)
    lost = result.ndim < x.ndim
    space = tuple(at - (lost and place < at) for at in x._kind.space)
    return wrap(result, x._look, x._kind._replace(space=space))


@rule(*named("expand expand_as broadcast_to", torch, Tensor))
def _expand(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, like = args[0], args[1]
    if not isinstance(x, WindowMaps):
        raise Refused(f"{name_of(func)} of an ordinary tensor to maps of windows")
    result = plainly(func, *args, **kwargs)
    if result.shape[0] != x.shape[0] or result.ndim != x.ndim:
        raise Refused(f"{name_of(func)} from {tuple(x.shape)} to {tuple(result.shape)} mixes windows")
    grows = tuple(dim for dim in range(x.ndim) if result.shape[dim] != x.shape[dim])
    if set(grows) & set(x._kind.space) and x._look.layout.num_windows > 1:
        raise Refused(f"{name_of(func)} of one cell a window to {tuple(result.shape)}; {WHOLE_POOL}")
    if isinstance(like, WindowMaps) and not x._kind.space:
        return wrap(result, x._look, like._kind)
    if len(grows) > 1 and not x._kind.space and set(grows) & {x.ndim - 1, x.ndim - 2}:
        raise Refused(f"{name_of(func)} from {tuple(x.shape)} to {tuple(result.shape)}: which of it is space?")
    return wrap(result, x._look, x._kind)


@rule(*named("pixel_shuffle pixel_unshuffle", F, torch))
def _pixel_shuffle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if x._kind.space != (x.ndim - 2, x.ndim - 1) or any(x._kind.rim) or x._kind.cut:
        raise Refused(f"{name_of(func)} of maps that are not (B, C, H, W), padded or cut by unpadded steps")
    result = plainly(func, *args, **kwargs)  # raises where a window does not divide
    return wrap(result, x._look, x._kind)


@rule(*named("channel_shuffle native_channel_shuffle", F, torch))
def _channel_shuffle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return wrap(plainly(func, *args, **kwargs), args[0]._look, args[0]._kind)
