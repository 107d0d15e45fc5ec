"""Boxes under a kernel that slides over the last dimensions of a map, and beyond the map's edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foveal.analysis.boxes import NONE, Reach, repeat_of, thinned, with_boxes


def sides_of(value: Any, many: int, default: int = 0) -> list[int]:
    """One number for each of so many dimensions, of what an operation was given: a number, a list, nothing."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return [default] * many
    if isinstance(value, int):
        return [value] * many
    return list(value) if len(value) > 1 else [value[0]] * many


def jump_of(reach: Reach, place: int, dim: int) -> float | None:
    """By how much boxes go on beyond the map's edge; None where nothing does: along what is no row or column."""
    axis = dim - (len(reach.shape) - 2)
    if not reach.beyond or len(reach.shape) < 4 or axis < 0:
        return None
    return reach.jump[axis] if place // 2 == axis else 0.0


def past_edges(thin: Tensor, dim: int, at: Tensor, jump: float | None, first: bool) -> Tensor:
    """Boxes at any places, those of padding as if the map went on in the same way, or empty ones."""
    length, shape = thin.shape[dim], [1] * thin.ndim
    shape[dim] = -1
    if jump is None:
        values = thin.index_select(dim, at.clamp(0, length - 1))
        return values.masked_fill(((at < 0) | (at >= length)).view(shape), NONE if first else -NONE)
    turn, step = repeat_of(thin, dim, jump) or (1, 0)
    if not step and not math.isnan(jump):
        turn = next((p for p in range(1, min(64, length) + 1) if (p * jump).is_integer()), 1)
        step = round(turn * jump)
    after = torch.where(at >= length, (at - length) // turn + 1, 0)
    turns = torch.where(at < 0, -((-at + turn - 1) // turn), after)
    values = thin.index_select(dim, (at - turns * turn).clamp(0, length - 1))
    return values + (turns * step).to(values.dtype).view(shape)


def sliding(
    reach: Reach,
    out: tuple[int, ...],
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> Reach:
    """A kernel over as many of the last dimensions as it has sides; channels stay apart."""
    many, sides = len(kernel), []
    for place, side in enumerate(reach.box):
        for axis in range(many):
            dim, step = side.ndim - many + axis, dilation[axis] if dilation else 1
            # Each cell that comes out, and what its kernel takes.
            at = torch.arange(out[dim])[:, None] * stride[axis] - before[axis] + torch.arange(kernel[axis]) * step
            side = taken(side, dim, at, jump_of(reach, place, dim), first=place % 2 == 0)
        sides.append(side)
    return with_boxes(reach, sides, jump=_scaled(reach, [float(step) for step in stride]))


def spread(
    reach: Reach,
    out: tuple[int, ...],
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
) -> Reach:
    """A transposed kernel: each cell that comes out takes those cells whose kernels reach it."""
    many, sides = len(kernel), []
    for place, side in enumerate(reach.box):
        for axis in range(many):
            dim = side.ndim - many + axis
            source = torch.arange(out[dim])[:, None] + before[axis] - torch.arange(kernel[axis]) * dilation[axis]
            met, jump = source % stride[axis] == 0, jump_of(reach, place, dim)
            side = taken(side, dim, source // stride[axis], jump, first=place % 2 == 0, met=met)
        sides.append(side)
    return with_boxes(reach, sides, jump=_scaled(reach, [1 / step for step in stride]))


def taken(side: Tensor, dim: int, at: Tensor, jump: float | None, *, first: bool, met: Tensor | None = None) -> Tensor:
    """Along one dimension, the least (or most) of several boxes: those at (out, several) places, where they are met."""
    thin, out = thinned(side), len(at)
    if side.shape[dim] == 1 or thin.shape[dim] > 1:
        values = past_edges(thin, dim, at.flatten(), jump, first).unflatten(dim, tuple(at.shape))
        if met is not None:
            shape = [1] * dim + list(met.shape) + [1] * (thin.ndim - dim - 1)
            values = values.masked_fill(~met.view(shape), NONE if first else -NONE)
        thin = values.amin(dim + 1) if first else values.amax(dim + 1)
    return thin.expand([*side.shape[:dim], out, *side.shape[dim + 1 :]])


def _scaled(reach: Reach, by: list[float]) -> tuple[float, float]:
    if len(by) < 2:
        return reach.jump
    return reach.jump[0] * by[-2], reach.jump[1] * by[-1]
