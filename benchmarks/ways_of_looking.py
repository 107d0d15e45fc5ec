"""Ways of looking at a canvas: a fovea by several policies, two windows, and what they are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal import Layout, Retina
from foveal.models.saliency import SaliencyHead, load_saliency
from foveal.policy.scores import contrast, places
from foveal.retina import Glimpse

LATTICE = 8
"""Of the windows' origins, in pixels of their level: as fine as a network of stride 8 can have it."""


@dataclass(frozen=True)
class Windows:
    """Which windows a look has, wherever it looks.

    Args:
        canvas: pixels along a picture's side.
        size: cells along a window's side.
        levels: of the windows, finest first; a chain has every level, a pair the whole canvas and native pixels.
    """

    canvas: int
    size: int
    levels: tuple[int, ...]

    @property
    def cells(self) -> int:
        return len(self.levels) * self.size**2

    def layout(self, fixations: Tensor) -> Layout:
        """(B, F, 2), relative -> one layout of B pictures; of fixations after the first only the finest window."""
        picture = [(self.canvas, self.canvas)] * len(fixations)
        options = {"picture": picture, "size": self.size, "levels": self.levels[-1] + 1, "lattice": LATTICE}
        chain, *more = (Layout.foveal(fixation=places, **options) for places in fixations.unbind(1))  # type: ignore[arg-type]
        if self.levels != tuple(range(len(self.levels))):
            chain = chain.select(list(self.levels))
        finest = [chain.origins[:, :1], *(other.origins[:, :1] for other in more)]
        again = [torch.zeros(len(fixations), 1, dtype=torch.bool)]  # a window that is there already does not count
        again += [
            torch.stack([(finest[n] == finest[m]).all(-1) for m in range(n)]).any(0) for n in range(1, len(finest))
        ]
        return Layout(
            self.size,
            torch.cat([*finest, chain.origins[:, 1:]], 1),
            torch.cat([torch.zeros_like(chain.levels[:, : len(finest)]), chain.levels[:, 1:]], 1),
            chain.pictures,
            fixations,
            torch.cat([~torch.cat(again, 1), chain.valid[:, 1:]], 1),
        )

    def look(self, x: Tensor, fixations: Tensor) -> Glimpse:
        """(B, 3, H, H) at (B, F, 2)."""
        return Retina(self.size)(x, layout=self.layout(fixations.cpu()))


@dataclass(frozen=True)
class Way:
    """One way of looking: what a network is shown of canvases.

    Args:
        look: (canvases, centres of the objects) -> what the network takes.
        cells: seen of each canvas, what the policy looks at included.
        windows: of a fovea; None for the ordinary ways.
        halo: whether rims are filled from the windows around.
        head: a policy that is learned with the task, and where it looks: (canvases) -> a glimpse of one window.
        fixations: how many it names.
    """

    look: Callable[[Tensor, Tensor], Any]
    cells: int
    windows: Windows | None = None
    halo: bool = True
    head: SaliencyHead | None = None
    widest: Callable[[Tensor], Glimpse] | None = None
    fixations: int = 1


def ways(canvas: int, size: int, device: torch.device) -> dict[str, Way]:
    """Every way that can be trained, by name.

    Args:
        canvas: pixels along a picture's side.
        size: cells along the side of a chain's windows; a pair has the larger ones that take about as many cells.
        device: of the policies' networks.
    """
    found: dict[str, Way] = {}
    deepest = ((canvas - 1) // size).bit_length()
    chain = Windows(canvas, size, tuple(range(deepest + 1)))
    side = round((chain.cells / 2) ** 0.5 / 8) * 8
    pair = Windows(canvas, side, (0, ((canvas - 1) // side).bit_length()))
    whole = size**2  # cells that a policy looks at
    torch.manual_seed(0)
    seen = load_saliency().to(device)

    def widest(x: Tensor) -> Glimpse:
        """What every policy looks at: the whole canvas in one window of a chain."""
        origins = torch.zeros(len(x), 1, 2, dtype=torch.int64)
        levels, sides = torch.full((len(x), 1), deepest), torch.full((len(x), 2), canvas)
        middle, there = torch.full((len(x), 1, 2), 0.5), torch.ones(len(x), 1, dtype=torch.bool)
        return Retina(size)(x, layout=Layout(size, origins, levels, sides, middle, there))

    def add(family: str, windows: Windows, halo: bool) -> None:
        def by(score: Callable[[Glimpse], Tensor], count: int, how: Any) -> Callable[[Tensor, Tensor], Glimpse]:
            def look(x: Tensor, centres: Tensor) -> Glimpse:
                glimpse = widest(x)
                with torch.no_grad():
                    scores = score(glimpse).float().cpu()
                return windows.look(x, places(scores, glimpse.layout, count=count, how=how))

            return look

        def by_head(count: int) -> Way:
            head = SaliencyHead(64).to(device)

            def likely(glimpse: Glimpse) -> Tensor:
                scores = head(glimpse).float()
                return scores.flatten(1).softmax(1).view_as(scores)

            cells = windows.cells + (count - 1) * windows.size**2 + whole
            return Way(by(likely, count, "local"), cells, windows, halo, head, widest, count)

        def at(place: Callable[[Tensor], Tensor]) -> Way:
            return Way(lambda x, centres: windows.look(x, place(centres)[:, None]), windows.cells, windows, halo)

        found[f"{family}-centre"] = at(lambda centres: torch.full_like(centres, 0.5))
        found[f"{family}-oracle"] = at(lambda centres: centres)
        found[f"{family}-energy"] = Way(by(contrast, 1, "mass"), windows.cells + whole, windows, halo)
        found[f"{family}-saliency"] = Way(by(seen, 1, "peak"), windows.cells + whole, windows, halo)
        found[f"{family}-learned"] = by_head(1)
        found[f"{family}-learned-two"] = by_head(2)

    for halo, ending in ((True, ""), (False, "-padded")):
        add(f"fovea{ending}", chain, halo)
        add(f"pair{ending}", pair, halo)
    equal = round(chain.cells**0.5 / 8) * 8
    start = (canvas - equal) // 2
    found["dense"] = Way(lambda x, _: x, canvas**2)
    found["resize"] = Way(lambda x, _: F.interpolate(x, (equal, equal), mode="bilinear", antialias=True), equal**2)
    found["crop"] = Way(lambda x, _: x[:, :, start : start + equal, start : start + equal], equal**2)
    return found
