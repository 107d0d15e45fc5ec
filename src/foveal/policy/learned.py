"""Learning where to look from the task alone: no boxes, no gazes, only what the task's answer is.

Every place of a picture is taken to be the one that matters with the probability that a head's score gives it, and the
right answer to be as likely as the network finds it from there: a mixture over places (as mixtures of experts, Jacobs
et al. 1991). Its gradient pulls the head to the places that speak for the right answer, and teaches the network most
where the head already looks. A look whose windows hold all of a picture, such as a tiling at a coarse level, asks all
places at once; the recurrent models of visual attention (Mnih et al. 2014) have to draw one after the other.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from foveal.arguments import whole_number
from foveal.layout import Layout
from foveal.policy.scores import refuse_no_numbers, scored_cells


def draw_places(scores: Tensor, layout: Layout, *, count: int = 1, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Different places of each picture, drawn in proportion to the exponential of their scores (Gumbel top-k).

    Args:
        scores: (B, n, n), of the cells of one window a picture; minus infinity for a cell that is never drawn.
        layout: of these windows.
        count: how many, M; at most the cells that lie in the picture and can be drawn.
        temperature: above 0; the higher, the more the places that score less have their turn.

    Returns:
        index: (B, M) int64, into the n * n cells.
        fixations: (B, M, 2) float64, (y, x) relative to the picture.

    Raises:
        ValueError: if scores and layout do not belong together, for scores that are no numbers, or for an impossible
            count or temperature.

    Example:
        >>> layout = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
        >>> index, fixations = draw_places(torch.zeros(1, 4, 4), layout, count=2)
        >>> fixations.shape
        torch.Size([1, 2, 2])
    """
    layout = layout.to("cpu")
    inside = scored_cells(scores, layout)
    refuse_no_numbers(scores, inside)
    inside = inside.to(scores.device)
    n = scores.shape[-1]
    whole_number(count, "count", 1)
    if not isinstance(temperature, Real) or not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r}; expected a number above 0")
    many = (inside & ~scores.isinf()).flatten(1).sum(1).tolist()
    if min(many) < count:
        raise ValueError(
            f"count is {count}; expected at most {min(many)}, the cells of picture {many.index(min(many))} that lie "
            f"in it and can be drawn"
        )
    with torch.no_grad():
        cooled = scores / temperature
        noise = -torch.empty_like(cooled).exponential_().log()
        drawn = (cooled + noise).masked_fill(~inside, float("-inf"))
        index = drawn.flatten(1).topk(count).indices
    cells = layout.cell_places(n)[:, 0].flatten(1, 2).gather(1, index.cpu()[..., None].expand(-1, -1, 2))
    return index, (cells / layout.pictures[:, None]).clamp(0, 1)


def mixture_loss(scores: Tensor, layout: Layout, said: Tensor) -> Tensor:
    """How unlikely the right answer is, where each place is the one that matters as likely as its score says.

    Args:
        scores: (B, n, n), of the cells of one window a picture, with gradient.
        layout: of these windows.
        said: (B, n, n), the logarithm of the right answer's probability as the network finds it at each of the same
            places, with gradient; `unfoveate` brings the cells of any look to them.

    Returns:
        The mean of the pictures' negative log-likelihoods, a single number.

    Raises:
        ValueError: if they do not belong together.

    Example:
        >>> layout = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
        >>> float(mixture_loss(torch.zeros(1, 4, 4), layout, torch.full((1, 4, 4), 0.25).log()))
        1.3862943649291992
    """
    inside = scored_cells(scores, layout).to(scores.device)
    if said.shape != scores.shape:
        raise ValueError(f"said has shape {tuple(said.shape)}; expected that of the scores, {tuple(scores.shape)}")
    places = scores.masked_fill(~inside, float("-inf")).flatten(1).log_softmax(1)
    return -(places + said.masked_fill(~inside, 0.0).flatten(1)).logsumexp(1).mean()
