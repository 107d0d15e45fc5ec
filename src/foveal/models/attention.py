"""Multi-head attention on `scaled_dot_product_attention`, with Transformers' caches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, EncoderDecoderCache


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of queries to a context, which may be themselves.

    Args:
        dim: D.
        heads: must divide D.
        dropout: on the attention weights, in training.
        layer: number of the layer in its cache; None never caches.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0, layer: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim}")
        self.heads, self.dropout, self.layer = heads, dropout, layer
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
                key, value = cache.self_attention_cache.update(
                    self._heads(self.key(x)), self._heads(self.value(x)), self.layer
                )
            elif cache.is_updated.get(self.layer):
                kept = cache.cross_attention_cache.layers[self.layer]
                key, value = kept.keys, kept.values
            else:
                key, value = cache.cross_attention_cache.update(
                    self._heads(self.key(context)), self._heads(self.value(context)), self.layer
                )
                cache.is_updated[self.layer] = True
        else:
            source = x if context is None else context
            key, value = self._heads(self.key(source)), self._heads(self.value(source))
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=causal)
        return self.out(seen.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
