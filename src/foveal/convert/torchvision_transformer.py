"""torchvision's vision transformers on glimpses."""

from __future__ import annotations

import sys
from typing import Any, Literal

from torch import Tensor, nn

from foveal.convert.transformer import (
    Tokens,
    attention_mask,
    placed_at,
    refuse_parts_of_patches,
    select_tokens,
    with_prefix,
)
from foveal.layout import Layout


def is_torchvision_transformer(model: nn.Module) -> bool:
    """Whether this is torchvision's transformer."""
    torchvision_vit = sys.modules.get("torchvision.models.vision_transformer")
    return torchvision_vit is not None and isinstance(model, torchvision_vit.VisionTransformer)


def torchvision_features(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """What torchvision's `VisionTransformer` does up to its encoder's end, on windows (B * K, 3, S, S)."""
    refuse_parts_of_patches(net.patch_size, layout)
    maps = net.conv_proj(pixels)
    n, grid = maps.shape[-1], net.image_size // net.patch_size
    table = net.encoder.pos_embedding[0, 1:].unflatten(0, (grid, grid))
    values = placed_at(maps.flatten(2).transpose(1, 2), table, layout, n, net.patch_size)
    own = net.class_token + net.encoder.pos_embedding[:, :1]
    tokens = with_prefix(select_tokens(values, layout, pool), own)
    values = net.encoder.dropout(tokens.values)
    hidden = None if tokens.mask is None else attention_mask(tokens, 1)[:, 0, 0] < 0  # type: ignore[index]
    for block in net.encoder.layers:
        if hidden is None:
            values = block(values)
            continue
        inner = block.ln_1(values)
        inner, _ = block.self_attention(inner, inner, inner, need_weights=False, key_padding_mask=hidden)
        values = values + block.dropout(inner)
        values = values + block.mlp(block.ln_2(values))
    return Tokens(net.encoder.ln(values), tokens.mask, tokens.weight)


def torchvision_head(net: Any, tokens: Tokens) -> Tensor:
    """What torchvision's `VisionTransformer` does with its class token."""
    return net.heads(tokens.values[:, 0])
