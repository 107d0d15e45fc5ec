"""timm's vision transformers on glimpses: ViT and DeiT, with class, distillation and register tokens."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.convert.pooling import fills
from foveal.convert.transformer import (
    Tokens,
    attention_mask,
    largest_tokens,
    maps_of_tokens,
    mean_tokens,
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


def is_timm_transformer(model: nn.Module) -> bool:
    """Whether this is one of timm's transformers that are known here."""
    timm_vit = sys.modules.get("timm.models.vision_transformer")
    if timm_vit is None or not isinstance(model, timm_vit.VisionTransformer):
        return False
    deit = sys.modules.get("timm.models.deit")
    known = [timm_vit.VisionTransformer._pos_embed]
    known += [deit.VisionTransformerDistilled._pos_embed] if deit is not None else []
    return type(model)._pos_embed in known


def is_timm_features(model: nn.Module) -> bool:
    """Whether this is what timm's `features_only=True` makes of such a transformer."""
    features = sys.modules.get("timm.models._features")
    return features is not None and isinstance(model, features.FeatureGetterNet) and is_timm_transformer(model.model)


def timm_features(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """What timm's `VisionTransformer.forward_features` does, on windows (B * K, 3, S, S)."""
    if net.dynamic_img_size and fills(layout):
        refuse_parts_of_patches(net.patch_embed.patch_size[0], layout)
        return Tokens(net.forward_features(pixels), None, None)  # timm resizes its table by a kernel of its own
    tokens = _embedded(net, pixels, layout, pool)
    if tokens.mask is None:
        values = net.blocks(tokens.values)
    else:
        refuse_skipped_hooks("blocks", net.blocks)
        *_, values = _blocks(net, tokens)
    return Tokens(net.norm(values), tokens.mask, tokens.weight)


def timm_intermediates(
    net: Any, pixels: Tensor, layout: Layout, indices: Any, *, norm: bool, stop_early: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """What timm's `VisionTransformer.forward_intermediates` does: the last block's tokens, and maps out of several.

    Returns:
        (B, P + N, D), and a list of (B, K, D, n, n), 0 where a cell gave no token.
    """
    from timm.models._features import feature_take_indices

    taken, last = feature_take_indices(len(net.blocks), indices)
    tokens = _embedded(net, pixels, layout, "area")
    maps = []
    for number, values in enumerate(_blocks(net, tokens)):
        if number in taken:
            cells = (net.norm(values) if norm else values)[:, net.num_prefix_tokens :]
            maps.append(maps_of_tokens(cells, layout, layout.size // net.patch_embed.patch_size[0]))
        if stop_early and number == last:
            break
    return net.norm(values), maps


def _embedded(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """The tokens as the first block takes them."""
    refuse_skipped_hooks("patch_embed", net.patch_embed)
    patch = net.patch_embed.patch_size[0]
    refuse_parts_of_patches(patch, layout)
    maps = net.patch_embed.proj(pixels)
    n = maps.shape[-1]
    values = net.patch_embed.norm(maps.flatten(2).transpose(1, 2))
    held_back: list[Tensor | None] = [getattr(net, name, None) for name in ("cls_token", "reg_token", "dist_token")]
    prefix = [token for token in held_back if token is not None]
    own = torch.cat(prefix, 1) if prefix else None
    if net.pos_embed is not None:
        held = 0 if net.no_embed_class else net.num_prefix_tokens
        table = net.pos_embed[0, held:].unflatten(0, tuple(net.patch_embed.grid_size))
        values = placed_at(values, table, layout, n, patch)
        own = own + net.pos_embed[:, :held] if held and own is not None else own
    tokens = with_prefix(select_tokens(values, layout, pool), own)
    return Tokens(net.norm_pre(net.patch_drop(net.pos_drop(tokens.values))), tokens.mask, tokens.weight)


def _blocks(net: Any, tokens: Tokens) -> Iterator[Tensor]:
    """The tokens after each block."""
    values, mask = tokens.values, attention_mask(tokens, net.num_prefix_tokens)
    for path, block in net.blocks.named_children():
        if mask is None:
            values = block(values)
        elif "attn_mask" in inspect.signature(block.forward).parameters:
            values = block(values, attn_mask=mask)
        else:
            raise UnsupportedModule(
                f"blocks.{path} ({type(block).__name__}): takes no attn_mask, which pictures with unlike numbers "
                f"of tokens need; give layouts of as many tokens each, or a newer timm"
            )
        yield values


def timm_head(net: Any, tokens: Tokens) -> Tensor:
    """What timm's `VisionTransformer.forward_head` does."""
    kind = net.global_pool
    if net.attn_pool is None and kind in ("avg", "max", "avgmax") and tokens.weight is not None:
        prefix = net.num_prefix_tokens
        average = mean_tokens(tokens, prefix, count_prefix=net.pool_include_prefix)
        largest = average if kind == "avg" else largest_tokens(tokens, prefix)
        pooled = average if kind == "avg" else largest if kind == "max" else (average + largest) / 2
        return net.head(net.head_drop(net.fc_norm(pooled)))
    return net.forward_head(tokens.values)


def refuse_unknown_parts(model: Any) -> None:
    """Raises UnsupportedModule where one of timm's transformers has a part that is not known here."""
    from timm.layers import PatchEmbed
    from timm.models._features import FeatureGetterNet
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    inside, net = ("model.", model.model) if is_timm_features(model) else ("", model)
    if inside:
        refuse_overridden("the network itself", model, "forward", FeatureGetterNet)
    replaced = "forward forward_features forward_intermediates forward_head pool _pos_embed"
    refuse_overridden(inside[:-1] or "the network itself", net, replaced, VisionTransformer, VisionTransformerDistilled)
    refuse_overridden(f"{inside}patch_embed", net.patch_embed, "forward", PatchEmbed)
    refuse_other_patches(f"{inside}patch_embed.proj", net.patch_embed.proj, tuple(net.patch_embed.patch_size))
    if not isinstance(net.patch_drop, nn.Identity):
        at, reason = "patch_drop", "tokens dropped at random are not followed; set patch_drop_rate=0"
    elif net.global_pool not in ("", "token", "avg", "max", "avgmax"):
        at, reason = "", f"global_pool={net.global_pool!r} does not know of tokens that only fill a batch"
    elif net.pool_include_prefix and net.global_pool != "avg":
        at, reason = "", f"global_pool={net.global_pool!r} with pool_include_prefix=True is not known across windows"
    elif inside and str(model.output_fmt).rpartition(".")[2] != "NCHW":
        at, reason = "", "features come as maps (NCHW); another output_fmt is not known across windows"
    else:
        return
    path, module = f"{inside}{at}".rstrip("."), net.get_submodule(at)
    raise UnsupportedModule(f"{path or 'the network itself'} ({type(module).__name__}): {reason}")


def timm_maps(net: Any, pixels: Tensor, layout: Layout) -> list[Tensor]:
    """What timm's `FeatureGetterNet` does around a transformer."""
    return timm_intermediates(net.model, pixels, layout, net.out_indices, norm=net.norm)[1]
