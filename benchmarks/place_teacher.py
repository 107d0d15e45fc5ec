"""Teaching a head where to look from labels alone, no boxes: what is beside the ways of looking, and left behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from canvas_steps import Run, take_steps
from canvases import Canvases
from safetensors.torch import load_file
from small_resnet import SmallResNet
from torch import Tensor, nn
from torch.nn import functional as F

from foveal import Layout, Retina, foveate, unfoveate
from foveal.models.saliency import SaliencyHead
from foveal.policy.learned import mixture_loss
from foveal.retina import Glimpse


def teach(head: SaliencyHead, widest: Callable[[Tensor], Glimpse], data: Canvases, run: Run, kept: Path) -> None:
    """Teaches a head, in place, and leaves it in evaluation mode; the same steps on the same canvases as any way has.

    A network surveys the whole canvas. How likely each place of it says the label to be, and how likely the head
    finds the place, make a mixture over places, whose gradient teaches both.

    Args:
        head: scores of places from the widest window.
        widest: (canvases) -> a glimpse of one window, what the head sees.
        data: the canvases.
        run: how many steps, and which.
        kept: a file of safetensors: of both networks, once they are trained; read where it is there.
    """
    torch.manual_seed(run.seed)
    parts = nn.ModuleDict({"head": head, "teacher": foveate(SmallResNet())}).to(data.device)

    def loss_of(x: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        glimpse = widest(x)
        scores = head(glimpse).float()
        said = _surveyed(parts["teacher"], x, labels, scores.shape[-1], glimpse.layout.size, run.survey)
        return mixture_loss(scores, glimpse.layout, said)

    if kept.exists():
        parts.load_state_dict(load_file(kept, device=str(data.device)))
    else:
        take_steps("head", parts, loss_of, data, run, kept)
    head.eval()


def _surveyed(teacher: nn.Module, x: Tensor, labels: Tensor, cells: int, size: int, level: int) -> Tensor:
    """(B, cells, cells): the logarithm of how likely each place of the canvas says the label to be."""
    survey = _tiling(x.shape[-1], size, level, len(x))
    features = teacher.forward_features(Retina(size)(x, layout=survey))
    finer = max(1, features.shape[-1] * round(survey.num_windows**0.5) // cells)  # than the head's places
    maps = unfoveate(features, survey, cells * finer)
    # Of strided, padded convolutions a cell sees what lies half a cell up and left of it. A mean over a place's cells
    # and one more, down and right, says what is at the place, and not beside it.
    around = F.avg_pool2d(F.pad(maps, (0, 1, 0, 1), mode="replicate"), finer + 1, finer)
    said = teacher.head(around.movedim(1, -1)).float().log_softmax(-1)  # (B, cells, cells, classes)
    return said.gather(-1, labels.view(-1, 1, 1, 1).expand(*said.shape[:3], 1))[..., 0]


@lru_cache(maxsize=2)
def _tiling(canvas: int, size: int, level: int, batch: int) -> Layout:
    """The whole canvas at one level: the same for every step, so its tables are worked out once."""
    return Layout.stack([Layout.tiling(picture=(canvas, canvas), size=size, level=level)] * batch)
