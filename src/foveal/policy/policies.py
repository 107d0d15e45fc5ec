"""Policies: what chooses the layout of a look, from nothing, a point, or any score of the widest window's cells.

A policy is called with pictures and a retina, and gives the layout through which the retina is to look at them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from foveal.arguments import whole_number
from foveal.layout import Layout
from foveal.picture import Picture
from foveal.policy.scores import Score, contrast, places, refuse_no_numbers, scored_cells
from foveal.retina import Retina, opened_pictures


class Policy(Protocol):
    """Pictures (what a retina takes) and a retina -> the layout of the look."""

    def __call__(self, pictures: Any, retina: Retina) -> Layout: ...


@dataclass(frozen=True)
class Point:
    """Always the same point.

    Args:
        fixation: "center", or (y, x) in [0, 1].

    Example:
        >>> Point((0.2, 0.8))(torch.rand(3, 64, 64), Retina(16, levels=3)).num_windows
        3
    """

    fixation: Any = "center"

    def __call__(self, pictures: Any, retina: Retina) -> Layout:
        return _chain(opened_pictures(pictures), retina, self.fixation)


@dataclass(frozen=True)
class Scanpath:
    """The best places by a score, each with its chain of windows; what the chains share is there once.

    Looking costs one window more than the layout has: the widest, at which the score looks.

    Args:
        fixations: how many.
        score: of the cells of the widest window; `contrast` by default, `feature_energy(network)`, a trained head, ...
        how, threshold, radius: as of `places`.

    Raises:
        ValueError: for an impossible number of fixations or a score that cannot be called; when called, for scores of
            another shape and for options that `places` refuses.

    Example:
        >>> layout = Scanpath(2)(torch.rand(3, 64, 64), Retina(16, levels=3))
        >>> layout.fixations.shape
        torch.Size([1, 2, 2])
    """

    fixations: int = 1
    score: Score = contrast
    how: Literal["peak", "local", "mass"] = "peak"
    threshold: float = 0.3
    radius: float = 1.0

    def __post_init__(self) -> None:
        whole_number(self.fixations, "fixations", 1)
        _refuse_no_score(self.score)

    def __call__(self, pictures: Any, retina: Retina) -> Layout:
        opened = opened_pictures(pictures)
        widest = _chain(opened, retina, "center").widest()
        with torch.no_grad():
            scores = self.score(retina(opened, layout=widest))
        found = places(scores, widest, count=self.fixations, how=self.how, threshold=self.threshold, radius=self.radius)
        if self.fixations == 1:
            return _chain(opened, retina, found[:, 0])
        return Layout.stack([_scan(picture, retina, rows) for picture, rows in zip(opened, found, strict=True)])


@dataclass(frozen=True)
class Refine:
    """Greedy mesh refinement (Berger and Oliger 1984): a finer window where the score is highest, until there are K.

    Every window that is placed is looked at and scored in its turn, so what only shows from near is followed; the
    score looks at each window that is not of level 0.

    Args:
        windows: K, the budget.
        score: of a window's cells; each counts by the side of its cell, so that unlike levels can be compared.

    Raises:
        ValueError: for an impossible budget or a score that cannot be called; when called, for scores of another shape.

    Example:
        >>> Refine(6)(torch.rand(3, 64, 64), Retina(16, levels=3)).num_windows
        6
    """

    windows: int
    score: Score = contrast

    def __post_init__(self) -> None:
        whole_number(self.windows, "windows", 1)
        _refuse_no_score(self.score)

    def __call__(self, pictures: Any, retina: Retina) -> Layout:
        return Layout.stack([self._refined(picture, retina) for picture in opened_pictures(pictures)])

    @torch.no_grad()
    def _refined(self, picture: Picture, retina: Retina) -> Layout:
        chain = _chain([picture], retina, "center")
        sides, size = chain.pictures[0].tolist(), chain.size
        top = chain.widest()
        placed = [(int(top.levels[0, 0]), 0, 0)]
        waiting: list[tuple[float, tuple[tuple[int, int, int], float, float]]] = []
        self._add_cells(picture, retina, placed[0], sides, waiting)
        while waiting and len(placed) < self.windows:
            _, (parent, y, x) = heapq.heappop(waiting)
            if any(_holds(window, size, y, x) for window in placed if window[0] < parent[0]):
                continue  # it is seen finer already
            window = _child(parent, size, y, x, sides)
            placed.append(window)
            if window[0] and len(placed) < self.windows:
                self._add_cells(picture, retina, window, sides, waiting)
        return Layout.windows(picture=sides, size=size, windows=placed)

    def _add_cells(
        self, picture: Picture, retina: Retina, window: tuple[int, int, int], sides: Sequence[int], waiting: list[Any]
    ) -> None:
        """The window's cells, the best first, among those that wait to be seen finer."""
        if not window[0]:
            return
        layout = Layout.windows(picture=sides, size=retina.size, windows=[window])
        scores = self.score(retina([picture], layout=layout))
        cells = scored_cells(scores, layout)
        refuse_no_numbers(scores, cells)
        inside = cells[0].flatten().tolist()
        centres = layout.cell_places(scores.shape[-1])[0, 0].flatten(0, 1).tolist()
        for worth, there, (y, x) in zip(scores.flatten().tolist(), inside, centres, strict=True):
            if there and y < sides[0] and x < sides[1]:
                entry = (-worth * 2.0 ** window[0], (window, y, x))
                heapq.heappush(waiting, entry)


@dataclass(frozen=True)
class Tiling:
    """Windows side by side that hold the whole picture: the dense network, cut into tiles.

    Args:
        level: of the windows; 0 is full detail.
    """

    level: int = 0

    def __call__(self, pictures: Any, retina: Retina) -> Layout:
        layouts = [
            Layout.tiling(picture=(picture.height, picture.width), size=retina.size, level=self.level)
            for picture in opened_pictures(pictures)
        ]
        return Layout.stack(layouts)


def _refuse_no_score(score: Any) -> None:
    if not callable(score):
        raise ValueError(f"score is {score!r}; expected a function of a glimpse that gives its cells' scores")


def _chain(opened: Sequence[Picture], retina: Retina, fixation: Any) -> Layout:
    return Layout.foveal(
        picture=[(picture.height, picture.width) for picture in opened],
        size=retina.size,
        levels=retina.levels,
        fixation=fixation,
        enlarge=retina.enlarge,
    )


def _scan(picture: Picture, retina: Retina, fixations: torch.Tensor) -> Layout:
    return Layout.scan(
        picture=(picture.height, picture.width),
        size=retina.size,
        levels=retina.levels,
        fixations=fixations,
        enlarge=retina.enlarge,
    )


def _holds(window: tuple[int, int, int], size: int, y: float, x: float) -> bool:
    level, top, left = window
    return top <= y < top + (size << level) and left <= x < left + (size << level)


def _child(parent: tuple[int, int, int], size: int, y: float, x: float, sides: Sequence[int]) -> tuple[int, int, int]:
    """The window of the next finer level, within its parent and on the lattice, as nearly centred as they allow."""
    level = parent[0] - 1
    covered, step = size << level, max(1, size // 2) << level
    origin = []
    for at, start, side in zip((y, x), parent[1:], sides, strict=True):
        last = -((covered - side) // step) * step if side > covered else 0
        nearest = round((at - covered / 2) / step) * step
        origin.append(min(max(nearest, start), start + covered, last))
    return level, origin[0], origin[1]
