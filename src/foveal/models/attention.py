"""Multi-head attention on `scaled_dot_product_attention`, with Transformers' caches, and the layers made of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, EncoderDecoderCache

from foveal.models.configuration import MultiModalTransformerConfig


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of queries to a context, which may be themselves.

    Args:
        dim: D.
        heads: must divide D.
        layer: number of the layer in its cache; None never caches.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, *, layer: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim}")
        self.heads, self.layer = heads, layer
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            x: queries.
            context: (B, M, D) keys and values; `x` itself by default.
            mask: (B, 1, N or 1, M) bool, False is not looked at.
            causal: every query looks at itself and what stands before it; not with `mask`.
            cache: an `EncoderDecoderCache` in the decoder: keys and values of a context that does not change are
                worked out once, those of the text are appended.
        """
        query = self._heads(self.query(x))
        if isinstance(cache, EncoderDecoderCache) and self.layer is not None:
            if context is None:
                text = cache.self_attention_cache
                past = int(text.get_seq_length(self.layer))
                written = past + x.shape[1]
                # Early releases of Transformers 5 must be told where a static cache is written.
                places = {"cache_position": torch.arange(past, written, device=x.device)}
                key, value = text.update(self._heads(self.key(x)), self._heads(self.value(x)), self.layer, places)
                # A static cache hands out all of its places, also those that no text has reached yet.
                key, value = key[:, :, :written], value[:, :, :written]
            elif cache.is_updated.get(self.layer):
                kept: Any = cache.cross_attention_cache.layers[self.layer]
                key, value = kept.keys, kept.values
            else:
                key, value = cache.cross_attention_cache.update(
                    self._heads(self.key(context)), self._heads(self.value(context)), self.layer
                )
                cache.is_updated[self.layer] = True
        else:
            source = x if context is None else context
            key, value = self._heads(self.key(source)), self._heads(self.value(source))
        if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad:
            # Training there: the fused kernel's backward pass is two to four times slower in bfloat16 than in float32.
            with torch.autocast("cpu", enabled=False):
                seen = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask, is_causal=causal)
        else:
            seen = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        return self.out(seen.to(query.dtype).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """A pre-norm layer: self-attention, cross-attention in the decoder, feed-forward."""

    def __init__(self, config: MultiModalTransformerConfig, layer: int, *, decoder: bool) -> None:
        super().__init__()
        dim, drop = config.dim, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        # Dropout only on what each part adds: elsewhere it costs a quarter of a training step on a CPU, since attention
        # then leaves its fused kernel.
        self.attend = Attention(dim, config.heads, layer=layer if decoder else None)
        if decoder:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross = Attention(dim, config.heads, layer=layer)
        self.feed = nn.Sequential(nn.Linear(dim, config.feedforward), nn.GELU(), nn.Linear(config.feedforward, dim))
        self.drop = nn.Dropout(drop)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
    ) -> Tensor:
        x = x + self.drop(self.attend(self.norm1(x), mask=mask, causal=causal, cache=cache))
        if context is not None:
            x = x + self.drop(self.cross(self.norm_cross(x), context, mask=context_mask, cache=cache))
        return x + self.drop(self.feed(self.norm2(x)))
