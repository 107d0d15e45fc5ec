"""Receptive fields of steps over space: convolutions, pools, interpolation."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, fx

from foveal.analysis.boxes import Reach, Step, argument, emptied, join_all, rule, thinned, unite, with_boxes
from foveal.analysis.slide import jump_of, sides_of, sliding, spread, taken
from foveal.analysis.trace import operation, shape_of


def _grouped(reach: Reach, groups: int, channels: int) -> Reach:
    """Every channel that comes out depends on all channels of its group."""
    sides = []
    for place, side in enumerate(emptied(reach).box):
        thin = thinned(side)
        if thin.shape[1] > 1:
            shared = thin.unflatten(1, (groups, -1))
            shared = shared.amin(2) if place % 2 == 0 else shared.amax(2)
            thin = shared.repeat_interleave(channels // groups, 1)
        sides.append(thin.expand(side.shape[0], channels, *side.shape[2:]))
    return with_boxes(reach, sides)


def _with_weights(made: Reach, node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Weights that are computed from the picture bring all that they depend on."""
    bring = [found[part] for part in node.all_input_nodes if part in found and part is not node.args[0]]
    if not bring:
        return made
    return replace(unite(made.shape, [made, join_all(made.shape, bring)]), jump=made.jump, whole=True)


@rule("conv1d conv2d conv3d")
def _conv(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    x, weight = node.args[0], shape_of(node.args[1])
    if x not in found or len(shape_of(x)) != len(weight):
        return None
    kernel, many = weight[2:], len(weight) - 2
    stride, padding = sides_of(argument(node, 3, "stride", 1), many, 1), argument(node, 4, "padding", 0)
    dilation, groups = sides_of(argument(node, 5, "dilation", 1), many, 1), argument(node, 6, "groups", 1)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = [step * (side - 1) // 2 for step, side in zip(dilation, kernel, strict=True)]
    grouped, before = _grouped(found[x], groups, weight[0]), sides_of(padding, many)  # type: ignore[index]
    made = sliding(grouped, shape_of(node), kernel=kernel, stride=stride, before=before, dilation=dilation)
    return _with_weights(made, node, found)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _conv_transpose(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    x, weight = node.args[0], shape_of(node.args[1])
    if x not in found or len(shape_of(x)) != len(weight):
        return None
    kernel, many = weight[2:], len(weight) - 2
    stride, before = sides_of(argument(node, 3, "stride", 1), many, 1), sides_of(argument(node, 4, "padding", 0), many)
    groups, dilation = argument(node, 6, "groups", 1), sides_of(argument(node, 7, "dilation", 1), many, 1)
    grouped = _grouped(found[x], groups, weight[1] * groups)  # type: ignore[index]
    made = spread(grouped, shape_of(node), kernel=kernel, stride=stride, before=before, dilation=dilation)
    return _with_weights(made, node, found)


@rule(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"
)
def _pool(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    many = int(operation(node).partition("pool")[2][0])
    kernel = sides_of(argument(node, 1, "kernel_size"), many)
    dilation = sides_of(argument(node, 4, "dilation", 1), many, 1) if "max" in operation(node) else None
    made = sliding(
        found[node.args[0]],  # type: ignore[index]
        shape_of(node),
        kernel=kernel,
        stride=sides_of(argument(node, 2, "stride", None) or kernel, many),
        before=sides_of(argument(node, 3, "padding", 0), many),
        dilation=dilation,
    )
    return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made


@rule("adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d")
@rule("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
def _adaptive(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    reach, out = found[node.args[0]], shape_of(node)  # type: ignore[index]
    dims = range(len(out) - int(operation(node).partition("pool")[2][0]), len(out))
    sides, jump, whole = [], list(reach.jump), reach.whole
    for place, side in enumerate(reach.box):
        for dim in dims:
            length, many = side.shape[dim], out[dim]
            begins = [at * length // many for at in range(many)]
            ends = [-(-(at + 1) * length // many) for at in range(many)]
            widest = torch.arange(max(end - begin for begin, end in zip(begins, ends, strict=True)))
            at = torch.minimum(torch.tensor(begins)[:, None] + widest, torch.tensor(ends)[:, None] - 1)
            whole = whole or (many == 1 and thinned(side).shape[dim] > 1)
            side = taken(side, dim, at, None, first=place % 2 == 0)
            axis = dim - (len(out) - 2)
            if place == 0 and axis >= 0 and len(out) > 3:
                jump[axis] *= length / many
        sides.append(side)
    made = with_boxes(reach, sides, jump=(jump[0], jump[1]), whole=whole)
    return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made


def _resized(taps: int) -> Step:
    """Interpolation: every cell that comes out takes the nearest ones, `taps` along each side."""

    def step(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
        reach, out = found[node.args[0]], shape_of(node)  # type: ignore[index]
        sides, jump = list(reach.box), list(reach.jump)
        for axis in (0, 1):
            dim = len(out) - 2 + axis
            spots, ratio = _spots(node, axis, taps)
            length = reach.shape[dim]
            for place, side in enumerate(sides):
                past = jump_of(reach, place, dim)
                at = spots if past is not None else spots.clamp(0, length - 1)
                sides[place] = taken(side, dim, at, past, first=place % 2 == 0)
            jump[axis] *= ratio
        return with_boxes(reach, sides, jump=(jump[0], jump[1]))

    return step


def _spots(node: fx.Node, axis: int, taps: int) -> tuple[Tensor, float]:
    """The places that every cell takes, (out, several), and how many cells one step is."""
    length, many = shape_of(node.args[0])[-2 + axis], shape_of(node)[-2 + axis]
    scales = argument(node, 2 if taps == 1 else 3, "scale_factors", None)
    ratio = 1 / scales[axis] if isinstance(scales, list | tuple) else length / many
    at = torch.arange(many, dtype=torch.float64)
    if taps == 1:
        spots = torch.floor(at * ratio + (0.5 * ratio if "exact" in operation(node) else 0))
        return spots.clamp(max=length - 1).long()[:, None], ratio
    corners = bool(argument(node, 2, "align_corners", False))
    if corners:
        ratio = (length - 1) / max(1, many - 1)
    where = at * ratio if corners else (at + 0.5) * ratio - 0.5
    wide = max(1.0, ratio) if "_aa" in operation(node) else 1.0
    by = math.ceil(taps / 2 * wide)
    spots = torch.floor(where)[:, None] + torch.arange(1 - by, by + 1)
    near = (where[:, None] - spots).abs() < taps / 2 * wide - 1e-9  # a weight of 0 takes nothing
    return torch.where(near, spots, torch.round(where)[:, None]).long(), ratio


rule("upsample_nearest2d _upsample_nearest_exact2d")(_resized(1))
rule("upsample_bilinear2d _upsample_bilinear2d_aa")(_resized(2))
rule("upsample_bicubic2d _upsample_bicubic2d_aa")(_resized(4))
