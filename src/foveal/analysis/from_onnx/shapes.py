"""ONNX's operators that move numbers without changing them, as functions of PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, integers, operator, setting


@operator("Reshape", settings=(1,))
def _reshape(node: Node, x: Tensor, shape: Any) -> Tensor:
    sides = integers(shape, "sides")
    if not node.get("allowzero", 0):
        sides = [x.shape[at] if side == 0 else side for at, side in enumerate(sides)]
    return x.reshape(sides)


@operator("Flatten")
def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    return x.flatten(1) if axis == 1 and x.ndim > 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Transpose")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or list(range(x.ndim))[::-1])


@operator("Squeeze", settings=(1,))
def _squeeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    which = setting(node, "axes", axes)
    if which is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in which):
        raise ValueError(f"it drops the axes {which} of {tuple(x.shape)}, which are not all of size 1")
    return x.squeeze(which[0]) if len(which) == 1 else x.squeeze(tuple(which))


@operator("Unsqueeze", settings=(1,))
def _unsqueeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    which = setting(node, "axes", axes) or []
    if len(which) == 1:
        return x.unsqueeze(which[0])
    rank, rest = x.ndim + len(which), iter(x.shape)
    new = {axis % rank for axis in which}
    return x.reshape([1 if axis in new else next(rest) for axis in range(rank)])


@operator("Expand", settings=(1,))
def _expand(node: Node, x: Tensor, shape: Any) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(integers(shape, "sides"))))


@operator("Tile", settings=(1,))
def _tile(node: Node, x: Tensor, repeats: Any) -> Tensor:
    return x.repeat(integers(repeats, "repeats"))


@operator("Concat")
def _concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(values, node.get("axis"))


@operator("Split", settings=(1,))
def _split(node: Node, x: Tensor, split: Any = None) -> tuple[Tensor, ...]:
    axis, sizes = node.get("axis", 0), setting(node, "split", split)
    if sizes is None:  # equal parts; the last ones have what is left
        side, parts = x.shape[axis], len(node.writes)
        equal = math.ceil(side / parts)
        sizes = [max(0, min(equal, side - equal * part)) for part in range(parts)]
    return torch.split(x, sizes, axis)


@operator("Slice", settings=(1, 2, 3, 4))
def _slice(node: Node, x: Tensor, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Tensor:
    begin, end = setting(node, "starts", starts) or [], setting(node, "ends", ends) or []
    which = setting(node, "axes", axes)
    which = list(range(len(begin))) if which is None else which
    stride = [1] * len(begin) if steps is None else integers(steps, "steps")
    cuts = [slice(None)] * x.ndim
    for axis, first, last, step in zip(which, begin, end, stride, strict=True):
        if step > 0:
            cuts[axis] = slice(first, last, step)
            continue
        # PyTorch has no slices that run backwards. An end before the first place is any below minus the side.
        places = range(x.shape[axis])[slice(first, None if last < -x.shape[axis] else last, step)]
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x if all(cut == slice(None) for cut in cuts) else x[tuple(cuts)]


@operator("Gather", settings=(1,))
def _gather(node: Node, x: Tensor, indices: Any) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    if isinstance(indices, np.ndarray):
        if indices.ndim == 0:
            return x.select(axis, int(indices))
        flat = np.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
        if flat.size and (flat == np.arange(flat[0], flat[0] + flat.size)).all():
            picked = x.narrow(axis, int(flat[0]), flat.size)
        else:
            picked = x.index_select(axis, torch.as_tensor(flat, dtype=torch.int64, device=x.device))
        return picked if indices.ndim == 1 else picked.unflatten(axis, indices.shape)
    return x[(slice(None),) * axis + (indices.long(),)]


@operator("GatherElements")
def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


@operator("GatherND")
def _gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    if node.get("batch_dims", 0):
        raise ValueError("it gathers sample by sample (batch_dims), which is not followed")
    return x[indices.long().unbind(-1)]


@operator("ScatterND")
def _scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    how = node.get("reduction", "none")
    if how not in ("none", "add"):
        raise ValueError(f"it scatters with reduction {how!r}; only none and add are followed")
    return x.index_put(indices.long().unbind(-1), updates, accumulate=how == "add")


@operator("ScatterElements")
def _scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, how = node.get("axis", 0), node.get("reduction", "none")
    places = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    if how == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[how])


@operator("Pad", settings=(1, 2, 3))
def _pad(node: Node, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    amounts = setting(node, "pads", pads) or []
    which = list(range(x.ndim)) if axes is None else integers(axes, "axes")
    if isinstance(value, Tensor):
        raise ValueError("the value that it pads with is computed from data")
    number = node.get("value", 0.0) if value is None or value.size == 0 else value.item()
    around = [0] * (2 * x.ndim)  # from the last axis on, in front and behind, as PyTorch counts
    for at, axis in enumerate(which):
        last = x.ndim - 1 - axis % x.ndim
        around[2 * last : 2 * last + 2] = amounts[at], amounts[at + len(which)]
    while len(around) > 2 and around[-2:] == [0, 0]:
        around = around[:-2]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        node.get("mode", "constant")
    ]
    if mode == "constant":
        return F.pad(x, around, value=number)
    if len(around) > 2 * min(3, x.ndim - 1):
        raise ValueError(f"it pads the axes {which} of {tuple(x.shape)} by {mode}; PyTorch does so for space only")
    around += [0] * (2 * max(1, x.ndim - 2) - len(around))  # these modes take all axes of space
    return F.pad(x, around, mode)


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // block**2, height * block, width * block)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * block**2, height // block, width // block)


@operator("Trilu", settings=(1,))
def _trilu(node: Node, x: Tensor, k: Any = None) -> Tensor:
    diagonal = 0 if k is None else integers(k, "diagonals")[0]
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


@operator("CumSum", settings=(1,))
def _cumulative_sum(node: Node, x: Tensor, axis: Any) -> Tensor:
    along, backwards = integers(axis, "axes")[0], node.get("reverse", 0)
    x = x.flip(along) if backwards else x
    sums = x.cumsum(along) - x if node.get("exclusive", 0) else x.cumsum(along)
    return sums.flip(along) if backwards else sums


@operator("OneHot", settings=(1, 2))
def _one_hot(node: Node, places: Tensor, depth: Any, values: Any) -> Tensor:
    many, axis = integers(depth, "depth")[0], node.get("axis", -1)
    off, on = (values if isinstance(values, Tensor) else torch.as_tensor(np.array(values))).to(places.device)
    places = torch.where(places < 0, places + many, places).unsqueeze(axis)
    shape = [1] * places.ndim
    shape[axis] = many
    return torch.where(places == torch.arange(many, device=places.device).view(shape), on, off)


@operator("TopK", settings=(1,))
def _top_k(node: Node, x: Tensor, k: Any) -> tuple[Tensor, ...]:
    count, largest = integers(k, "numbers to keep")[0], bool(node.get("largest", 1))
    return tuple(x.topk(count, node.get("axis", -1), largest, bool(node.get("sorted", 1))))


@operator("GridSample")
def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    border = node.get("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode, border, align_corners=bool(node.get("align_corners", 0)))
