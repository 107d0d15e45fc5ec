"""Learning where to look from the task alone: no boxes, no gazes, only which of two looks served the task better.

Two places of each picture are drawn from a head's scores, the task's loss is measured at both, and the difference of
their scores is taught to be the difference of the losses. What makes one picture harder than another falls out. In the
family of recurrent models of visual attention (Mnih et al. 2014), with pairs in the place of a learned baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.layout import Layout


def draw_places(scores: Tensor, layout: Layout, *, count: int = 2, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
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
        >>> index, fixations = draw_places(torch.zeros(1, 4, 4), layout)
        >>> fixations.shape
        torch.Size([1, 2, 2])
    """
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2] or layout.num_windows != 1 or len(scores) != len(layout):
        raise ValueError(
            f"scores have shape {tuple(scores.shape)}; expected ({len(layout)}, n, n), of one window a picture"
        )
    n = scores.shape[-1]
    if temperature <= 0 or not 1 <= count <= n * n:
        raise ValueError(f"temperature={temperature}, count={count}; expected above 0, and from 1 to {n * n}")
    with torch.no_grad():
        noise = -torch.empty_like(scores).exponential_().log()
        drawn = (scores / temperature + noise).masked_fill(~layout.inside(n)[:, 0].to(scores.device), float("-inf"))
        index = drawn.flatten(1).topk(count).indices
    cells = layout.cell_places(n)[:, 0].flatten(1, 2).gather(1, index.cpu()[..., None].expand(-1, -1, 2))
    return index, (cells / layout.pictures[:, None]).clamp(0, 1)


def preference_loss(scores: Tensor, index: Tensor, losses: Tensor) -> Tensor:
    """Teaches scores that the difference between two places is how much less the task's loss is at the better one.

    Args:
        scores: (B, n, n), with gradient.
        index: (B, 2), two places, as of `draw_places`.
        losses: (B, 2), the task's loss of each picture with a look at each of them; no gradient flows into it.

    Returns:
        The mean Huber loss, a single number.

    Example:
        >>> float(preference_loss(torch.zeros(1, 2, 2), torch.tensor([[0, 3]]), torch.tensor([[1.0, 1.0]])))
        0.0
    """
    if index.shape != losses.shape or index.ndim != 2 or index.shape[1] != 2 or len(scores) != len(index):
        raise ValueError(
            f"index has shape {tuple(index.shape)} and losses {tuple(losses.shape)}; expected ({len(scores)}, 2) of "
            f"both"
        )
    held = scores.flatten(1).gather(1, index)
    return F.huber_loss(held[:, 0] - held[:, 1], (losses[:, 1] - losses[:, 0]).detach())
