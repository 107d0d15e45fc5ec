"""Smaller copies of one picture, kept for many looks at it: a look then costs the same at any size of the picture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foveal.span import Span

SMALLEST = 16
"""Copies are made until the longer side has no more pixels than this."""

_STRIP_PIXELS = 1 << 20  # of the picture turned to floats at a time


class Pyramid:
    """A picture and its copies at half, a quarter, ... of the size, each pixel the mean of those that it stands for.

    A copy is made when something first asks for it or for a smaller one. Together they hold a third as many pixels as
    the picture, as floats.

    Args:
        read: (top, left, height, width) -> (C, height, width), uint8 or float: the picture itself.
        channels, height, width: of the picture.
    """

    def __init__(self, read: Callable[[int, int, int, int], Tensor], channels: int, height: int, width: int) -> None:
        self._read = read
        self.channels, self.height, self.width = channels, height, width
        self.sizes = {1: (height, width)}
        shrink = 1
        while max(self.sizes[shrink]) > SMALLEST:
            shrink *= 2
            self.sizes[shrink] = -(-height // shrink), -(-width // shrink)
        self._copies: list[Tensor] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Pyramid, (self._read, self.channels, self.height, self.width)

    def best_shrink(self, rows: Span, columns: Span) -> int:
        """The smallest copy from which these cells come out exactly: its pixels have to end where they do.

        Of pixels that gradients flow to none is taken: the copies keep none.
        """
        if torch.is_grad_enabled() and self._read(0, 0, 1, 1).requires_grad:
            return 1
        fitting = (shrink for shrink in self.sizes if _fits(rows, shrink) and _fits(columns, shrink))
        return max(fitting, default=1)

    def hold(self, top: int, left: int, height: int, width: int, shrink: int) -> None:
        """Nothing to do: all is in memory."""

    def read(self, top: int, left: int, height: int, width: int, shrink: int = 1) -> Tensor:
        """(C, height, width): uint8 or float as it is at a shrink of 1, else float, uint8 divided by 255."""
        if shrink == 1:
            return self._read(top, left, height, width)
        return self._copy(shrink)[:, top : top + height, left : left + width]

    def _copy(self, shrink: int) -> Tensor:
        number = shrink.bit_length() - 2
        with self._lock, torch.inference_mode(False), torch.no_grad():
            while len(self._copies) <= number:
                self._copies.append(self._half_of_all() if not self._copies else self._half(self._copies[-1]))
        return self._copies[number]

    def _half_of_all(self) -> Tensor:
        step = max(2, _STRIP_PIXELS // self.width // 2 * 2)
        strips = []
        for top in range(0, self.height, step):
            rows = self._read(top, 0, min(step, self.height - top), self.width)
            rows = rows if rows.is_floating_point() else rows.float() / 255
            strips.append(_halved(_halved(rows, -1, 1), -2, 1))
        return torch.cat(strips, -2)

    def _half(self, x: Tensor) -> Tensor:
        shrink = 1 << len(self._copies)  # of x
        for axis, side in ((-1, self.width), (-2, self.height)):
            x = _halved(x, axis, (side - (x.shape[axis] - 1) * shrink) / shrink)
        return x


def _fits(span: Span, shrink: int) -> bool:
    """Whether cells are whole pixels of a copy, none of them one that ends beyond the picture beside others."""
    whole = span.step % shrink == 0 and span.start % shrink == 0
    return whole and (span.step == shrink or span.side % shrink == 0)


def _halved(x: Tensor, axis: int, last: float) -> Tensor:
    """Means of neighbours in twos along an axis; `last` is how much of a pixel the last one holds, 0 to 1."""
    pairs, alone = divmod(x.shape[axis], 2)
    parts = []
    if not alone and last < 1:
        pairs -= 1
    if pairs:
        parts.append(x.narrow(axis, 0, 2 * pairs).unflatten(axis, (pairs, 2)).mean(axis))
    if alone:
        parts.append(x.narrow(axis, 2 * pairs, 1))
    elif last < 1:
        whole, part = x.narrow(axis, 2 * pairs, 1), x.narrow(axis, 2 * pairs + 1, 1)
        parts.append((whole + part * last) / (1 + last))
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
