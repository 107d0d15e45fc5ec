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
        cells: read of each canvas, what the policy looks at included; a window that both look at counts once.
        windows: of a fovea; None for the ordinary ways.
        halo: whether rims are filled from the windows around.
        head: what names the places and has to be taught first, the same for all ways that have one.
    """

    look: Callable[[Tensor, Tensor], Any]
    cells: int
    windows: Windows | None = None
    halo: bool = True
    head: SaliencyHead | None = None


def widest(canvas: int, size: int) -> Callable[[Tensor], Glimpse]:
    """What every policy looks at: (canvases) -> the whole of each in one window of a chain."""
    level = ((canvas - 1) // size).bit_length()

    def see(x: Tensor) -> Glimpse:
        origins = torch.zeros(len(x), 1, 2, dtype=torch.int64)
        levels, sides = torch.full((len(x), 1), level), torch.full((len(x), 2), canvas)
        middle, there = torch.full((len(x), 1, 2), 0.5), torch.ones(len(x), 1, dtype=torch.bool)
        return Retina(size)(x, layout=Layout(size, origins, levels, sides, middle, there))

    return see


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
    torch.manual_seed(0)
    see, seen, head = widest(canvas, size), load_saliency().to(device), SaliencyHead(64, fine=24).to(device)

    def likely(glimpse: Glimpse) -> Tensor:
        scores = head(glimpse).float()
        return scores.flatten(1).softmax(1).view_as(scores)

    def add(family: str, windows: Windows, halo: bool) -> None:
        one = windows.cells + (0 if windows.size == size else size**2)  # a policy sees a chain's own widest window

        def by(score: Callable[[Glimpse], Tensor], count: int, how: Any) -> Callable[[Tensor, Tensor], Glimpse]:
            def look(x: Tensor, centres: Tensor) -> Glimpse:
                glimpse = see(x)
                with torch.no_grad():
                    scores = score(glimpse).float().cpu()
                return windows.look(x, places(scores, glimpse.layout, count=count, how=how))

            return look

        def at(place: Callable[[Tensor], Tensor]) -> Way:
            return Way(lambda x, centres: windows.look(x, place(centres)[:, None]), windows.cells, windows, halo)

        found[f"{family}-centre"] = at(lambda centres: torch.full_like(centres, 0.5))
        found[f"{family}-oracle"] = at(lambda centres: centres)
        found[f"{family}-energy"] = Way(by(contrast, 1, "mass"), one, windows, halo)
        found[f"{family}-saliency"] = Way(by(seen, 1, "peak"), one, windows, halo)
        found[f"{family}-learned"] = Way(by(likely, 1, "local"), one, windows, halo, head)
        two = one + windows.size**2  # and the finest window of the second place
        found[f"{family}-learned-two"] = Way(by(likely, 2, "local"), two, windows, halo, head)

    for halo, ending in ((True, ""), (False, "-padded")):
        add(f"fovea{ending}", chain, halo)
        add(f"pair{ending}", pair, halo)
    equal = round(chain.cells**0.5 / 8) * 8
    start = (canvas - equal) // 2
    found["dense"] = Way(lambda x, _: x, canvas**2)
    found["resize"] = Way(lambda x, _: F.interpolate(x, (equal, equal), mode="bilinear", antialias=True), equal**2)
    found["crop"] = Way(lambda x, _: x[:, :, start : start + equal, start : start + equal], equal**2)
    return found
