"""Learning where to look from the task alone: no boxes, no gazes, only what the task's answer is.

Every place of a picture is taken to be the one that matters with the probability that a head's score gives it, and the
right answer to be as likely as the network finds it from there: a mixture over places (as mixtures of experts, Jacobs
et al. 1991). Its gradient pulls the head to the places that speak for the right answer, and teaches the network most
where the head already looks. A look whose windows hold all of a picture, such as a tiling at a coarse level, asks all
places at once; the recurrent models of visual attention (Mnih et al. 2014) have to draw one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.layout import Layout


def draw_places(scores: Tensor, layout: Layout, *, count: int = 1, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Different places of each picture, drawn in proportion to the exponential of their scores (Gumbel top-k).

    Args:
        scores: (B, n, n), of the cells of one window a picture.
        layout: of these windows.
        count: how many, M.
        temperature: above 0; the higher, the more the places that score less have their turn.

    Returns:
        index: (B, M) int64, into the n * n cells.
        fixations: (B, M, 2) float64, (y, x) relative to the picture.

    Raises:
        ValueError: if scores and layout do not belong together, or for an impossible count or temperature.

    Example:
        >>> layout = Layout.foveal(picture=(64, 64), size=16, levels=3).widest()
        >>> index, fixations = draw_places(torch.zeros(1, 4, 4), layout, count=2)
        >>> fixations.shape
        torch.Size([1, 2, 2])
    """
    _refuse_other_scores(scores, layout)
    n = scores.shape[-1]
    if temperature <= 0 or not 1 <= count <= n * n:
        raise ValueError(f"temperature={temperature}, count={count}; expected above 0, and from 1 to {n * n}")
    with torch.no_grad():
        noise = -torch.empty_like(scores).exponential_().log()
        drawn = (scores / temperature + noise).masked_fill(~layout.inside(n)[:, 0].to(scores.device), float("-inf"))
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
    _refuse_other_scores(scores, layout)
    if said.shape != scores.shape:
        raise ValueError(f"said has shape {tuple(said.shape)}; expected that of the scores, {tuple(scores.shape)}")
    outside = ~layout.inside(scores.shape[-1])[:, 0].to(scores.device)
    places = scores.masked_fill(outside, float("-inf")).flatten(1).log_softmax(1)
    return -(places + said.masked_fill(outside, 0.0).flatten(1)).logsumexp(1).mean()


def _refuse_other_scores(scores: Tensor, layout: Layout) -> None:
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2] or layout.num_windows != 1 or len(scores) != len(layout):
        raise ValueError(
            f"scores have shape {tuple(scores.shape)}; expected ({len(layout)}, n, n), of one window a picture"
        )
