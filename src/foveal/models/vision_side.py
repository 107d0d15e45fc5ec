"""What a captioning model sees with, as a network of its own: pictures or glimpses in, tokens out."""

from __future__ import annotations

import copy
import functools

from torch import Tensor, nn

from foveal.layout import Layout
from foveal.models.encoder import Encoder
from foveal.retina import Glimpse


class VisionSide(nn.Module):
    """The backbone and the tokenizer of a model, its weights shared.

    Args:
        encoder: of the model.

    Example:
        >>> VisionSide(load_describer().model.encoder)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 16, 256])
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone, self.tokenizer = encoder.backbone, encoder.tokenizer

    def forward(self, x: Tensor | Glimpse) -> Tensor:
        """The tokens (B, N, D), those that only fill the batch included.

        Args:
            x: a glimpse, or square pictures (B, 3, S, S), normalised, each one window: the dense network.
        """
        if isinstance(x, Tensor):
            x = Glimpse(x[:, None], _one_window(len(x), int(x.shape[-2]), int(x.shape[-1])))
        tokens: Tensor = self.tokenizer(self.backbone(x), x.layout)[0]
        return tokens

    def without_halo(self) -> VisionSide:
        """The same weights on windows padded with zeros."""
        made = copy.copy(self)
        made._modules = dict(self._modules)
        made.backbone = copy.copy(self.backbone)
        made.backbone.halo = False
        return made


@functools.lru_cache(maxsize=8)
def _one_window(pictures: int, height: int, width: int) -> Layout:
    """Worked out once: an exported graph holds it, and need not decide by its numbers."""
    return Layout.foveal(picture=[(height, width)] * pictures, size=width, levels=1).fixed()
