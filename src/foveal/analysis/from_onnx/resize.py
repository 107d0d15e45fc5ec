"""ONNX's Resize and Upsample: by PyTorch's interpolation where it is the same, else place by place along each axis."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, integers, operator

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@operator("Upsample", settings=(1,))
def _upsample(node: Node, x: Tensor, scales: Any = None) -> Tensor:
    given = node.get("scales") if scales is None else scales
    return _resized(node, x, [float(s) for s in given], None, "asymmetric", "floor")


@operator("Resize", settings=(1, 2, 3))
def _resize(node: Node, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    if node.opset < 11:  # the second input is the scales then, and places are counted from the corner
        return _resized(node, x, [float(s) for s in np.asarray(roi)], None, "asymmetric", "floor")
    where, rounding = (
        node.get("coordinate_transformation_mode", "half_pixel"),
        node.get("nearest_mode", "round_prefer_floor"),
    )
    if where == "tf_crop_and_resize":
        raise ValueError("it crops while it resizes (tf_crop_and_resize), which is not followed")
    if isinstance(scales, Tensor):
        raise ValueError("its scales are computed from data; only constants and sizes of tensors can be followed")
    axes = [axis % x.ndim for axis in node.get("axes") or range(x.ndim)]
    if sizes is not None and np.size(sizes):
        wanted = integers(sizes, "sizes")
        ratios = [size / x.shape[axis] for axis, size in zip(axes, wanted, strict=True)]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios, wanted = [ratio] * len(axes), [math.floor(ratio * x.shape[axis] + 0.5) for axis in axes]
        full, target = [1.0] * x.ndim, list(x.shape)
        for axis, ratio, size in zip(axes, ratios, wanted, strict=True):
            full[axis], target[axis] = ratio, size
        return _resized(node, x, full, target, where, rounding)
    full = [1.0] * x.ndim
    for axis, scale in zip(axes, np.asarray(scales).reshape(-1), strict=True):
        full[axis] = float(scale)
    return _resized(node, x, full, None, where, rounding)


def _resized(node: Node, x: Tensor, scales: list[float], sizes: list[int] | None, where: str, rounding: str) -> Tensor:
    mode = node.get("mode", "nearest")
    new = [math.floor(side * scale) for side, scale in zip(x.shape, scales, strict=True)] if sizes is None else sizes
    sides = list(zip(x.shape, new, scales, strict=True))
    space_only = x.ndim - 2 in LINEAR and list(x.shape[:2]) == new[:2]
    if mode == "nearest":
        return _nearest(x, sides, space_only, where, rounding)
    # PyTorch counts with the ratio of sizes unless it is told the scale, and so does ONNX, but for kept aspect ratios.
    honest = sizes is None or all(abs(old * scale - size) < 1e-6 for old, size, scale in sides)
    options = _as_pytorch(node, mode, sides[2:], where) if space_only and honest else None
    if options is not None:
        told = {"scale_factor": tuple(scales[2:])} if sizes is None else {"size": new[2:]}
        return F.interpolate(x, **told, **options)
    for axis, (old, size, scale) in enumerate(sides):
        if (old, scale) == (size, 1.0):
            continue
        places = _places(old, size, scale, where)
        if mode == "linear" and not node.get("antialias", 0):
            x = _linear(x, axis, old, places)
        else:
            x = _weighed(x, axis, *_taps(node, mode, old, scale, places))
    return x


def _as_pytorch(node: Node, mode: str, sides: list[tuple[int, int, float]], where: str) -> dict[str, Any] | None:
    """The options of PyTorch's interpolation that does the same; None if none does."""
    smooth = LINEAR[len(sides)] if mode == "linear" else "bicubic" if len(sides) == 2 else None
    half = where == "half_pixel" or (where == "pytorch_half_pixel" and all(size > 1 for _, size, _ in sides))
    if smooth is None or not (half or where == "align_corners"):
        return None
    curve, outside = round(node.get("cubic_coeff_a", -0.75), 6), node.get("exclude_outside", 0)
    if node.get("antialias", 0) and any(size < old for old, size, _ in sides):
        same = half and outside and len(sides) == 2 and (mode == "linear" or curve == -0.5)
        return {"mode": smooth, "align_corners": False, "antialias": True} if same else None
    same = mode == "linear" or (curve == -0.75 and not outside)
    return {"mode": smooth, "align_corners": where == "align_corners"} if same else None


def _places(old: int, new: int, scale: float, where: str) -> np.ndarray:
    """Where each new cell lies among the old ones, which are at 0, 1, 2, ..."""
    at = np.arange(new, dtype=np.float64)
    if where == "asymmetric":
        return at / scale
    if where == "align_corners":
        return at * (old - 1) / (new - 1) if new > 1 else at * 0
    if where == "pytorch_half_pixel" and new == 1:
        return at * 0
    if where == "half_pixel_symmetric":
        exact = old * scale
        return old / 2 * (1 - new / exact) + (at + 0.5) / scale - 0.5
    if where in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    raise ValueError(f"it resizes by {where!r}, which is not followed")


def _nearest(x: Tensor, sides: list[tuple[int, int, float]], space_only: bool, where: str, rounding: str) -> Tensor:
    rounded: Any = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda at: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    }[rounding]
    picks = []
    for old, new, scale in sides:
        # Places that ought to be whole are so only up to rounding.
        places = np.round(_places(old, new, scale, where), 6)
        picks.append(np.clip(rounded(places), 0, old - 1).astype(np.int64))
    sizes = [new for _, new, _ in sides]
    for mode, offset in (("nearest", 0.0), ("nearest-exact", 0.5)):
        ours = [np.minimum((np.arange(new) + offset) * old / new, old - 1).astype(np.int64) for old, new, _ in sides]
        if space_only and all(np.array_equal(a, b) for a, b in zip(ours, picks, strict=True)):
            return F.interpolate(x, size=sizes[2:], mode=mode)
    for axis, pick in enumerate(picks):
        if not np.array_equal(pick, np.arange(x.shape[axis])):
            x = x.index_select(axis, torch.as_tensor(pick, device=x.device))
    return x


def _linear(x: Tensor, axis: int, old: int, places: np.ndarray) -> Tensor:
    places = places.clip(0, old - 1)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = torch.as_tensor(places - low, dtype=x.dtype, device=x.device).reshape(shape)
    near, far = (x.index_select(axis, torch.as_tensor(at, device=x.device)) for at in (low, high))
    return torch.lerp(near, far, weight)


def _taps(node: Node, mode: str, old: int, scale: float, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each new cell the old cells that it is made of, and their weights, each (new, taps)."""
    wide = 1 if mode == "linear" else 2
    shrink = min(scale, 1.0) if node.get("antialias", 0) else 1.0  # kernels grow where a map shrinks
    first = math.floor(-wide / shrink) + 1
    whole = np.floor(places).astype(np.int64)
    at = whole[:, None] + np.arange(first, 2 - first)
    away = np.abs(at - places[:, None]) * shrink
    if mode == "linear":
        weights = np.clip(1 - away, 0, 1)
    else:
        a = node.get("cubic_coeff_a", -0.75)
        near = (a + 2) * away**3 - (a + 3) * away**2 + 1
        far = a * away**3 - 5 * a * away**2 + 8 * a * away - 4 * a
        weights = np.where(away <= 1, near, np.where(away < 2, far, 0))
    if node.get("exclude_outside", 0):
        weights = np.where((at >= 0) & (at < old), weights, 0)
    return at.clip(0, old - 1), weights / weights.sum(1, keepdims=True)


def _weighed(x: Tensor, axis: int, at: np.ndarray, weights: np.ndarray) -> Tensor:
    shape = [1] * x.ndim
    shape[axis] = -1
    terms = []
    for tap in range(at.shape[1]):
        if np.any(weights[:, tap]):
            weight = torch.as_tensor(weights[:, tap], dtype=x.dtype, device=x.device).reshape(shape)
            terms.append(x.index_select(axis, torch.as_tensor(at[:, tap], device=x.device)) * weight)
    return reduce(torch.add, terms)
