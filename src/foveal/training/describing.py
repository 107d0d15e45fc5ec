"""The captioning objective: smoothed cross-entropy over texts that are run in buckets of like length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.models.encoder import EncoderOutput, repeat_rows
from foveal.models.multimodal import MultiModalTransformer
from foveal.training.task import Task


class Describing(Task):
    """A `MultiModalTransformer` with its training loss: pictures are looked at once, texts decoded in buckets.

    Captions are of unlike length, and a batch as long as its longest is mostly padding; a few buckets, each as long as
    its own longest, and logits only where there is a label leave little of it. The loss is the same.

    Args:
        model: to be trained.
        smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        buckets: how many.

    Example:
        >>> Describing(model, smoothing=0.1)(labels, **processor(pictures, "lang=en"))["loss"].backward()
    """

    def __init__(self, model: MultiModalTransformer, *, smoothing: float = 0.0, buckets: int = 4) -> None:
        super().__init__()
        self.model, self.smoothing, self.buckets = model, smoothing, buckets

    def forward(self, labels: Tensor, **looks: Any) -> dict[str, Tensor]:
        """The mean loss of every label that is not -100.

        Args:
            labels: (B * P * T, L) int64; see `MultiModalTransformer.forward`.
            looks: the encoder's inputs.

        Raises:
            ValueError: if no label counts.
        """
        counted = labels != -100
        if not bool(counted.any()):
            raise ValueError(f"labels of shape {tuple(labels.shape)} are all -100; there is no text to learn")
        encoded = self.model.encoder(**looks)
        losses = text_losses(self.model, encoded, labels, smoothing=self.smoothing, buckets=self.buckets)
        return {"loss": losses.sum() / counted.sum()}

    def train(self, mode: bool = True) -> Describing:
        """As ever, but a backbone that does not learn does not gather statistics either."""
        super().train(mode)
        backbone = self.model.encoder.backbone
        if not any(value.requires_grad for value in backbone.parameters()):
            backbone.eval()
        return self


def text_losses(
    model: MultiModalTransformer, encoded: EncoderOutput, labels: Tensor, *, smoothing: float = 0.0, buckets: int = 4
) -> Tensor:
    """(N,) float32: the cross-entropy of each text, summed over its labels that are not -100.

    Args:
        model: whose decoder writes.
        encoded: what its encoder gave, for N prompts or a divisor of it.
        labels: (N, L) int64.
        smoothing: see `Describing`.
        buckets: see `Describing`.
    """
    assert encoded.last_hidden_state is not None
    assert encoded.mask is not None
    context = repeat_rows(encoded.last_hidden_state, len(labels), "texts")
    mask = repeat_rows(encoded.mask, len(labels), "texts")
    # Up to the last label of each text: one that is not counted may stand among those that are.
    lengths = ((labels != -100) * torch.arange(1, labels.shape[1] + 1, device=labels.device)).amax(1)
    total = torch.zeros(len(labels), device=labels.device)
    for rows in lengths.argsort().chunk(buckets):
        wanted = labels[rows, : int(lengths[rows].max())]
        hidden = model.decoder(model.shift_right(wanted), context[rows], context_mask=mask[rows], mask=None, cache=None)
        there = wanted != -100
        logits = model.head(hidden[there]).float()
        losses = F.cross_entropy(logits, wanted[there], reduction="none", label_smoothing=smoothing)
        total = total.index_add(0, rows[there.nonzero()[:, 0]], losses)
    return total
