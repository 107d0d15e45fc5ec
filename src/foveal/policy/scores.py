"""What parts of a picture are worth: scores of the cells of its widest window, and the places that they name."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.arguments import whole_number
from foveal.layout import Layout
from foveal.retina import Glimpse

Score: TypeAlias = Callable[[Glimpse], Tensor]
"""A glimpse of one window a picture -> (B, n, n), what its cells are worth; any n, the higher the better."""


def contrast(glimpse: Glimpse) -> Tensor:
    """The variance of grey over 3 x 3 cells, (B, S, S): a reflex that needs no network.

    Example:
        >>> contrast(Retina(16, levels=1)(torch.rand(2, 3, 16, 16))).shape
        torch.Size([2, 16, 16])
    """
    grey = glimpse.pixels[:, 0].float().mean(1, keepdim=True)
    grey = grey - grey.mean((2, 3), keepdim=True)  # a bright picture's squares would swamp what differs in them

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    return (mean(grey.square()) - mean(grey).square()).clamp(min=0)[:, 0]


def feature_energy(network: Callable[[Glimpse], Tensor]) -> Score:
    """The squared length of a network's features: what it answers to.

    Args:
        network: a glimpse -> (B, 1, C, n, n), such as a `CenterFocusCNN` or a foveated network's `forward_features`.

    Example:
        >>> score = feature_energy(CenterFocusCNN("nano"))
        >>> score(Retina(64, levels=1)(torch.rand(1, 3, 64, 64))).shape
        torch.Size([1, 4, 4])
    """

    def score(glimpse: Glimpse) -> Tensor:
        return network(glimpse)[:, 0].float().square().mean(1)

    return score


def places(
    scores: Tensor,
    layout: Layout,
    *,
    count: int = 1,
    how: Literal["peak", "local", "mass"] = "peak",
    threshold: float = 0.3,
    radius: float = 1.0,
) -> Tensor:
    """The best places of each picture, one after the other, with inhibition of return (Itti and Koch 2001).

    Args:
        scores: (B, n, n), of the cells of one window a picture; minus infinity for a cell that is worth nothing.
        layout: of these windows.
        count: how many places, F.
        how: the "peak", the centre of mass of the 3 x 3 cells around it ("local"), which places finer than cells
            are, or that of all that is worth at least `threshold` of the most ("mass").
        threshold: as a fraction of the span from the least to the most, in [0, 1).
        radius: after each place the scores around it are put down, by a Gaussian of this standard deviation in sides
            of the finest window; 0 for none.

    Returns:
        (B, F, 2) float64, (y, x) relative to the picture. Where all cells are worth the same, its centre.

    Raises:
        ValueError: if scores and layout do not belong together, or for impossible options.

    Example:
        >>> layout = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
        >>> scores = torch.zeros(1, 16, 16)
        >>> scores[0, 4, 8] = 1
        >>> places(scores, layout)[0].tolist()
        [[0.28125, 0.53125]]
    """
    layout = layout.to("cpu")
    inside = scored_cells(scores, layout)
    refuse_no_numbers(scores, inside)
    whole_number(count, "count", 1)
    numbers = isinstance(threshold, Real) and isinstance(radius, Real)
    if how not in ("peak", "local", "mass") or not numbers or not 0 <= threshold < 1 or not radius >= 0:
        raise ValueError(
            f"how={how!r}, threshold={threshold!r}, radius={radius!r}; expected 'peak', 'local' or 'mass', a "
            f"threshold from 0 to below 1 and a radius of at least 0"
        )
    n = scores.shape[-1]
    values = scores.detach().double().cpu().masked_fill(~inside, -torch.inf).flatten(1)
    least = values.masked_fill(values.isinf(), torch.inf).amin(1, keepdim=True)
    worth = torch.where(values.isinf(), 0.0, values - least)
    cells = layout.cell_places(n)[:, 0].flatten(1, 2)  # (B, n * n, 2), pixels
    sides = layout.pictures[:, None].double()
    found = []
    for _ in range(count):
        most = worth.amax(1, keepdim=True)
        if how == "peak":
            place = cells.gather(1, worth.argmax(1)[:, None, None].expand(-1, 1, 2))[:, 0]
        else:
            counts = _around(worth.argmax(1), n) if how == "local" else worth >= threshold * most
            mass = torch.where(counts, worth, 0.0)
            place = (mass[..., None] * cells).sum(1) / mass.sum(1, keepdim=True).clamp(min=1e-300)
        place = torch.where(most > 0, place, sides[:, 0] / 2)
        found.append((place / sides[:, 0]).clamp(0, 1))
        if radius:
            apart = (cells - place[:, None]).square().sum(-1)
            worth = worth * (1 - torch.exp(-apart / (2 * (radius * layout.size) ** 2)))
    return torch.stack(found, 1)


def _around(peaks: Tensor, n: int) -> Tensor:
    """(B,) indices into n * n cells -> (B, n * n) bool: these cells and their neighbours."""
    cells = torch.arange(n * n)
    rows = (cells // n - peaks[:, None] // n).abs()
    columns = (cells % n - peaks[:, None] % n).abs()
    return (rows <= 1) & (columns <= 1)


def scored_cells(scores: Any, layout: Layout) -> Tensor:
    """(B, n, n) bool, on the CPU: which of the scored cells lie in their picture.

    Raises:
        ValueError: unless the scores are (B, n, n), of one window a picture.
    """
    expected = f"expected ({len(layout)}, n, n), of one window a picture"
    if not isinstance(scores, Tensor):
        raise ValueError(f"scores are of type {type(scores).__name__}; {expected}")
    square = scores.ndim == 3 and scores.shape[1] == scores.shape[2] >= 1 and len(scores) == len(layout)
    if not square or layout.num_windows != 1:
        raise ValueError(f"scores have shape {tuple(scores.shape)}; {expected}")
    return layout.to("cpu").inside(scores.shape[-1])[:, 0]


def refuse_no_numbers(scores: Tensor, inside: Tensor) -> None:
    """Refuses scores that no order can be read from; beside the picture they may be anything.

    Raises:
        ValueError: for NaN and infinity in the picture.
    """
    wrong = ~(scores.detach() < torch.inf).cpu() & inside
    if bool(wrong.any()):
        raise ValueError(
            f"the scores of picture {int(wrong.flatten(1).any(1).nonzero()[0])} hold {scores[wrong][0].item()}; "
            f"expected numbers, or minus infinity for a cell that is worth nothing"
        )
