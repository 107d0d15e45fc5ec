"""The captioning objective: smoothed cross-entropy over texts that are run in buckets of like length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.models.multimodal import MultiModalTransformer, repeat_rows


class Describing(nn.Module):
    """A `MultiModalTransformer` with its training loss: pictures are looked at once, texts decoded in buckets.

    Captions are of unlike length, and a batch as long as its longest is mostly padding; a few buckets, each as long as
    its own longest, and logits only where there is a label leave little of it. The loss is the same.

    Args:
        model: to be trained.
        smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        buckets: how many.
    """

    def __init__(self, model: MultiModalTransformer, *, smoothing: float = 0.0, buckets: int = 4) -> None:
        super().__init__()
        self.model, self.smoothing, self.buckets = model, smoothing, buckets
        self.register_state_dict_post_hook(_keep_tied_once)

    def forward(self, labels: Tensor, **looks: Any) -> dict[str, Tensor]:
        """The mean loss of every label that is not -100.

        Args:
            labels: (B * P * T, L) int64; see `MultiModalTransformer.forward`.
            looks: the encoder's inputs.
        """
        model = self.model
        encoded = model.encoder(**looks)
        context = repeat_rows(encoded.last_hidden_state, len(labels), "texts")
        mask = repeat_rows(encoded.mask, len(labels), "texts")
        lengths = (labels != -100).sum(1)
        total = labels.new_zeros((), dtype=torch.float32)
        for rows in lengths.argsort().chunk(self.buckets):
            wanted = labels[rows, : int(lengths[rows].max())]
            hidden = model.decoder(
                model.shift_right(wanted), context[rows], context_mask=mask[rows], mask=None, cache=None
            )
            counted = wanted != -100
            logits = model.head(hidden[counted]).float()
            total = total + F.cross_entropy(
                logits, wanted[counted], reduction="sum", label_smoothing=self.smoothing
            )
        return {"loss": total / lengths.sum()}


def _keep_tied_once(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Drops later names of tied weights: a safetensors file holds each tensor once."""
    seen: set[int] = set()
    for name, value in list(state.items()):
        if value.data_ptr() in seen and value.numel():
            del state[name]
        seen.add(value.data_ptr())
