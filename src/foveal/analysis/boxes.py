"""The box of pixels that each number of a map depends on, and how boxes join and slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

NONE = 1 << 28
"""A box from NONE to -NONE is empty: of a number that depends on no pixel."""


@dataclass(frozen=True)
class Reach:
    """The boxes of a map's numbers.

    Args:
        box: four int32 tensors of the map's shape: first row, last row, first column, last column. Dimensions in which
            they are all alike have no memory of their own.
        jump: pixels along y and x from a cell's centre to the next one's.
        whole: whether the numbers come through a step that takes the whole picture together.
        known: whether every step on the way is known; if not, the boxes are those of the whole picture.
        beyond: whether boxes go on beyond the picture.
    """

    box: tuple[Tensor, Tensor, Tensor, Tensor]
    jump: tuple[float, float]
    whole: bool = False
    known: bool = True
    beyond: bool = True

    def at(self, *index: int) -> tuple[int, int, int, int]:
        """The box of one number: first row, last row, first column, last column."""
        top, bottom, left, right = (int(side[index]) for side in self.box)
        return top, bottom, left, right

    def unit(self, y: int, x: int) -> tuple[int, int, int, int]:
        """The box of all channels at a place of a map (B, C, H, W)."""
        return join_over(self, {0, 1}).at(0, 0, y, x)

    def field(self) -> tuple[int, int]:
        """Height and width of the largest box, that of all channels at a place for maps (B, C, H, W)."""
        top, bottom, left, right = (join_over(self, {0, 1}) if len(self.shape) == 4 else self).box
        height, width = int((bottom - top).max()) + 1, int((right - left).max()) + 1
        return max(0, height), max(0, width)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the map."""
        return tuple(self.box[0].shape)


def thinned(box: Tensor) -> Tensor:
    """Without the copies along dimensions in which all are alike."""
    for place in range(box.ndim):
        if box.stride(place) == 0 and box.shape[place] > 1:
            box = box.narrow(place, 0, 1)
    return box


def fold(box: Tensor) -> Tensor:
    """The same, with no memory for dimensions in which all are alike."""
    shape, box = box.shape, thinned(box)
    for place in range(box.ndim):
        if box.shape[place] > 1 and bool((box == box.narrow(place, 0, 1)).all()):
            box = box.narrow(place, 0, 1)
    return box.expand(shape)


def unite(shape: tuple[int, ...], parts: list[Reach]) -> Reach:
    """For every number all that any of the numbers depends on from which it is made; shapes broadcast."""
    sides = []
    for place in range(4):
        join = torch.minimum if place % 2 == 0 else torch.maximum
        value = thinned(parts[0].box[place])
        for part in parts[1:]:
            value = join(value, thinned(part.box[place]))
        sides.append(value.expand(shape))
    same = [part for part in parts if part.shape == shape]  # and not what is spread over it
    return gathered(sides, parts, jump=min(part.jump for part in same or parts))


def gathered(sides: list[Tensor], parts: list[Reach], *, jump: tuple[float, float] | None = None) -> Reach:
    jumps = [part.jump for part in parts]
    jump = jump or min(jumps)
    whole, known = any(part.whole for part in parts), all(part.known for part in parts)
    return Reach(tuple(sides), jump, whole, known, parts[0].beyond)  # type: ignore[arg-type]


def with_boxes(reach: Reach, sides: Any, **changes: Any) -> Reach:
    return replace(reach, box=tuple(sides), **changes)


def join_over(reach: Reach, dims: set[int], *, keep: bool = True) -> Reach:
    """Over some dimensions all boxes become one; these have a side of 1 then, or are gone."""
    sides = []
    for place, side in enumerate(reach.box):
        thin = thinned(side)
        many = sorted(dim for dim in dims if thin.shape[dim] > 1)
        if many:
            thin = thin.amin(many, keepdim=True) if place % 2 == 0 else thin.amax(many, keepdim=True)
        shape = [1 if dim in dims else length for dim, length in enumerate(side.shape)]
        thin = thin.expand(shape)
        sides.append(thin if keep else thin.squeeze(tuple(dims)))
    return with_boxes(reach, sides, whole=reach.whole or spans(reach, dims))


def spans(reach: Reach, dims: set[int]) -> bool:
    """Whether boxes differ along any of these dimensions, so that a step over them takes places together."""
    return any(fold(side).stride(dim) != 0 for side in reach.box for dim in dims if side.shape[dim] > 1)


def join_all(shape: tuple[int, ...], parts: list[Reach]) -> Reach:
    flat = [join_over(part, set(range(len(part.shape)))) for part in parts]
    scalars = [with_boxes(part, (side.reshape(()) for side in part.box)) for part in flat]
    return unite(shape, scalars)


def _slid(
    side: Tensor, dim: int, *, first: bool, kernel: int, stride: int, before: int, step: int, out: int, jump: Any
) -> Tensor:
    """Along one dimension, the least (or most) of the boxes under a kernel."""
    thin = thinned(side)
    if thin.shape[dim] == 1 and side.shape[dim] > 1:
        shape = list(thin.shape)
        shape[dim] = out
        return thin.expand(shape)
    length = thin.shape[dim]
    at = torch.arange(out)[:, None] * stride - before + torch.arange(kernel) * step  # (out, kernel)
    values = past_edges(thin, dim, at.flatten(), length, jump, first).unflatten(dim, (out, kernel))
    return values.amin(dim + 1) if first else values.amax(dim + 1)


def jump_of(reach: Reach, place: int, axis: int) -> float | None:
    """By how much boxes go on beyond the map's edge; None where nothing does."""
    if not reach.beyond:
        return None
    return reach.jump[axis] if place // 2 == axis else 0.0


def past_edges(thin: Tensor, dim: int, at: Tensor, length: int, jump: float | None, first: bool) -> Tensor:
    """Boxes at any places, those of padding as if the map went on in the same way, or empty ones."""
    shape = [1] * thin.ndim
    shape[dim] = -1
    if jump is None:
        values = thin.index_select(dim, at.clamp(0, length - 1))
        return values.masked_fill(((at < 0) | (at >= length)).view(shape), NONE if first else -NONE)
    period = next((p for p in range(1, 65) if (p * jump).is_integer()), 1)
    period = period if period <= length else 1
    after = torch.where(at >= length, (at - length) // period + 1, 0)
    turns = torch.where(at < 0, -((-at + period - 1) // period), after)
    values = thin.index_select(dim, (at - turns * period).clamp(0, length - 1))
    return values + (turns * round(period * jump)).to(values.dtype).view(shape)


def pair(value: Any, default: int = 0) -> tuple[int, int]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return default, default
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if len(value) > 1 else (value[0], value[0])


def sliding(
    reach: Reach,
    out: tuple[int, ...],
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Reach:
    """A kernel that slides over the last two dimensions; channels stay apart."""
    sides = []
    for place, side in enumerate(reach.box):
        for axis in (0, 1):
            dim = side.ndim - 2 + axis
            moved = _slid(
                side,
                dim,
                first=place % 2 == 0,
                kernel=kernel[axis],
                stride=stride[axis],
                before=before[axis],
                step=dilation[axis],
                out=out[dim],
                jump=jump_of(reach, place, axis),
            )
            shape = list(moved.shape)
            shape[dim] = out[dim]
            side = moved.expand([*side.shape[:dim], *shape[dim : dim + 1], *side.shape[dim + 1 :]])
        sides.append(side)
    jump = (reach.jump[0] * stride[0], reach.jump[1] * stride[1])
    return with_boxes(reach, sides, jump=jump)


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """What an operation was given, by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


Step = Callable[[fx.Node, dict[fx.Node, Reach]], "Reach | list[Reach] | None"]
"""What an operation makes of the boxes that are found so far; None where it cannot be said."""

RULES: dict[str, Step] = {}


def rule(names: str) -> Callable[[Step], Step]:
    """Registers how these operations, separated by spaces, treat boxes."""

    def register(step: Step) -> Step:
        RULES.update(dict.fromkeys(names.split(), step))
        return step

    return register
