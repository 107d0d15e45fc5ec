"""The captioning objective: smoothed cross-entropy over texts that are run in buckets of like length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.models.encoder import repeat_rows
from foveal.models.multimodal import MultiModalTransformer


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
        self.register_load_state_dict_pre_hook(_name_tied_again)

    def forward(self, labels: Tensor, **looks: Any) -> dict[str, Tensor]:
        """The mean loss of every label that is not -100.

        Args:
            labels: (B * P * T, L) int64; see `MultiModalTransformer.forward`.
            looks: the encoder's inputs.
        """
        model, counted = self.model, labels != -100
        if not bool(counted.any()):
            raise ValueError(f"labels of shape {tuple(labels.shape)} are all -100; there is no text to learn")
        encoded = model.encoder(**looks)
        context = repeat_rows(encoded.last_hidden_state, len(labels), "texts")
        mask = repeat_rows(encoded.mask, len(labels), "texts")
        # Up to the last label of each text: one that is not counted may stand among those that are.
        lengths = (counted * torch.arange(1, labels.shape[1] + 1, device=labels.device)).amax(1)
        total = labels.new_zeros((), dtype=torch.float32)
        for rows in lengths.argsort().chunk(self.buckets):
            wanted = labels[rows, : int(lengths[rows].max())]
            hidden = model.decoder(
                model.shift_right(wanted), context[rows], context_mask=mask[rows], mask=None, cache=None
            )
            there = wanted != -100
            logits = model.head(hidden[there]).float()
            total = total + F.cross_entropy(logits, wanted[there], reduction="sum", label_smoothing=self.smoothing)
        return {"loss": total / counted.sum()}

    def train(self, mode: bool = True) -> Describing:
        """As ever, but a backbone that does not learn does not gather statistics either."""
        super().train(mode)
        backbone = self.model.encoder.backbone
        if not any(value.requires_grad for value in backbone.parameters()):
            backbone.eval()
        return self


def _keep_tied_once(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Drops later names of tied weights: a safetensors file holds each tensor once."""
    seen: set[int] = set()
    for name, value in list(state.items()):
        if value.data_ptr() in seen and value.numel():
            del state[name]
        seen.add(value.data_ptr())


def _name_tied_again(module: nn.Module, state: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    """Undoes `_keep_tied_once`, so that a checkpoint is read without names that it lacks."""
    names: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(prefix + name)
    for group in names.values():
        kept = next((state[name] for name in group if name in state), None)
        if kept is not None:
            state.update(dict.fromkeys(group, kept))
