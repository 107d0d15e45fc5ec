"""ONNX's pools as functions of PyTorch; what PyTorch has no kernel for is summed window by window."""

from __future__ import annotations

import itertools
import math
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, operator
from foveal.analysis.from_onnx.sliding import Sliding, of_space

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
GLOBAL_POOLS: dict[str, dict[int, Any]] = {
    "GlobalAveragePool": {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d},
    "GlobalMaxPool": {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d},
}


@operator("MaxPool")
def _max_pool(node: Node, x: Tensor) -> Any:
    kernel = list(node.get("kernel_shape"))
    slide = Sliding(node, x, kernel)
    padded, padding = slide.padded(x, -math.inf, [k // 2 for k in kernel])
    pool, ceil = of_space(MAX_POOLS, x), bool(node.get("ceil_mode", 0))
    settings = (padded, kernel, slide.strides, padding, slide.dilations, ceil)
    if not node.wants(1):
        result: Tensor = pool(*settings)
        return slide.without_padding_alone(x, result) if ceil else result
    both = pool(*settings, return_indices=True)
    result, places = (slide.without_padding_alone(x, part) if ceil else part for part in both)
    return result, _places(node, x, places, padded.shape[2:], slide.front if padded is not x else [0] * len(kernel))


def _places(node: Node, x: Tensor, places: Tensor, sides: Any, front: list[int]) -> Tensor:
    """PyTorch counts the places of maxima in each map, ONNX through the whole tensor, and without its padding."""
    across = [places % sides[-1]]
    for side in reversed(sides[:-1]):
        places = places // sides[len(sides) - len(across)]
        across.insert(0, places % side)
    across = [at - before for at, before in zip(across, front, strict=True)]
    order = range(len(across)) if not node.get("storage_order", 0) else reversed(range(len(across)))
    flat = torch.zeros_like(places)
    for axis in order:
        flat = flat * x.shape[2 + axis] + across[axis]
    maps = torch.arange(math.prod(x.shape[:2]), device=x.device).view(*x.shape[:2], *[1] * len(across))
    return flat + maps * math.prod(x.shape[2:])


@operator("AveragePool")
def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel, ceil, counts = list(node.get("kernel_shape")), bool(node.get("ceil_mode", 0)), node.get("count_include_pad")
    slide, pool = Sliding(node, x, kernel), of_space(AVERAGE_POOLS, x)
    if any(d != 1 for d in slide.dilations):
        sums = _window_sums(slide, x, kernel, ceil)
        return sums / _window_counts(slide, x, kernel, list(sums.shape[2:]), padding=bool(counts))
    padded, padding = slide.padded(x, 0.0, [k // 2 for k in kernel])
    result: Tensor = pool(padded, kernel, slide.strides, padding, ceil, bool(counts))
    if padded is not x and not counts:
        there = slide.padded(torch.ones_like(x[:1, :1]), 0.0, [k // 2 for k in kernel])[0]
        result = result / pool(there, kernel, slide.strides, padding, ceil, False)
    return slide.without_padding_alone(x, result) if ceil else result


@operator("LpPool")
def _lp_pool(node: Node, x: Tensor) -> Tensor:
    kernel, p = list(node.get("kernel_shape")), node.get("p", 2)
    sums = _window_sums(Sliding(node, x, kernel), x.abs().pow(p), kernel, bool(node.get("ceil_mode", 0)))
    return sums.pow(1 / p)


@operator("GlobalLpPool")
def _global_lp_pool(node: Node, x: Tensor) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(x, node.get("p", 2), list(range(2, x.ndim)), True)
    return result


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node, x: Tensor) -> Any:
    return of_space(GLOBAL_POOLS[node.operator], x)(x, 1)


def _window_sums(slide: Sliding, x: Tensor, kernel: list[int], ceil: bool) -> Tensor:
    """The sum of each window, as a sum of shifted maps: one for each place of the kernel."""
    sides = slide.outputs(x, kernel, ceil)
    reach = [d * (k - 1) + 1 for d, k in zip(slide.dilations, kernel, strict=True)]
    around: list[int] = []
    for axis, (side, stride, length) in enumerate(zip(sides, slide.strides, reach, strict=True)):
        behind = (side - 1) * stride + length - x.shape[2 + axis] - slide.front[axis]
        around = [slide.front[axis], behind, *around]
    x = F.pad(x, around) if any(around) else x
    shifted = []
    for at in itertools.product(*(range(k) for k in kernel)):
        cuts: list[Any] = [
            slice(place * step, place * step + (side - 1) * stride + 1, stride)
            for place, step, side, stride in zip(at, slide.dilations, sides, slide.strides, strict=True)
        ]
        shifted.append(x[(slice(None), slice(None), *cuts)])
    return reduce(torch.add, shifted)


def _window_counts(slide: Sliding, x: Tensor, kernel: list[int], sides: list[int], *, padding: bool) -> Tensor:
    """How many numbers each window averages: those of the map, or of its padding too."""
    counts = np.ones(())
    for axis, (k, side) in enumerate(zip(kernel, sides, strict=True)):
        first = np.arange(side)[:, None] * slide.strides[axis] - slide.front[axis]
        at = first + np.arange(k) * slide.dilations[axis]
        low, high = (-slide.front[axis], x.shape[2 + axis] + slide.behind[axis]) if padding else (0, x.shape[2 + axis])
        counts = counts[..., None] * ((at >= low) & (at < high)).sum(1)
    return torch.as_tensor(counts, dtype=x.dtype, device=x.device)
