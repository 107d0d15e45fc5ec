"""How far the dense network's map would reach, where it is smaller than the windows' maps together.

A window of S cells always gives S / R, but an unpadded ("valid") convolution of the dense network loses cells at the
picture's right and bottom. What lies beyond must read as that network's padding, and stand for no part of the picture.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foveal.convert.window_maps import Look, Refused
from foveal.halo_table import Padding

_SLACK = 1e-6

Cut = tuple[Any, ...]
"""The steps since the dense map began to be smaller: the cells along a window's side, then each; empty before."""


class Step(NamedTuple):
    """A kernel that slides: its reach in cells, its stride, and the padding before and after, each as (y, x)."""

    reach: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    ceil: bool = False

    def rim(self) -> Padding:
        """The rim (left, right, top, bottom) by which n cells give n / stride."""
        top, left = self.before
        bottom, right = (
            max(0, reach - stride - before)
            for reach, stride, before in zip(self.reach, self.stride, self.before, strict=True)
        )
        return left, right, top, bottom

    def length(self, cells: Tensor) -> Tensor:
        """(..., 2) int64, cells along y and x -> those that the dense network would have after this step."""
        reach, stride, before, after = (
            torch.tensor(pair, device=cells.device) for pair in (self.reach, self.stride, self.before, self.after)
        )
        room = cells + before + after - reach
        if not self.ceil:
            return room.div(stride, rounding_mode="floor") + 1
        length = -(-room).div(stride, rounding_mode="floor") + 1
        return length - ((length - 1) * stride >= cells + before).long()

    def keeps(self) -> bool:
        """Whether a dense map of whole strides keeps exactly its strides, so that nothing is cut."""
        for reach, stride, before, after in zip(self.reach, self.stride, self.before, self.after, strict=True):
            spare = before + after - reach
            steps = math.ceil(spare / stride) if self.ceil else spare // stride
            if steps + 1 - (self.ceil and steps == 0 and before == 0) != 0:
                return False
        return True


class Growth(NamedTuple):
    """A transposed kernel: its reach in cells, how many times as large maps become, and what is cut off before and
    after, each as (y, x)."""

    reach: tuple[int, int]
    times: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def stride(self) -> tuple[float, float]:
        """Cells from one output to the next, as of a step that slides."""
        return 1 / self.times[0], 1 / self.times[1]

    def length(self, cells: Tensor) -> Tensor:
        """(..., 2) int64, cells along y and x -> those that the dense network would have after this step."""
        reach, times, before, after = (
            torch.tensor(pair, device=cells.device) for pair in (self.reach, self.times, self.before, self.after)
        )
        return (cells - 1) * times + reach - before - after

    def keeps(self) -> bool:
        """Whether a dense map becomes exactly `times` as large."""
        sides = zip(self.reach, self.times, self.before, self.after, strict=True)
        return all(reach - before - after == times for reach, times, before, after in sides)


def after_step(cut: Cut, step: Step | Growth, n: int) -> Cut:
    """The steps to remember, after one more on a map of `n x n` cells."""
    if cut or not step.keeps():
        return (*(cut or (n,)), step)
    return ()


def reaches(look: Look, cut: Cut) -> Tensor:
    """(B, K, 2) int64: cells along y and x, from the picture's corner, of the dense map at each window's level.

    Raises:
        Refused: if the dense map would be larger than the windows together, which have no place for it.
    """

    def compute() -> Tensor:
        layout, n, steps = look.layout, cut[0], cut[1:]
        span = (layout.size << layout.levels)[..., None]
        ends = torch.where(layout.valid[..., None], layout.origins + span, 0).amax(1, keepdim=True)
        pixels = layout.cell_pixels(n)[..., None]
        cells, whole = torch.ceil(ends / pixels - _SLACK).long(), float(n)
        for step in steps:
            cells = step.length(cells)
            whole /= step.stride[0]
        limit = torch.ceil(ends / layout.cell_pixels(1)[..., None] * whole - _SLACK)
        if not torch.compiler.is_compiling() and bool((cells > limit).any()):
            raise Refused(
                f"kernel of {step.reach} cells, stride {step.stride}, padding {step.before} and {step.after}: the "
                f"dense map grows by a cell, for which windows have no place"
            )
        return cells

    return look.layout.remembered(("reaches", cut), compute)


def beyond(look: Look, cut: Cut, n: int) -> Tensor | None:
    """(B, K, n, n) bool: the cells that the dense map would not have; None where there are none."""
    if not cut:
        return None

    def compute() -> Tensor | None:
        layout = look.layout
        first = layout.origins / layout.cell_pixels(n)[..., None]
        cells = first[..., None] + torch.arange(n, dtype=torch.float64, device=first.device)
        out = cells >= reaches(look, cut)[..., None] - _SLACK  # (B, K, 2, n)
        mask = out[:, :, 0, :, None] | out[:, :, 1, None, :]
        return mask if torch.compiler.is_compiling() or bool(mask.any()) else None

    return look.layout.remembered(("beyond", cut, n), compute)


def same_reach(look: Look, one: Cut, other: Cut, n: int) -> bool:
    """Whether two branches of a network end in dense maps of the same size."""
    if one == other or torch.compiler.is_compiling():
        return True
    here, there = (reaches(look, cut) if cut else torch.full_like(look.layout.origins, 1 << 62) for cut in (one, other))
    span = torch.ceil(
        (look.layout.origins + (look.layout.size << look.layout.levels)[..., None]).amax(1, True)
        / look.layout.cell_pixels(n)[..., None]
        - _SLACK
    ).long()
    return bool((here.minimum(span) == there.minimum(span)).all())
