"""The rims of a few windows, put together from parts: windows that lie alike to what is around them have one part.

What a window's rim is read from depends on where the windows around it lie relative to it, and on nothing else. In a
chain of windows few such cases come up, so a fixation that was never seen before mostly finds its parts ready.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Relation = tuple[int, float, float]
"""Where a source lies: how many levels coarser, and how far up and to the left, in pixels of the reading window's level
(the window's origin less the source's)."""

Around = list[list[tuple[int, Relation]]]
"""For each window of one picture those that its rim may be read from, the best first, and how they lie to it."""

Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

PARTS = 2048
"""How many are kept, the latest; each holds a few kilobytes, or tens for the largest maps."""


def around(origins: Sequence[Sequence[int]], levels: Sequence[int], valid: Sequence[bool]) -> Around:
    """How the windows of a picture lie to each other, whatever the size of their maps.

    Args:
        origins: (K, 2), in pixels.
        levels: (K,).
        valid: (K,); the others are never read.
    """
    ranked = sorted((place for place in range(len(levels)) if valid[place]), key=lambda place: (levels[place], place))
    found = []
    for window, level in enumerate(levels):
        (y, x), unit = origins[window], 0.5**level
        found.append(
            [
                (other, (levels[other] - level, (y - origins[other][0]) * unit, (x - origins[other][1]) * unit))
                for other in ranked
                if levels[other] >= level and other != window
            ]
        )
    return found


def rim_rows(size: int, pictures: Sequence[Around], n: int, padding: tuple[int, int, int, int]) -> Rows:
    """The covered rim cells of all windows, as of a `HaloTable`: target (R,), source (R, 4), weight (R, 4).

    Args:
        size: cells along a window's side, S.
        pictures: how the windows of each lie.
        n: cells along the side of the map.
        padding: (left, right, top, bottom) in cells.
    """
    left, right, top, bottom = padding
    padded, cells, cell = (n + top + bottom) * (n + left + right), n * n, size / n
    parts, before, first = [], [], 0
    read: list[int] = []
    for windows in pictures:
        for others in windows:
            near, relations = _read_from(size, others, (top * cell, bottom * cell, left * cell, right * cell))
            before.append(len(read))
            read += [first + place for place in near]
            parts.append(_part(n, padding, cell, relations))
        first += len(windows)
    many = [len(part.rows) for part in parts]
    rows = np.concatenate([part.rows for part in parts])
    target = rows[:, 0] + np.repeat(np.arange(0, len(parts) * padded, padded), many)
    window = np.array([*read, 0])[rows[:, 1] + np.repeat(before, many)]
    source = np.concatenate([part.inside for part in parts]) + (window * cells)[:, None]
    return target, source, np.concatenate([part.weight for part in parts])


def _read_from(
    size: int, others: Sequence[tuple[int, Relation]], reach: tuple[float, float, float, float]
) -> tuple[list[int], tuple[Relation, ...]]:
    """Those of the windows around that touch a rim, up to one that holds all of it.

    Args:
        size: cells along a window's side, S.
        others: the windows around.
        reach: of the rim, in pixels of the window's level: above, below, to the left, to the right.
    """
    above, below, before, after = reach
    near, relations = [], []
    for other, relation in others:
        coarser, down, across = relation
        span = size << coarser
        top, bottom, left, right = down - above, down + size + below, across - before, across + size + after
        if top < span and bottom > 0 and left < span and right > 0:
            near.append(other)
            relations.append(relation)
            if top >= 0 and bottom <= span and left >= 0 and right <= span:
                break  # what comes after is never read
    return near, tuple(relations)


class _Part(NamedTuple):
    """The covered cells of one window's rim: rows of its padded map and which source, 4 cells of it, their weights."""

    rows: NDArray[np.int64]  # (R, 2)
    inside: NDArray[np.int64]
    weight: NDArray[np.float64]


@functools.lru_cache(maxsize=PARTS)
def _part(n: int, padding: tuple[int, int, int, int], cell: float, relations: tuple[Relation, ...]) -> _Part:
    """Finds every rim cell in the first of its sources that covers its centre."""
    left, _, top, _ = padding
    target = rim_cells(n, padding)
    width = n + padding[0] + padding[1]
    if not relations:
        nothing = np.empty((0, 4))
        return _Part(nothing[:, :2].astype(np.int64), nothing.astype(np.int64), nothing)
    centres = np.stack([target // width - top, target % width - left]) + 0.5  # (2, M), in own cells
    shift = np.array([relation[1:] for relation in relations])[..., None]
    larger = np.exp2([relation[0] for relation in relations])[:, None, None]
    seen = (centres * cell + shift) / (cell * larger)  # (N, 2, M), in their cells
    covers = ((seen >= 0) & (seen < n)).all(1)
    covered = covers.any(0)
    slot = covers.argmax(0)[covered]
    at = seen[slot, :, covered.nonzero()[0]] - 0.5  # (R, 2)
    low = np.floor(at)
    (down, across), (up, back) = (at - low).T, (1 - (at - low)).T
    upper, lower = (side.clip(0, n - 1).astype(np.int64).T for side in (low, low + 1))
    inside = np.stack([y * n + x for y in (upper[0], lower[0]) for x in (upper[1], lower[1])], -1)
    weight = np.stack([up * back, up * across, down * back, down * across], -1)
    return _Part(np.stack([target[covered], slot], 1), inside, weight)


@functools.lru_cache(maxsize=256)
def rim_cells(n: int, padding: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """(M,): which cells of a padded map, counted row by row, are its rim."""
    left, right, top, bottom = padding
    beside = np.ones((n + top + bottom, n + left + right), dtype=bool)
    beside[top : top + n, left : left + n] = False
    return beside.ravel().nonzero()[0]
