"""How much of the picture each cell alone stands for, worked out exactly from where the windows lie.

The edges of all windows cut the plane into rectangles, each of which belongs wholly to one window: the finest that
covers it. So no pixel is ever looked at, and the cost does not depend on the picture's size.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NOBODY = torch.iinfo(torch.int64).max
_ENTRIES = 1 << 23  # of a temporary table, so that a thousand windows need no more memory than a few


def own_areas(
    *,
    size: int,
    origins: Tensor,
    levels: Tensor,
    pictures: Tensor,
    valid: Tensor,
    n: int,
    bins: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The picture area, in pixels, that each cell of each window's map of `n x n` cells alone stands for.

    Args:
        size: cells along a window's side, S.
        origins: (B, K, 2) int64, pixels.
        levels: (B, K) int64.
        pictures: (B, 2) int64, pixels.
        valid: (B, K) bool; the others own nothing.
        n: cells along the side of the map.
        bins: (B, P, 2) and (B, Q, 2), where strips of the picture begin and end along y and x, in pixels; they may
            overlap.

    Returns:
        (B, K, n, n) float32; with bins (B, K, n, n, P, Q), the part of each area that lies in each of them.
    """
    windows = levels.shape[1]
    start = origins.double()
    end = start + (size * torch.exp2(levels.double()))[..., None]
    marks = [(start[..., axis], end[..., axis]) for axis in (0, 1)]
    if bins is not None:  # then each rectangle belongs wholly to a bin, too
        marks = [
            (torch.cat([low, strip[..., 0].double()], 1), torch.cat([high, strip[..., 1].double()], 1))
            for (low, high), strip in zip(marks, bins, strict=True)
        ]
    edges = [_edges(low, high) for low, high in marks]
    # The finest window owns a rectangle; among those of one level, the first in the layout.
    rank = levels * windows + torch.arange(windows, device=levels.device)
    rank = torch.where(valid, rank, _NOBODY)
    covers = []
    for axis in (0, 1):
        middle = ((edges[axis][:, :-1] + edges[axis][:, 1:]) / 2)[:, None]
        covers.append((start[..., axis, None] < middle) & (middle < end[..., axis, None]))  # (B, K, P)

    def ranks(group: slice) -> Tensor:  # (B, G, P, Q), of the windows that cover each rectangle
        inside = covers[0][:, group, :, None] & covers[1][:, group, None]
        return torch.where(inside, rank[:, group, None, None], _NOBODY)

    def overlaps(group: slice, axis: int) -> Tensor:  # (B, G, n, P), how much of each strip each row of cells holds
        steps = torch.arange(n + 1, dtype=torch.float64, device=start.device) * (size / n)
        bounds = start[:, group, axis, None] + steps * torch.exp2(levels[:, group].double())[..., None]
        bounds = torch.minimum(bounds, pictures[:, axis, None, None].double())
        low, high = edges[axis][:, None, None, :-1], edges[axis][:, None, None, 1:]
        return (torch.minimum(bounds[..., 1:, None], high) - torch.maximum(bounds[..., :-1, None], low)).clamp(min=0)

    groups = _groups(windows, len(levels) * max(covers[0].shape[2] * covers[1].shape[2], n * covers[0].shape[2]))
    owner = ranks(groups[0]).amin(1)
    for group in groups[1:]:
        owner = torch.minimum(owner, ranks(group).amin(1))
    areas = []
    for group in groups:
        mine = ranks(group)
        owned = ((mine == owner[:, None]) & (mine != _NOBODY)).double()
        rows, columns = overlaps(group, 0), overlaps(group, 1)
        if bins is None:
            areas.append(torch.einsum("bkip,bkpq,bkjq->bkij", rows, owned, columns).float())
            continue
        above, beside = (_lies_in(edges[axis], bins[axis]) for axis in (0, 1))
        owned_rows = torch.einsum("bkip,bhp,bkpq->bkihq", rows, above, owned)
        areas.append(torch.einsum("bkihq,bkjq,bwq->bkijhw", owned_rows, columns, beside).float())
    return torch.cat(areas, 1)


def _lies_in(edges: Tensor, strips: Tensor) -> Tensor:
    """(B, P, E - 1) float64: 1 where what lies between two edges is within a strip."""
    middle = ((edges[:, :-1] + edges[:, 1:]) / 2)[:, None]
    return ((strips[..., :1] < middle) & (middle < strips[..., 1:])).double()


def _edges(start: Tensor, end: Tensor) -> Tensor:
    """(B, P + 1): where windows begin or end along one axis, each place once; short rows repeat their last edge."""
    edges = torch.cat([start, end], 1).sort(1).values
    if torch.compiler.is_compiling():  # a traced graph cannot know how many are alike; strips of no width do no harm
        return edges
    again = edges[:, 1:] == edges[:, :-1]
    once = torch.cat([edges[:, :1], torch.where(again, edges[:, -1:], edges[:, 1:])], 1).sort(1).values
    return once[:, : 1 + int((~again).sum(1).max())]


def _groups(windows: int, entries: int) -> list[slice]:
    """Runs of windows, as many at a time as a temporary table of `entries` for each allows."""
    if torch.compiler.is_compiling():
        return [slice(0, windows)]
    many = max(1, _ENTRIES // max(1, entries))
    return [slice(first, min(first + many, windows)) for first in range(0, windows, many)]
