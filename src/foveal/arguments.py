"""What callers name a look by (sizes, pictures, windows, fixations), as the geometry needs it or refused in words."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

DEEPEST = 32
"""Levels from 0 up to, and not including, this one; sides of pictures stay below `2**DEEPEST` pixels."""


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """A whole number, refused in words where it is none or out of range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; expected a whole number {span}")
    return number


def _pairs(values: Any, name: str, expected: str) -> Tensor:
    """(B, 2) float64 on the CPU from a pair, a list of pairs, an array or a tensor."""
    if isinstance(values, list | tuple) and any(isinstance(value, Tensor) for value in values):
        values = [value.tolist() if isinstance(value, Tensor) else value for value in values]
    try:
        rows = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {values!r}; expected {expected}") from error
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
        raise ValueError(f"{name} has shape {tuple(rows.shape)}; expected {expected}")
    return rows


def picture_sides(picture: Any) -> Tensor:
    """(B, 2) int64, each at least 1."""
    expected = "(height, width) in whole pixels, or (B, 2) of them"
    rows = _pairs(picture, "picture", expected)
    wrong = ~((rows >= 1) & (rows == rows.floor()) & (rows < 1 << DEEPEST)).all(1)  # NaN is wrong, too
    if bool(wrong.any()):
        raise ValueError(f"picture is {rows[wrong][0].tolist()}; expected {expected}, each at least 1")
    return rows.long()


def one_picture(picture: Any) -> tuple[int, int]:
    """(height, width) of a single picture."""
    rows = picture_sides(picture)
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} pictures were given; expected one (height, width); Layout.stack makes batches")
    height, width = rows[0].tolist()
    return height, width


def window_place(window: Any, sides: tuple[int, int]) -> tuple[int, int, int]:
    """(level, y, x) of a window that holds some of the picture."""
    try:
        level, y, x = window
    except (TypeError, ValueError) as error:
        raise ValueError(f"a window is {window!r}; expected (level, y, x)") from error
    level = whole_number(level, f"the level of window {window}", 0, DEEPEST - 1)
    y, x = (whole_number(start, f"the {axis} of window {window}", 0) for axis, start in (("y", y), ("x", x)))
    if y >= sides[0] or x >= sides[1]:
        raise ValueError(f"window {(level, y, x)} as (level, y, x) lies outside the picture of {sides} pixels")
    return level, y, x


def fixation_places(fixation: Any, batch: int) -> Tensor:
    """(B, 2) float64 from "center", (y, x) or (B, 2)."""
    expected = "'center', (y, x) or (B, 2), each from 0 to 1"
    if isinstance(fixation, str):
        if fixation != "center":
            raise ValueError(f"fixation is {fixation!r}; expected {expected}")
        fixation = (0.5, 0.5)
    rows = _pairs(fixation, "fixation", expected)
    wrong = ~((rows >= 0) & (rows <= 1)).all(1)
    if bool(wrong.any()):
        raise ValueError(f"fixation {rows[wrong][0].tolist()} lies outside the picture; y and x go from 0 to 1")
    if batch > 1 and len(rows) == 1:
        rows = rows.expand(batch, 2)
    if batch > 1 and len(rows) != batch:
        raise ValueError(f"{len(rows)} fixations for {batch} pictures; give one, or one for each")
    return rows
