"""A loss that counts more where the picture is looked at.

A per-position weight, as U-Net's map of weights (Ronneberger, Fischer and Brox 2015), here by eccentricity. Weights
that are averaged first and multiplied on afterwards would only rescale the loss; these say where errors matter.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from foveal.blocks.eccentricity_map import center_weights, refuse_impossible_weights
from foveal.blocks.registry import Block


class CenterWeightedLoss(nn.Module):
    """`sum_p w_p * l_p / sum_p w_p`, with `w = floor + (1 - floor) * exp(-e**2 / (2 * sigma**2))` at every place p.

    `l` is any loss that is not reduced yet, `e` the eccentricity over half the picture's longer side. The weighted mean
    of a loss that is alike everywhere is that loss, so learning rates stay. Ronneberger et al. (2015).

    On glimpses each cell also weighs the picture area that it alone stands for.

    Shapes: losses `(B, H, W)` or `(B, C, H, W) -> ()`; `(B,)` with `reduction="none"`.

    Parameters: 0; the weights are fixed.

    Use it around `F.cross_entropy(..., reduction="none")`, squared errors or any other loss that has a value at each
    place, where what lies off centre is context rather than goal.

    Not where all places count alike when the model is judged: it trades accuracy at the edge for the centre.

    Args:
        sigma: width of the centre, in units of half the picture's longer side.
        floor: the weight infinitely far from the fixation, in [0, 1); above 0 the edge is still learned.
        reduction: "mean" over the batch as well, or "none": each picture's own. Glimpses take "none".

    Raises:
        ValueError: for sigma, floor or reduction out of range; for losses or a mask of another shape.

    Example:
        >>> loss = create_block("center_weighted_loss")
        >>> logits, labels = torch.zeros(2, 5, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
        >>> each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")  # the log of 5 everywhere
        >>> round(loss(each).item(), 4)
        1.6094
    """

    def __init__(self, *, sigma: float = 0.5, floor: float = 0.25, reduction: Literal["mean", "none"] = "mean") -> None:
        super().__init__()
        refuse_impossible_weights(sigma, floor)
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'none'")
        self.sigma, self.floor, self.reduction = sigma, floor, reduction

    def forward(self, losses: Tensor, mask: Tensor | None = None, *, fixation: Tensor | None = None) -> Tensor:
        """The weighted mean.

        Args:
            losses: (B, H, W) or (B, C, H, W), one at each place.
            mask: (B, H, W) or (B, 1, H, W), True where a place counts; all do by default. A picture of which none
                counts gives 0, and so does a batch of no pictures.
            fixation: (B, 2) or (2,), (y, x) relative to the picture; the centre by default. Glimpses know theirs.
        """
        losses, mask = _with_channels(losses), None if mask is None else _with_channels(mask)
        dtype = losses.dtype
        losses = losses.to(torch.promote_types(dtype, torch.float32))
        weights = center_weights(losses, self.sigma, self.floor, fixation)
        if mask is not None:
            if mask.shape != (len(losses), 1, *losses.shape[2:]):
                raise ValueError(
                    f"the mask has shape {tuple(mask.shape)}; expected {(len(losses), 1, *losses.shape[2:])}"
                )
            weights = weights * mask.to(losses.dtype)
            losses = losses.masked_fill(~mask.bool(), 0)  # also where they are not finite
        weights = weights / _above_zero(weights.amax((2, 3)))[:, :, None, None]  # far from the fixation all are tiny
        total = (losses * weights).mean((2, 3)).mean(1)
        each = (total / _above_zero(weights.mean((2, 3)).mean(1))).to(dtype)
        return each.sum() / max(1, len(each)) if self.reduction == "mean" else each

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"sigma={self.sigma}, floor={self.floor}, reduction={self.reduction!r}"


def _above_zero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))


def _with_channels(x: Tensor) -> Tensor:
    if x.ndim not in (3, 4):
        raise ValueError(f"losses or mask of shape {tuple(x.shape)}; expected (B, H, W) or (B, C, H, W), not reduced")
    return x if x.ndim == 4 else x[:, None]


BLOCKS = (Block("center_weighted_loss", CenterWeightedLoss),)
