"""Vision transformers on glimpses: one patch embedding for all windows, tokens only where a cell alone stands for some
of the picture, positions where the tokens truly lie.

Attention needs no windows: it takes tokens from anywhere. So only what stands before and after the blocks is ours;
after Dosovitskiy et al. (2021), with the class, distillation and register tokens of the variants.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.convert.pooling import fills
from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout

_SNAP = 1e-6


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of pictures.

    Args:
        values: (B, P + N, D), prefix tokens first, then those of the cells, the finest window's first.
        mask: (B, N) bool, False where a token only fills the batch; None where none does.
        weight: (B, N), the share of its picture that each token stands for; None where all are equal.
    """

    values: Tensor
    mask: Tensor | None
    weight: Tensor | None


def transformer_kind(model: nn.Module) -> str | None:
    """Gives "timm" or "torchvision" for a vision transformer of theirs that is known here, else None."""
    timm_vit = sys.modules.get("timm.models.vision_transformer")
    if timm_vit is not None and isinstance(model, timm_vit.VisionTransformer):
        deit = sys.modules.get("timm.models.deit")
        known = [timm_vit.VisionTransformer._pos_embed]
        known += [deit.VisionTransformerDistilled._pos_embed] if deit is not None else []
        return "timm" if type(model)._pos_embed in known else None
    torchvision_vit = sys.modules.get("torchvision.models.vision_transformer")
    if torchvision_vit is not None and isinstance(model, torchvision_vit.VisionTransformer):
        return "torchvision"
    return None


def select_tokens(maps: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """The cells that become tokens, out of all windows' maps.

    Args:
        maps: (B * K, n * n, D).
        layout: of the windows.
        pool: what a token weighs in a mean.
    """
    windows = layout.num_windows
    batch, n = len(maps) // windows, round(maps.shape[1] ** 0.5)
    values = maps.reshape(batch, windows * n * n, -1)

    def compute() -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        index, mask = layout.tokens(n)
        area = layout.areas(n).double().flatten(1).gather(1, index) * mask
        weight = area if pool == "area" else mask.double()
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
        if torch.compiler.is_compiling():
            return index, mask, weight
        full = bool(mask.all())
        whole = full and index.shape[1] == windows * n * n and bool((index.diff(dim=1) == 1).all())
        equal = full and bool((weight == weight[:, :1]).all())
        return None if whole else index, None if full else mask, None if equal else weight

    index, mask, weight = (
        None if rows is None else rows.to(maps.device).expand(batch, -1)
        for rows in layout.remembered(("token set", n, pool), compute)
    )
    if index is not None:
        values = values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
    return Tokens(values, mask, weight)


def place_embedding(table: Tensor, layout: Layout, n: int, patch: float) -> Tensor:
    """Position embeddings at the true places of all cells.

    Bicubic with the kernel and the antialiasing of `torch.nn.functional.interpolate`, which is how timm resizes them;
    where the places are those of the table, exactly its values.

    Args:
        table: (rows, columns, D), one embedding for each place of a grid laid over the whole picture.
        layout: of the windows.
        n: cells along a window's side.
        patch: pixels of a cell of the dense network.

    Returns:
        (B, K, n, n, D); B may be 1 for a layout that serves all pictures.
    """
    grid = (table.shape[0], table.shape[1])

    def compute() -> tuple[Tensor, Tensor]:
        places = layout.cell_places(n)
        return tuple(  # type: ignore[return-value]
            _taps(along, layout.pictures[:, axis], grid[axis], patch)
            for axis, along in enumerate((places[:, :, :, 0, 0], places[:, :, 0, :, 1]))
        )

    rows, columns = (
        taps.to(table.device, table.dtype) for taps in layout.remembered(("places", n, grid, patch), compute)
    )
    return torch.einsum("bkjh,bkihd->bkijd", columns, torch.einsum("bkig,ghd->bkihd", rows, table))


def _taps(along: Tensor, sides: Tensor, grid: int, patch: float) -> Tensor:
    """(B, K, n) pixels -> (B, K, n, grid) float64: how much of each of the table's places; they add up to 1."""
    cells = torch.ceil(sides / patch)  # of the dense network's own grid
    centre = along * (grid / sides[:, None, None])
    nearest = torch.round(centre - 0.5) + 0.5
    centre = torch.where((centre - nearest).abs() < _SNAP, nearest, centre)
    spread = (grid / cells).clamp(min=1)[:, None, None, None]
    centre = centre.clamp(0, grid)[..., None]  # of a cell that straddles the picture's edge it may lie beside
    apart = ((torch.arange(grid, dtype=torch.float64, device=along.device) + 0.5 - centre) / spread).abs()
    near = (1.5 * apart - 2.5) * apart.square() + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    taps = torch.where(apart < 1, near, torch.where(apart < 2, far, torch.zeros_like(apart)))
    return taps / taps.sum(-1, keepdim=True)


def mean_tokens(tokens: Tokens, prefix: int, *, count_prefix: bool) -> Tensor:
    """(B, D): the mean over a picture's tokens, each by what it stands for; the prefix counts as ordinary tokens."""
    values = tokens.values[:, prefix:]
    if tokens.weight is None:
        return (tokens.values if count_prefix else values).mean(1)
    mean = torch.einsum("bnd,bn->bd", values, tokens.weight.to(values.dtype))
    if not count_prefix or not prefix:
        return mean
    held = torch.full_like(mean[:, :1], values.shape[1]) if tokens.mask is None else tokens.mask.sum(1, keepdim=True)
    return (mean * held + tokens.values[:, :prefix].sum(1)) / (held + prefix)


def largest_tokens(tokens: Tokens, prefix: int) -> Tensor:
    """(B, D): the largest value over a picture's tokens."""
    values = tokens.values[:, prefix:]
    if tokens.mask is not None:
        values = values.masked_fill(~tokens.mask[..., None], torch.finfo(values.dtype).min)
    return values.amax(1)


def attention_mask(tokens: Tokens, prefix: int) -> Tensor | None:
    """(B, 1, 1, P + N), to be added to attention: -inf at tokens that only fill the batch; None where none does."""
    if tokens.mask is None:
        return None
    seen = torch.cat([tokens.mask.new_ones(len(tokens.mask), prefix), tokens.mask], 1)
    added = torch.zeros(seen.shape, dtype=tokens.values.dtype, device=seen.device)
    return added.masked_fill(~seen, float("-inf"))[:, None, None]


# ---- timm ------------------------------------------------------------------------------------------------------------


def timm_features(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """What timm's `VisionTransformer.forward_features` does, on windows (B * K, 3, S, S)."""
    _refuse_parts_of_patches(net.patch_embed.patch_size[0], layout)
    if net.dynamic_img_size and fills(layout):
        return Tokens(net.forward_features(pixels), None, None)  # timm resizes its table by a kernel of its own
    patch = net.patch_embed.patch_size[0]
    maps = net.patch_embed.proj(pixels)
    n = maps.shape[-1]
    values = net.patch_embed.norm(maps.flatten(2).transpose(1, 2))
    held_back: list[Tensor | None] = [getattr(net, name, None) for name in ("cls_token", "reg_token", "dist_token")]
    prefix = [token for token in held_back if token is not None]
    own = torch.cat(prefix, 1) if prefix else None
    if net.pos_embed is not None:
        held = 0 if net.no_embed_class else net.num_prefix_tokens
        table = net.pos_embed[0, held:].unflatten(0, tuple(net.patch_embed.grid_size))
        values = _placed(values, table, layout, n, patch)
        own = own + net.pos_embed[:, :held] if held and own is not None else own
    tokens = _with_prefix(select_tokens(values, layout, pool), own)
    values = net.norm_pre(net.pos_drop(tokens.values))
    mask = attention_mask(tokens, net.num_prefix_tokens)
    if mask is None:
        values = net.blocks(values)
    else:
        for path, block in net.blocks.named_children():
            if "attn_mask" not in inspect.signature(block.forward).parameters:
                raise UnsupportedModule(
                    f"blocks.{path} ({type(block).__name__}): takes no attn_mask, which pictures with unlike numbers "
                    f"of tokens need; give layouts of as many tokens each, or a newer timm"
                )
            values = block(values, attn_mask=mask)
    return Tokens(net.norm(values), tokens.mask, tokens.weight)


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


def timm_refusal(net: Any) -> tuple[str, nn.Module, str] | None:
    """The path, the module and the reason, where one of timm's transformers has a part that is not known here."""
    embed = net.patch_embed
    if type(embed).__name__ != "PatchEmbed" or embed.patch_size[0] != embed.patch_size[1]:
        return "patch_embed", embed, "only timm's PatchEmbed with square patches is known across windows"
    if not isinstance(net.patch_drop, nn.Identity):
        return "patch_drop", net.patch_drop, "tokens dropped at random are not followed; set patch_drop_rate=0"
    if net.global_pool not in ("", "token", "avg", "max", "avgmax"):
        return "", net, f"global_pool={net.global_pool!r} does not know of tokens that only fill a batch"
    if net.pool_include_prefix and net.global_pool != "avg":
        return "", net, f"global_pool={net.global_pool!r} with pool_include_prefix=True is not known across windows"
    return None


# ---- torchvision -----------------------------------------------------------------------------------------------------


def torchvision_features(net: Any, pixels: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """What torchvision's `VisionTransformer` does up to its encoder's end, on windows (B * K, 3, S, S)."""
    _refuse_parts_of_patches(net.patch_size, layout)
    maps = net.conv_proj(pixels)
    n, grid = maps.shape[-1], net.image_size // net.patch_size
    table = net.encoder.pos_embedding[0, 1:].unflatten(0, (grid, grid))
    values = _placed(maps.flatten(2).transpose(1, 2), table, layout, n, net.patch_size)
    own = net.class_token + net.encoder.pos_embedding[:, :1]
    tokens = _with_prefix(select_tokens(values, layout, pool), own)
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


STEPS: dict[str, tuple[Callable[..., Tokens], Callable[..., Tensor]]] = {
    "timm": (timm_features, timm_head),
    "torchvision": (torchvision_features, torchvision_head),
}


def _refuse_parts_of_patches(patch: int, layout: Layout) -> None:
    if layout.size % patch:
        raise ValueError(
            f"windows of {layout.size} cells are not a multiple of the network's patches of {patch}; choose a window "
            f"size that is"
        )


def _placed(values: Tensor, table: Tensor, layout: Layout, n: int, patch: float) -> Tensor:
    """(B * K, n * n, D) with the position embeddings added."""
    placed = place_embedding(table, layout, n, patch).flatten(2, 3).flatten(0, 1)  # (K or B * K, n * n, D)
    shape = values.shape
    return (values.view(-1, len(placed), *shape[1:]) + placed).view(shape)


def _with_prefix(tokens: Tokens, own: Tensor | None) -> Tokens:
    if own is None:
        return tokens
    values = torch.cat([own.expand(len(tokens.values), -1, -1), tokens.values], 1)
    return Tokens(values, tokens.mask, tokens.weight)
