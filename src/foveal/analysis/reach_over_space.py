"""Receptive fields of steps over space: convolutions, pools, padding, interpolation."""

from __future__ import annotations

import math

import torch
from torch import fx

from foveal.analysis.boxes import (
    NONE,
    Reach,
    Step,
    argument,
    jump_of,
    pair,
    past_edges,
    rule,
    sliding,
    thinned,
    with_boxes,
)
from foveal.analysis.trace import operation, shape_of


def _grouped(reach: Reach, groups: int, channels: int) -> Reach:
    """Every channel that comes out depends on all channels of its group."""
    sides = []
    for place, side in enumerate(reach.box):
        thin = thinned(side)
        if thin.shape[1] > 1:
            shared = thin.unflatten(1, (groups, -1))
            shared = shared.amin(2) if place % 2 == 0 else shared.amax(2)
            thin = shared.repeat_interleave(channels // groups, 1)
        sides.append(thin.expand(side.shape[0], channels, *side.shape[2:]))
    return with_boxes(reach, sides)


@rule("conv2d")
def _conv2d(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    x, weight = node.args[0], shape_of(node.args[1])
    if x not in found or len(weight) != 4:
        return None
    stride, padding = pair(argument(node, 3, "stride", 1), 1), argument(node, 4, "padding", 0)
    dilation, groups = pair(argument(node, 5, "dilation", 1), 1), argument(node, 6, "groups", 1)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = [(dilation[axis] * (weight[2 + axis] - 1)) // 2 for axis in (0, 1)]
    grouped = _grouped(found[x], groups, weight[0])  # type: ignore[index]
    kernel = (weight[2], weight[3])
    return sliding(grouped, shape_of(node), kernel=kernel, stride=stride, before=pair(padding), dilation=dilation)


@rule("conv_transpose2d")
def _conv_transpose2d(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    x, weight = node.args[0], shape_of(node.args[1])
    if x not in found or len(weight) != 4:
        return None
    stride, padding = pair(argument(node, 3, "stride", 1), 1), pair(argument(node, 4, "padding", 0))
    groups, dilation = argument(node, 6, "groups", 1), pair(argument(node, 7, "dilation", 1), 1)
    reach = _grouped(found[x], groups, weight[1] * groups)  # type: ignore[index]
    out, sides = shape_of(node), []
    for place, side in enumerate(reach.box):
        for axis in (0, 1):
            dim = side.ndim - 2 + axis
            thin, length = thinned(side), side.shape[dim]
            if not (thin.shape[dim] == 1 and length > 1):
                taps = torch.arange(weight[2 + axis]) * dilation[axis]
                source = torch.arange(out[dim])[:, None] + padding[axis] - taps  # (out, kernel), in steps of the stride
                met = source % stride[axis] == 0
                jump, at = jump_of(reach, place, axis), (source // stride[axis]).flatten()
                values = past_edges(thin, dim, at, length, jump, place % 2 == 0)
                values = values.unflatten(dim, source.shape)
                mask = met.view(*[1] * dim, *met.shape, *[1] * (thin.ndim - dim - 1))
                values = values.masked_fill(~mask, NONE if place % 2 == 0 else -NONE)
                thin = values.amin(dim + 1) if place % 2 == 0 else values.amax(dim + 1)
            side = thin.expand([*side.shape[:dim], out[dim], *side.shape[dim + 1 :]])
        sides.append(side)
    finer = (reach.jump[0] / stride[0], reach.jump[1] / stride[1])
    return with_boxes(reach, sides, jump=finer)


@rule("max_pool2d avg_pool2d max_pool2d_with_indices")
def _pool2d(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    kernel = pair(argument(node, 1, "kernel_size"))
    stride, padding = pair(argument(node, 2, "stride", None) or kernel, 1), pair(argument(node, 3, "padding", 0))
    dilation = pair(argument(node, 4, "dilation", 1), 1) if "max" in operation(node) else (1, 1)
    made = sliding(
        found[node.args[0]],  # type: ignore[index]
        shape_of(node),
        kernel=kernel,
        stride=stride,
        before=padding,
        dilation=dilation,
    )
    return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made


@rule("pad constant_pad_nd reflection_pad2d replication_pad2d")
def _pad(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    pad, reach = list(argument(node, 1, "pad")), found[node.args[0]]  # type: ignore[index]
    sides, shape = [], shape_of(node)
    for place, side in enumerate(reach.box):
        for dim in range(side.ndim):
            at = 2 * (side.ndim - 1 - dim)
            if at + 1 < len(pad) and (pad[at] or pad[at + 1]):
                thin, axis = thinned(side), dim - (side.ndim - 2)
                if not (thin.shape[dim] == 1 and side.shape[dim] > 1):
                    jump = jump_of(reach, place, axis) if axis >= 0 and side.ndim == 4 else None
                    where = torch.arange(shape[dim]) - pad[at]
                    thin = past_edges(thin, dim, where, thin.shape[dim], jump, place % 2 == 0)
                side = thin.expand([*side.shape[:dim], shape[dim], *side.shape[dim + 1 :]])
        sides.append(side)
    return with_boxes(reach, sides)


@rule("adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d")
def _adaptive(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    reach, out = found[node.args[0]], shape_of(node)  # type: ignore[index]
    sides, jump, whole = [], [], reach.whole
    for place, side in enumerate(reach.box):
        for axis in (0, 1):
            dim = side.ndim - 2 + axis
            length, many, thin = side.shape[dim], out[dim], thinned(side)
            if thin.shape[dim] > 1:
                bins = [
                    thin.narrow(dim, at * length // many, -(-(at + 1) * length // many) - at * length // many)
                    for at in range(many)
                ]
                thin = torch.cat([b.amin(dim, True) if place % 2 == 0 else b.amax(dim, True) for b in bins], dim)
                whole = whole or many == 1
            side = thin.expand([*side.shape[:dim], many, *side.shape[dim + 1 :]])
            if place == 0:
                jump.append(reach.jump[axis] * length / many)
        sides.append(side)
    made = with_boxes(reach, sides, jump=(jump[0], jump[1]), whole=whole)
    return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made


def _resized(taps: int) -> Step:
    """Interpolation: every cell that comes out takes the nearest ones, `taps` along each side."""

    def step(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
        reach, out = found[node.args[0]], shape_of(node)  # type: ignore[index]
        corners = "nearest" not in operation(node) and bool(argument(node, 2, "align_corners", False))
        sides, jump = [], []
        for place, side in enumerate(reach.box):
            for axis in (0, 1):
                dim = side.ndim - 2 + axis
                length, many, thin = side.shape[dim], out[dim], thinned(side)
                if place == 0:
                    jump.append(reach.jump[axis] * length / many)
                if thin.shape[dim] > 1:
                    at = torch.arange(many, dtype=torch.float64)
                    if taps == 1:
                        source = torch.floor(
                            at * length / many + (0.5 * length / many if "exact" in operation(node) else 0)
                        )
                        spots = source[:, None]
                    else:
                        ratio = (length - 1) / max(1, many - 1) if corners else length / many
                        where = at * ratio if corners else (at + 0.5) * ratio - 0.5
                        wide = max(1.0, length / many) if "_aa" in operation(node) else 1.0
                        reach_by = math.ceil(taps / 2 * wide)
                        spots = torch.floor(where)[:, None] + torch.arange(1 - reach_by, reach_by + 1)
                        off = (where[:, None] - spots).abs() < taps / 2 * wide - 1e-9  # a weight of 0 takes nothing
                        spots = torch.where(off, spots, torch.round(where)[:, None])
                    picked = thin.index_select(dim, spots.clamp(0, length - 1).long().flatten())
                    picked = picked.unflatten(dim, tuple(spots.shape))
                    thin = picked.amin(dim + 1) if place % 2 == 0 else picked.amax(dim + 1)
                side = thin.expand([*side.shape[:dim], many, *side.shape[dim + 1 :]])
            sides.append(side)
        return with_boxes(reach, sides, jump=(jump[0], jump[1]))

    return step


rule("upsample_nearest2d _upsample_nearest_exact2d")(_resized(1))
rule("upsample_bilinear2d _upsample_bilinear2d_aa")(_resized(2))
rule("upsample_bicubic2d _upsample_bicubic2d_aa")(_resized(4))
