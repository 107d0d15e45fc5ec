"""The box of pixels that each number of a map depends on, and how boxes join and slide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

NONE = 1 << 28
"""A box from NONE to -NONE is empty: of a number that depends on no pixel."""

EMPTY = (0, -1, 0, -1)
"""How an empty box is told: of rows 0 to -1, and of as many columns."""


@dataclass(frozen=True)
class Reach:
    """The boxes of a map's numbers.

    Args:
        box: four int32 tensors of the map's shape: first row, last row, first column, last column. Dimensions in which
            they are all alike have no memory of their own.
        jump: pixels along y and x from a cell's centre to the next one's; NaN where nobody can say.
        whole: whether the numbers come through a step that takes the whole picture together.
        known: whether every step on the way is known; if not, the boxes are those of the whole picture.
        beyond: whether boxes go on beyond the picture.
        extent: pixels that all cells together were apart along y and x when they last were rows and columns, and what
            windows and tokens made of them are when they are put back.
    """

    box: tuple[Tensor, Tensor, Tensor, Tensor]
    jump: tuple[float, float]
    whole: bool = False
    known: bool = True
    beyond: bool = True
    extent: tuple[float, float] = (math.nan, math.nan)

    def at(self, *index: int) -> tuple[int, int, int, int]:
        """The box of one number: first row, last row, first column, last column; `EMPTY` for one that is empty."""
        top, bottom, left, right = (int(side[index]) for side in self.box)
        return (top, bottom, left, right) if top <= bottom and left <= right else EMPTY

    def unit(self, y: int, x: int) -> tuple[int, int, int, int]:
        """The box of all channels at a place of a map (B, C, H, W)."""
        return join_over(self, {0, 1}).at(0, 0, y, x)

    def places(self) -> tuple[int, int] | None:
        """The dimensions along which a map's rows and columns go on: (2, 3) of (B, C, H, W), (1, 2) of (B, H, W, C).

        None where these are not two of four dimensions: tokens, windows, what is no map.
        """
        if len(self.shape) != 4:
            return None
        rows, columns = ({dim for dim in range(4) if spans_one(self.box[2 * axis], dim)} for axis in (0, 1))
        if (2 in rows and 3 in columns) or not (rows or columns):
            return 2, 3
        if 1 in rows and 2 in columns:
            return 1, 2
        return (2, 3) if rows <= {1, 2} and columns <= {1, 3} else None  # a single row or column

    def field(self) -> tuple[int, int]:
        """Height and width of the largest box: that of all channels at a place, where there are places."""
        top, bottom, left, right = emptied(self.together()).box
        height, width = int((bottom - top).max()) + 1, int((right - left).max()) + 1
        return max(0, height), max(0, width)

    def together(self) -> Reach:
        """With one box for all channels of a place, where it is a map."""
        places = self.places()
        return self if places is None else join_over(self, {0, 1, 2, 3} - set(places))

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


def measured(reach: Reach, source: Reach) -> Reach:
    """With the jump that boxes show after a step that moves numbers, or which follows from how many cells there are.

    Where a step leaves a map's number of rows, its jump is taken to stay.
    """
    extent, before = extent_of(source), source.places() if len(source.shape) == 4 else None
    jump = list(reach.jump)
    for axis, dim in enumerate(reach.places() or ()):
        side, repeats = reach.shape[dim], repeat_of(thinned(reach.box[2 * axis]), dim, jump[axis])
        if repeats is not None and repeats[1]:
            jump[axis] = abs(repeats[1]) / repeats[0]
        elif before is None or source.shape[before[axis]] != side:
            ratio = extent[axis] / side
            sure = ratio.is_integer() or (1 / ratio).is_integer() if ratio > 0 else False
            jump[axis] = ratio if sure else math.nan
    return replace(reach, jump=(jump[0], jump[1]), extent=extent)


def extent_of(reach: Reach) -> tuple[float, float]:
    """Pixels from the first cell to one past the last: of a map; of anything else those of the map that it was."""
    places = reach.places()
    if places is None or any(spans(reach, {dim}) for dim in set(range(4)) - set(places)):
        return reach.extent
    sides = [reach.shape[dim] * jump for dim, jump in zip(places, reach.jump, strict=True)]
    differ = [spans_one(reach.box[2 * axis], dim) for axis, dim in enumerate(places)]
    return (sides[0] if differ[0] else reach.extent[0], sides[1] if differ[1] else reach.extent[1])


def repeat_of(thin: Tensor, dim: int, jump: float) -> tuple[int, int] | None:
    """After how many cells boxes repeat, and moved by how much: of several cells, where a step made the map finer.

    Only what holds over most of the map, or goes by its jump: where rows went round, first and last differ by anything.
    """
    length = thin.shape[dim]
    for turn in range(1, min(65, length)):
        moved = thin.narrow(dim, turn, length - turn) - thin.narrow(dim, 0, length - turn)
        least, most = moved.aminmax()
        if least == most and (4 * turn <= length or abs(int(most)) == turn * jump):
            return turn, int(most)
    return None


def emptied(reach: Reach) -> Reach:
    """With boxes that hold no row or no column empty along both, lest their other side joins what they are put with."""
    top, bottom, left, right = (thinned(side) for side in reach.box)
    no_row, no_column = top > bottom, left > right
    either = bool(no_row.any()) or bool(no_column.any())
    if not either or torch.equal(*torch.broadcast_tensors(no_row, no_column)):
        return reach
    empty, sides = no_row | no_column, []
    for place, side in enumerate((top, bottom, left, right)):
        value = side.new_full((), NONE if place % 2 == 0 else -NONE)
        sides.append(torch.where(empty, value, side).expand(reach.shape))
    return with_boxes(reach, sides)


def is_empty(reach: Reach) -> bool:
    """Whether no number of a map depends on any pixel."""
    top, bottom, left, right = (thinned(side) for side in reach.box)
    return bool(((top > bottom) | (left > right)).all())


def unite(shape: tuple[int, ...], parts: list[Reach]) -> Reach:
    """For every number all that any of the numbers depends on from which it is made; shapes broadcast."""
    parts, sides = [emptied(part) for part in parts], []
    for place in range(4):
        join = torch.minimum if place % 2 == 0 else torch.maximum
        value = thinned(parts[0].box[place])
        for part in parts[1:]:
            value = join(value, thinned(part.box[place]))
        sides.append(value.expand(shape))
    same = [part for part in parts if part.shape == shape]  # and not what is spread over it
    return gathered(sides, parts, jump=finest(same or parts))


def finest(parts: list[Reach]) -> tuple[float, float]:
    """The least jump along y and along x of those that can be told."""
    jumps = [[part.jump[axis] for part in parts if not math.isnan(part.jump[axis])] for axis in (0, 1)]
    return min(jumps[0], default=math.nan), min(jumps[1], default=math.nan)


def gathered(sides: list[Tensor], parts: list[Reach], *, jump: tuple[float, float] | None = None) -> Reach:
    jump = jump or finest(parts)
    whole, known = any(part.whole for part in parts), all(part.known for part in parts)
    extent = extent_of(parts[0])
    return Reach(tuple(sides), jump, whole, known, parts[0].beyond, extent)  # type: ignore[arg-type]


def with_boxes(reach: Reach, sides: Any, **changes: Any) -> Reach:
    return replace(reach, box=tuple(sides), **changes)


def join_over(reach: Reach, dims: set[int], *, keep: bool = True) -> Reach:
    """Over some dimensions all boxes become one; these have a side of 1 then, or are gone."""
    sides = []
    for place, side in enumerate(emptied(reach).box):
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
    return any(spans_one(side, dim) for side in reach.box for dim in dims)


def spans_one(side: Tensor, dim: int) -> bool:
    """Whether boxes differ along a dimension."""
    thin = thinned(side)
    return thin.shape[dim] > 1 and not bool((thin == thin.narrow(dim, 0, 1)).all())


def join_all(shape: tuple[int, ...], parts: list[Reach]) -> Reach:
    flat = [join_over(part, set(range(len(part.shape)))) for part in parts]
    scalars = [with_boxes(part, (side.reshape(()) for side in part.box)) for part in flat]
    return unite(shape, scalars)


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
