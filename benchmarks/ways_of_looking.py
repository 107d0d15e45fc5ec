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


@dataclass
class Way:
    """One way of looking: what a network is shown of canvases.

    Args:
        look: (canvases, centres) -> what the network takes.
        cells: seen of each canvas, what the policy looks at included.
        foveated: whether the network takes glimpses; likewise `halo`.
        head: a policy's own, with the retina that it looks through.
        heir_of: the way whose network and head, learned before, teach this head and a network that begins anew.
    """

    look: Callable[[Tensor, Tensor], Any]
    cells: int
    foveated: bool = True
    halo: bool = True
    head: SaliencyHead | None = None
    retina: Retina | None = None
    heir_of: str | None = None


def chain(retina: Retina, canvas: int, fixations: Tensor) -> Layout:
    return Layout.foveal(
        picture=[(canvas, canvas)] * len(fixations),
        size=retina.size,
        levels=retina.levels,
        fixation=fixations,
        lattice=LATTICE,
    )


def twice(retina: Retina, canvas: int, fixations: Tensor) -> Layout:
    """(B, 2, 2): two fixations on each canvas as one layout, of the second only its finest window."""
    first, second = (chain(retina, canvas, fixations[:, look]) for look in (0, 1))
    every = [torch.cat([layout.levels[..., None], layout.origins], -1) for layout in (first, second)]
    rows = torch.cat([every[0], every[1][:, :1]], 1).tolist()  # the finest of each come first
    picture = (canvas, canvas)
    return Layout.stack([Layout.windows(picture=picture, size=retina.size, windows=windows) for windows in rows])


def ways(canvas: int, size: int, levels: int) -> dict[str, Way]:
    """Every way that can be trained, by name."""
    found: dict[str, Way] = {}
    torch.manual_seed(0)
    seen = load_saliency()

    def of(retina: Retina, name: str, halo: bool) -> None:
        cells = retina.levels * retina.size**2  # type: ignore[operator]

        def widest(x: Tensor) -> Layout:
            return chain(retina, canvas, torch.full((len(x), 2), 0.5)).widest()

        def at(place: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Any]:
            return lambda x, centres: retina(x, layout=chain(retina, canvas, place(centres)))

        def by_score(score: Callable[[Glimpse], Tensor], count: int, how: str) -> Callable[[Tensor, Tensor], Any]:
            def look(x: Tensor, centres: Tensor) -> Any:
                whole = widest(x)
                with torch.no_grad():
                    scores = score(retina(x, layout=whole))
                chosen = places(scores, whole, count=count, how=how)  # type: ignore[arg-type]
                layout = chain(retina, canvas, chosen[:, 0]) if count == 1 else twice(retina, canvas, chosen)
                return retina(x, layout=layout)

            return look

        extra = size**2  # what a policy looks at
        found[f"{name}-centre"] = Way(at(lambda c: torch.full_like(c, 0.5)), cells, halo=halo)
        found[f"{name}-oracle"] = Way(at(lambda c: c), cells, halo=halo)
        found[f"{name}-energy"] = Way(by_score(contrast, 1, "mass"), cells + extra, halo=halo)
        found[f"{name}-saliency"] = Way(by_score(seen, 1, "peak"), cells + extra, halo=halo)

        def by_head(count: int, heir_of: str | None = None) -> Way:
            head = SaliencyHead(64)

            def likely(glimpse: Glimpse) -> Tensor:
                scores = head(glimpse).float()
                return scores.flatten(1).softmax(1).view_as(scores)

            look = by_score(likely, count, "local")
            return Way(look, cells + count * extra, halo=halo, head=head, retina=retina, heir_of=heir_of)

        found[f"{name}-learned"] = by_head(1)
        found[f"{name}-learned-again"] = by_head(1, f"{name}-learned")
        found[f"{name}-learned-twice"] = by_head(2, f"{name}-learned")

    fovea = Retina(size, levels)
    of(fovea, "fovea", True)
    of(fovea, "fovea-padded", False)
    equal = round((levels * size**2) ** 0.5 / 8) * 8
    start = (canvas - equal) // 2
    found["dense"] = Way(lambda x, c: x, canvas**2, foveated=False)
    found["resize"] = Way(
        lambda x, c: F.interpolate(x, (equal, equal), mode="bilinear", antialias=True), equal**2, foveated=False
    )
    found["crop"] = Way(lambda x, c: x[:, :, start : start + equal, start : start + equal], equal**2, foveated=False)
    pair_size = 40 if canvas == 128 else 64
    for halo in (True, False):
        two = "pair" if halo else "pair-padded"
        for name, told in (("centre", False), ("oracle", True)):
            found[f"{two}-{name}"] = Way(
                lambda x, c, told=told: _pair(x, c if told else torch.full_like(c, 0.5), pair_size),  # type: ignore[misc]
                2 * pair_size**2,
                halo=halo,
            )
    return found


def _pair(x: Tensor, centres: Tensor, size: int) -> Glimpse:
    """Two windows: the whole canvas, and native pixels at the fixation."""
    canvas = x.shape[-1]
    level = max(0, (canvas - 1) // size).bit_length()
    layouts = []
    for y, x_ in (centres * canvas).tolist():
        origin = [min(max(0, round((at - size / 2) / LATTICE) * LATTICE), canvas - size) for at in (y, x_)]
        layouts.append(Layout.windows(picture=(canvas, canvas), size=size, windows=[(level, 0, 0), (0, *origin)]))
    return Retina(size)(x, layout=Layout.stack(layouts))
