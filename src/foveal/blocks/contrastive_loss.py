"""The loss that brings pictures and their texts together, and all others apart.

After CLIP (Radford et al. 2021).
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.registry import Block


class ContrastiveLoss(nn.Module):
    """`(CE(s * P T^t, i) + CE(s * T P^t, i)) / 2`, P and T of unit length, i each row's own number.

    Every picture has to find its text among those of the batch, and every text its picture. The sharpness `s` is the
    inverse of a temperature, learned as its logarithm and at most 100: Radford et al. (2021).

    Shapes: `(B, D)` and `(B, D) -> ()`.

    Parameters: 1, the logarithm of s; 0 with `learnable=False`.

    Use it to train embeddings for retrieval, with batches as large as memory allows: the others of a batch are all
    that a pair is told from.

    Not with batches of a few pairs, nor where a batch holds a picture or a sentence twice: those are pushed apart too.

    Args:
        temperature: at the start, above 0.
        learnable: whether it is learned.

    Raises:
        ValueError: for a temperature not in [0.01, inf); for embeddings of unlike shapes.

    Example:
        >>> loss = create_block("contrastive_loss")
        >>> round(loss(torch.eye(4), torch.eye(4)).item(), 6)  # all are found
        2e-06
    """

    most = math.log(100.0)

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True) -> None:
        super().__init__()
        if not 0.01 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature!r}; expected 0.01 (a sharpness of 100) or more")
        self.log_sharpness = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learnable)

    @property
    def temperature(self) -> Tensor:
        """As it is now, a scalar."""
        return 1 / self._sharpness()

    def _sharpness(self) -> Tensor:
        # Straight through: with the gradient of a clamp one that has passed the most would never come back.
        known = self.log_sharpness
        return torch.exp(known + (known.clamp(max=self.most) - known).detach())

    def forward(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """The loss of a batch of pairs, row by row; the embeddings need not have unit length."""
        if pictures.ndim != 2 or pictures.shape != texts.shape or not len(pictures):
            raise ValueError(
                f"embeddings have the shapes {tuple(pictures.shape)} and {tuple(texts.shape)}; expected (B, D) twice"
            )
        if pictures.dtype in (torch.float16, torch.bfloat16):  # whose sharpened products would be all alike
            pictures, texts = pictures.float(), texts.float()
        kind = pictures.device.type
        known = torch.amp.is_autocast_available(kind)
        with torch.autocast(kind, enabled=False) if known else nullcontext():
            products = F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).to(pictures.dtype).T
            logits = products * self._sharpness()
            own = torch.arange(len(logits), device=logits.device)
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"temperature={self.temperature.item():.4f}, learnable={self.log_sharpness.requires_grad}"


BLOCKS = (Block("contrastive_loss", ContrastiveLoss),)
