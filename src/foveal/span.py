"""The cells of a window along one axis of a picture, and the exact average of the pixels that each of them holds."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from foveal.weighted_rows import weighted_rows

_SLACK = 1e-9  # pixels; what rounding may add to an edge that should lie between two of them


class Span:
    """`count` cells of `step` pixels each from `start`, along an axis of `side` pixels.

    Args:
        start: of the window, in pixels; may be a fraction where the picture is read at a shrink.
        step: pixels to a cell, a fraction or below 1 likewise.
        count: cells of the whole window.
        side: pixels of the picture.
        cells: which of the window's cells are meant; all of them by default.
    """

    def __init__(self, start: float, step: float, count: int, side: int, cells: range | None = None) -> None:
        self.start, self.step, self.side = start, step, side
        self.cells = range(count) if cells is None else cells
        self.count = len(self.cells)
        low, high = start + step * self.cells.start, start + step * self.cells.stop
        self.first = min(math.floor(low), side)  # the pixels from here
        self.last = min(math.ceil(high - _SLACK), side)  # to here hold all there is to average
        self.empty = self.last <= self.first
        self.overhangs = high > side + _SLACK

    @property
    def inside(self) -> Tensor:
        """(count,) bool: which cells hold any of the picture."""
        return self._edges()[:-1] < self.side - _SLACK

    @property
    def whole(self) -> bool:
        """Whether every cell holds whole pixels."""
        return self.step == round(self.step) and self.start == math.floor(self.start)

    def split(self, pixels: int) -> list[Span]:
        """The same cells in runs that hold about so many pixels, at least one cell each."""
        many = max(1, int(pixels / self.step))
        runs = (self.cells[first : first + many] for first in range(0, self.count, many))
        return [Span(self.start, self.step, self.count, self.side, run) for run in runs]

    def average(self, x: Tensor, axis: int) -> Tensor:
        """The exact mean of the part of each cell that lies in the picture.

        Args:
            x: float, the pixels from `first` to `last` along the axis.
            axis: counted from the front.

        Returns:
            x with `count` cells along the axis.
        """
        if self.whole:
            return self._average_whole(x, axis)
        index, share = _taps(self.start, self.step, self.cells.start, self.cells.stop, self.side)
        index = index.clamp(max=self.first + x.shape[axis] - 1) - self.first
        # One fused pass over the pixels: no copy of them for every tap is made.
        rows = x.movedim(axis, 0)
        cells = weighted_rows(rows.reshape(len(rows), -1), index.to(x.device), share.to(x))
        return cells.view(self.count, *rows.shape[1:]).movedim(0, axis)

    def _average_whole(self, x: Tensor, axis: int) -> Tensor:
        """The same where every cell holds whole pixels; the last ones may lack some, or all."""
        step = int(self.step)
        full, rest = divmod(x.shape[axis], step)
        if full == self.count:
            return x if step == 1 else x.unflatten(axis, (full, step)).mean(axis + 1)
        cells = []
        if full:
            cells.append(x.narrow(axis, 0, full * step).unflatten(axis, (full, step)).mean(axis + 1))
        if rest:
            cells.append(x.narrow(axis, full * step, rest).mean(axis, keepdim=True))
        missing = self.count - full - bool(rest)
        if missing:
            cells.append(x.new_zeros(*x.shape[:axis], missing, *x.shape[axis + 1 :]))
        return torch.cat(cells, axis)

    def _edges(self) -> Tensor:
        """(count + 1,) float64, in pixels."""
        return _edges_of(self.start, self.step, self.cells.start, self.cells.stop)


def _edges_of(start: float, step: float, first: int, last: int) -> Tensor:
    return start + step * torch.arange(first, last + 1, dtype=torch.float64)


@functools.lru_cache(maxsize=256)
def _taps(start: float, step: float, first: int, last: int, side: int) -> tuple[Tensor, Tensor]:
    """For each cell the pixels that it may hold a part of, and the share of each; pictures are mostly cut alike."""
    with torch.inference_mode(False):
        edges = _edges_of(start, step, first, last).clamp(max=side)
        low, high = edges[:-1, None], edges[1:, None]
        pixel = low.floor() + torch.arange(math.ceil(step - _SLACK) + 1)
        share = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)
        return pixel.long(), share / share.sum(1, keepdim=True).clamp(min=1e-12)
