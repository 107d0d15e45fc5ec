"""Teaching a `CenterFocusCNN` to see what a pretrained vision transformer sees, cell by cell.

Feature distillation (Romero et al. 2015, FitNets): every cell of every window is to name the teacher's features of
exactly the part of the picture that it covers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.halo import area_mean
from foveal.layout import Layout
from foveal.models.center_focus import CenterFocusCNN
from foveal.models.encoder import glimpse_of


def teacher_at(layout: Layout, n: int, grid: Tensor, boxes: Tensor) -> Tensor:
    """The teacher's features averaged over what each cell covers.

    Args:
        layout: of the views, B pictures.
        n: cells along the side of the student's maps.
        grid: (B, G, G, D), the teacher's patch features of the whole pictures.
        boxes: (B, 4), which part of its picture each view is: top, left, height, width, relative.

    Returns:
        (B, K, n, n, D); 0 in cells outside the picture.
    """
    layout, boxes = layout.to(grid.device), boxes.to(grid.device)
    steps = torch.arange(n + 1, dtype=torch.float64, device=grid.device)
    shares = []
    for axis in (0, 1):
        side = layout.pictures[:, axis, None, None]
        edges = layout.origins[..., axis, None] + steps * layout.cell_pixels(n)[..., None]
        edges = (edges / side).clamp(max=1) * boxes[:, 2 + axis, None, None] + boxes[:, axis, None, None]
        edges = edges * grid.shape[1 + axis]
        patch = torch.arange(grid.shape[1 + axis], dtype=torch.float64, device=grid.device)
        overlap = torch.minimum(edges[..., 1:, None], patch + 1) - torch.maximum(edges[..., :-1, None], patch)
        overlap = overlap.clamp(min=0)
        shares.append((overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-9)).to(grid.dtype))
    rows = torch.einsum("bkig,bghd->bkihd", shares[0], grid)
    return torch.einsum("bkihd,bkjh->bkijd", rows, shares[1])


class Distillation(nn.Module):
    """A backbone with two heads that exist only to be taught: one on every cell, one on the whole picture.

    Args:
        backbone: the student.
        width: D of the teacher.
    """

    def __init__(self, backbone: CenterFocusCNN, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cell = nn.Linear(backbone.channels, width)
        self.whole = nn.Sequential(nn.Linear(backbone.channels, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self,
        pixel_values: Tensor,
        window_origins: Tensor,
        window_levels: Tensor,
        window_valid: Tensor,
        picture_sizes: Tensor,
        fixations: Tensor,
        teacher_grid: Tensor,
        teacher_whole: Tensor,
        boxes: Tensor,
    ) -> dict[str, Tensor]:
        """The loss on a batch of views; the teacher's features are standardised (mean 0, deviation 1).

        Args:
            teacher_grid: (B, G, G, D) of the whole pictures; teacher_whole: (B, D); boxes: (B, 4).
            Others are the glimpse's tensors.

        Returns:
            loss, and its parts `cells` and `whole`.
        """
        glimpse = glimpse_of(pixel_values, window_origins, window_levels, window_valid, picture_sizes, fixations)
        features, layout = self.backbone(glimpse), glimpse.layout
        n = features.shape[-1]
        wanted = teacher_at(layout, n, teacher_grid, boxes)
        given = self.cell(features.permute(0, 1, 3, 4, 2)).float()
        inside = layout.inside(n) & layout.valid[..., None, None]
        cells = F.mse_loss(given[inside], wanted[inside])
        whole = F.mse_loss(self.whole(area_mean(features.flatten(0, 1), layout)).float(), teacher_whole)
        return {"loss": cells + 0.5 * whole, "cells": cells.detach(), "whole": whole.detach()}
