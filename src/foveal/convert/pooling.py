"""Steps that take a whole picture together: means, largest values, norms over space, adaptive pools.

A cell weighs what it alone stands for of the picture; covered cells, cells beside the picture and cells that the dense
map would not have weigh nothing. Sums are refused: networks divide them by the cells that `x.shape` counts, which are
those of a window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.convert.extent import beyond, reaches
from foveal.convert.precision import given_back, summed, without_autocast
from foveal.convert.window_maps import (
    POOLED,
    Refused,
    Unfit,
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
from foveal.coverage import own_areas
from foveal.layout import Layout


def fills(layout: Layout) -> bool:
    """Whether each picture is one window that it fills, so that the dense network's own operation is meant."""
    if layout.num_windows > 1 or torch.compiler.is_compiling():
        return False
    covered = (layout.size << layout.levels)[..., None]
    return layout.remembered(
        "fills", lambda: bool((layout.origins == 0).all() and (layout.pictures[:, None] == covered).all())
    )


def is_planned_whole(layout: Layout) -> bool:
    """Whether a graph is traced for a layout that is known to be of pictures in one window each."""
    return torch.compiler.is_compiling() and layout.num_windows == 1 and layout.remembered("fills", lambda: False)


def weights(x: WindowMaps) -> Tensor:
    """(B, K, n, n) float64 on the maps' device: the share of its picture that each cell stands for; adds up to 1."""

    def compute() -> Tensor:
        areas = _areas(x)
        areas = areas if x._look.pool == "area" else (areas > 0).double()
        return areas / areas.sum((1, 2, 3), keepdim=True).clamp(min=1e-9)

    layout = x._look.layout
    share = layout.remembered(("weights", x._look.pool, x._kind.cut, side_of(x)), compute).to(x.device)
    return share.expand(x.shape[0] // layout.num_windows, -1, -1, -1)


def finest_cells(x: WindowMaps) -> Tensor:
    """(B,) float64: the whole picture in cells of the finest level, of which the dense map would have as many."""
    layout, n = x._look.layout, side_of(x)
    cells = layout.remembered(("cells", x._kind.cut, n), lambda: _areas(x).sum((1, 2, 3)) / (layout.size / n) ** 2)
    return cells.to(x.device).expand(x.shape[0] // layout.num_windows)


def _areas(x: WindowMaps) -> Tensor:
    """(B, K, n, n) float64: what each cell alone stands for, nothing where the dense map has none."""
    n = side_of(x)
    areas, mask = x._look.layout.areas(n).double(), beyond(x._look, x._kind.cut, n)
    return areas if mask is None else areas.masked_fill(mask, 0)


_REDUCING = "mean sum amax amin norm vector_norm std var logsumexp softmax log_softmax prod all any cumsum std_mean"
_REDUCING += " var_mean max min argmax argmin softmin frobenius_norm nansum nanmean median"


@rule(*named(_REDUCING, torch, Tensor, F, torch.linalg))
def _reduce(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = name_of(func)[:-2]
    names = {
        "norm": "input p dim keepdim dtype",
        "linalg_norm": "A ord dim keepdim",
        "linalg_vector_norm": "x ord dim keepdim",
        "var": "input dim unbiased keepdim",
    }
    given = parameters(names.get(name, "input dim keepdim"), args, kwargs)
    x, dim = args[0] if args else next(iter(maps_in(kwargs.values()))), given.get("dim", given.get("axis"))
    if name in ("max", "min") and isinstance(dim, Tensor):
        raise Refused(f"{name}() of two maps; use torch.{name}imum")
    if dim is None or dim == () or dim == []:
        raise Refused(f"{name}() over all dimensions, and so over windows")
    dims = {side % x.ndim for side in ([dim] if isinstance(dim, int) else dim)}
    space = set(x._kind.space)
    if 0 in dims:
        raise Refused(f"{name}() over the windows, which are the first dimension")
    if not dims & space:
        result = plainly(func, *args, **kwargs)
        single = result if isinstance(result, Tensor) else result[0]
        kept = single.ndim == x.ndim
        kind = x._kind._replace(space=tuple(at - (0 if kept else sum(d < at for d in dims)) for at in x._kind.space))
        if isinstance(result, Tensor):
            return wrap(result, x._look, kind)
        return type(result)([wrap(part, x._look, kind) for part in result])
    if dims != space:
        raise Refused(f"{name}() over the dimensions {sorted(dims)}, of which only {sorted(dims & space)} are space")
    if any(x._kind.rim):
        raise Refused(f"{name}() over space of maps that are padded")
    if name not in _WHOLE:
        raise Refused(f"{name}() over space has no meaning across windows that is known here")
    if fills(x._look.layout) or (name == "sum" and is_planned_whole(x._look.layout)):
        return wrap(plainly(func, *args, **kwargs), x._look, POOLED)
    result = _WHOLE[name](x, given)
    if given.get("keepdim", False):
        for at in sorted(space):
            result = result.unsqueeze(at)
    return repeat(result, x._look)


def _mean(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    """(B, ...) without the dimensions over space."""
    dtype = given.get("dtype")
    return _weighed(x, summed(bare(x), dtype, name="mean()")).to(dtype or x.dtype)


def _weighed(x: WindowMaps, maps: Tensor) -> Tensor:
    """The mean over space of maps of the same cells, in their own dtype."""
    share, space = weights(x).to(maps.dtype), x._kind.space
    if space == (2, 3):
        with without_autocast(maps):
            return torch.einsum("bkchw,bkhw->bc", maps.unflatten(0, share.shape[:2]), share)
    return _spread(maps, share, space)


def _spread(maps: Tensor, share: Tensor, space: tuple[int, ...]) -> Tensor:
    shape = [1] * (maps.ndim + 1)
    shape[0], shape[1] = share.shape[:2]
    for at in space:
        shape[at + 1] = maps.shape[at]
    spread = maps.unflatten(0, share.shape[:2]) * share.reshape(shape)
    return spread.sum((1, *(at + 1 for at in space)))


def _sum(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    # Unfit: one window that holds the whole picture sums up as the dense network does.
    raise Unfit(
        "sum() over space: its cells would be the whole picture's, but those of x.shape, by which sums are mostly "
        "divided, are one window's; write x.mean((2, 3)), or of a sum by weights (x * w).mean((2, 3)) / w.mean((2, 3))"
    )


def _norm(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    order, dtype = given.get("p", given.get("ord", 2)), given.get("dtype")
    if order not in (2, 2.0, "fro", None):
        raise Refused(f"norm() of order {order!r} over space; of the orders only 2 is known across windows")
    mean = _weighed(x, summed(bare(x), dtype, name="norm()").square())
    total = mean * finest_cells(x).to(mean.dtype).view(-1, *[1] * (mean.ndim - 1))
    return total.sqrt().to(dtype or given_back(bare(x)))


def _linalg_norm(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    if len(x._kind.space) == 2 and given.get("ord") not in (None, "fro"):
        raise Refused(
            f"linalg_norm() of order {given['ord']!r} over two dimensions, which is a norm of matrices, not of their "
            f"numbers; that is torch.linalg.vector_norm"
        )
    return _norm(x, given)


def _amax(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    return _largest(x)


def _largest(x: WindowMaps) -> Tensor:
    share, space = weights(x), x._kind.space
    shape = [1] * (x.ndim + 1)
    shape[0], shape[1] = share.shape[:2]
    for at in space:
        shape[at + 1] = x.shape[at]
    maps = bare(x).unflatten(0, share.shape[:2])
    seen = maps.masked_fill((share == 0).reshape(shape), float("-inf"))
    return seen.amax((1, *(at + 1 for at in space)))


def _amin(x: WindowMaps, given: dict[str, Any]) -> Tensor:
    return -_largest(wrap(-bare(x), x._look, x._kind))


_WHOLE: dict[str, Any] = {
    "mean": _mean,
    "sum": _sum,
    "amax": _amax,
    "amin": _amin,
    "norm": _norm,
    "linalg_norm": _linalg_norm,
    "linalg_vector_norm": _norm,
}


@rule(*named("adaptive_avg_pool2d", F, torch, torch._C._nn))
def _adaptive_avg_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, size = _adaptive(func, args, kwargs)
    if not x._kind.space:
        return once_a_picture(F.adaptive_avg_pool2d, x, size)
    if fills(x._look.layout):
        return wrap(plainly(F.adaptive_avg_pool2d, bare(x), size), x._look, POOLED)
    if size == (1, 1):
        return repeat(_mean(x, {})[..., None, None], x._look)
    maps = summed(bare(x), name=name_of(func))
    share = _bins(x, size).to(maps).expand(x.shape[0] // x._look.layout.num_windows, *[-1] * 5)
    with without_autocast(maps):
        pooled = torch.einsum("bkchw,bkhwyx->bcyx", maps.unflatten(0, share.shape[:2]), share)
    return repeat(pooled.to(x.dtype), x._look)


@rule(*named("adaptive_max_pool2d", F, torch), F.adaptive_max_pool2d_with_indices)
def _adaptive_max_pool2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, size = _adaptive(func, args, kwargs)
    if not x._kind.space:
        return once_a_picture(F.adaptive_max_pool2d, x, size)
    if fills(x._look.layout):
        return wrap(plainly(F.adaptive_max_pool2d, bare(x), size), x._look, POOLED)
    if size == (1, 1):
        return repeat(_largest(x)[..., None, None], x._look)
    share = _bins(x, size).to(x.device).expand(x.shape[0] // x._look.layout.num_windows, *[-1] * 5)
    maps, found = bare(x).unflatten(0, share.shape[:2]), []
    for held in (share > 0).flatten(4).unbind(-1):  # one bin after the other: all at once would be the maps so often
        seen = maps.masked_fill(~held[:, :, None], float("-inf")).amax((1, 3, 4))
        found.append(seen.masked_fill(~held.any(3).any(2).any(1)[:, None], 0))  # where no window lies
    return repeat(torch.stack(found, -1).unflatten(-1, size), x._look)


def _adaptive(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[WindowMaps, tuple[int, int]]:
    given = parameters("input output_size return_indices", args, kwargs)
    x, size = given["input"], given["output_size"]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    sides = sides * 2 if len(sides) == 1 else sides
    if given.get("return_indices"):
        raise Refused(f"{name_of(func)} with return_indices=True: the largest may lie in another window")
    if x._kind.space not in ((), (2, 3)) or any(x._kind.rim) or None in sides:
        raise Refused(f"{name_of(func)} to {size} of maps that are padded, or not (B, C, H, W)")
    return x, sides


def _bins(x: WindowMaps, size: tuple[int, int]) -> Tensor:
    """(B, K, n, n, height, width) float64: what each cell gives to each of the dense network's adaptive bins."""

    def compute() -> Tensor:
        cells = dense_cells(x)
        return shares(x, (_strips(cells[:, 0], size[0]), _strips(cells[:, 1], size[1])))

    return x._look.layout.remembered(("bins", size, x._kind.cut, side_of(x)), compute)


def dense_cells(x: WindowMaps) -> Tensor:
    """(B, 2) int64: the cells along y and x of the map that the dense network would have."""
    look, cut = x._look, x._kind.cut
    layout = look.layout
    cells = torch.ceil(layout.pictures / (layout.size / side_of(x))).long()
    if cut:
        far = reaches(look, cut)
        finest = torch.where((layout.levels == 0)[..., None], far, torch.zeros_like(far)).amax(1)
        cells = torch.where(finest > 0, torch.minimum(cells, finest), cells)
    return cells


def shares(x: WindowMaps, strips: tuple[Tensor, Tensor]) -> Tensor:
    """(B, K, n, n, P, Q) float64: what each cell stands for of each part of the picture; adds up to 1 in each.

    Args:
        x: the maps.
        strips: (B, P, 2) and (B, Q, 2), where the parts begin and end along y and x, in cells of the dense map.
    """
    layout, n = x._look.layout, side_of(x)
    areas = own_areas(
        size=layout.size,
        origins=layout.origins,
        levels=layout.levels,
        pictures=layout.pictures,
        valid=layout.valid,
        n=n,
        bins=(strips[0] * (layout.size / n), strips[1] * (layout.size / n)),
    ).double()
    mask = beyond(x._look, x._kind.cut, n)
    areas = areas if mask is None else areas.masked_fill(mask[..., None, None], 0)
    return areas / areas.sum((1, 2, 3), keepdim=True).clamp(min=1e-9)


def _strips(cells: Tensor, many: int) -> Tensor:
    """(B, many, 2) int64: where each adaptive bin begins and ends, in cells."""
    place = torch.arange(many + 1, device=cells.device)
    begin = place[:-1] * cells[:, None] // many
    end = -(-(place[1:] * cells[:, None]) // many)
    return torch.stack([begin, end], -1)
