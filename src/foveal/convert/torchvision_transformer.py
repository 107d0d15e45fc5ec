"""torchvision's vision transformers on glimpses."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Literal

from torch import Tensor, nn

from foveal.convert.transformer import (
    Tokens,
    attention_mask,
    placed_at,
    refuse_other_patches,
    refuse_overridden,
    refuse_parts_of_patches,
    refuse_skipped_hooks,
    select_tokens,
    with_prefix,
)
from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout


def is_torchvision_transformer(model: nn.Module) -> bool:
    """Whether this is torchvision's transformer."""
    torchvision_vit = sys.modules.get("torchvision.models.vision_transformer")
    return torchvision_vit is not None and isinstance(model, torchvision_vit.VisionTransformer)


def refuse_unknown_torchvision_parts(model: Any) -> None:
    """Raises UnsupportedModule where torchvision's transformer has a part that is not known here."""
    from torchvision.models import vision_transformer as stock

    refuse_overridden("the network itself", model, "forward _process_input", stock.VisionTransformer)
    refuse_overridden("encoder", model.encoder, "forward", stock.Encoder)
    refuse_other_patches("conv_proj", model.conv_proj, (model.patch_size, model.patch_size))


def torchvision_features(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """What torchvision's `VisionTransformer` does up to its encoder's end, on windows (B * K, 3, S, S)."""
    refuse_parts_of_patches(net.patch_size, layout)
    maps = net.conv_proj(pixels)
    n, grid = maps.shape[-1], net.image_size // net.patch_size
    table = net.encoder.pos_embedding[0, 1:].unflatten(0, (grid, grid))
    values = placed_at(maps.flatten(2).transpose(1, 2), table, layout, n, net.patch_size)
    own = net.class_token + net.encoder.pos_embedding[:, :1]
    tokens = with_prefix(select_tokens(values, layout, pool), own)
    refuse_skipped_hooks("encoder", net.encoder)
    values, added = net.encoder.dropout(tokens.values), attention_mask(tokens, 1)
    if added is None:
        values = net.encoder.layers(values)
    else:
        refuse_skipped_hooks("encoder.layers", net.encoder.layers)
        for path, block in net.encoder.layers.named_children():
            if "key_padding_mask" not in inspect.signature(block.forward).parameters:
                raise UnsupportedModule(
                    f"encoder.layers.{path} ({type(block).__name__}): takes no key_padding_mask, which pictures with "
                    f"unlike numbers of tokens need; give layouts of as many tokens each"
                )
            values = block(values, key_padding_mask=added[:, 0, 0] < 0)
    return Tokens(net.encoder.ln(values), tokens.mask, tokens.weight)


def torchvision_head(net: Any, tokens: Tokens) -> Tensor:
    """What torchvision's `VisionTransformer` does with its class token."""
    return net.heads(tokens.values[:, 0])
