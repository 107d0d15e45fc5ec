"""Norms: those over channels look at each cell by itself; those over space look at all windows of a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.blocks.kept_norm import batch_norm_kept
from foveal.convert.extent import beyond
from foveal.convert.pooling import fills, weights
from foveal.convert.precision import given_back, summed, without_autocast
from foveal.convert.window_maps import (
    Kind,
    Look,
    Refused,
    WindowMaps,
    bare,
    name_of,
    named,
    once_a_picture,
    parameters,
    plainly,
    rule,
    side_of,
    wrap,
)

_BATCH = "input running_mean running_var weight bias training momentum eps"


@rule(F.batch_norm, torch.batch_norm)
def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters(_BATCH, args, kwargs)
    x, training = given.pop("input"), given.get("training", False)
    if func is torch.batch_norm:
        given.pop("cudnn_enabled", None)
    if not x._kind.space:
        return once_a_picture(F.batch_norm, x, **given)
    if x._kind.space[0] != 2:
        raise Refused(f"{name_of(func)} of maps over the dimensions {x._kind.space}; expected (B, C, H, W)")
    if not training:
        return wrap(plainly(F.batch_norm, bare(x), **given), x._look, x._kind)
    if any(x._kind.rim):
        raise Refused(f"{name_of(func)} in training of maps that are padded")
    n = side_of(x)
    kept = kept_cells(x._look, x._kind, n, len(x))
    if kept is None:
        return wrap(plainly(F.batch_norm, bare(x), **given), x._look, x._kind)
    if x.ndim != 2 + len(x._kind.space):
        raise Refused(f"{name_of(func)} in training of maps with dimensions after those over space")
    del given["training"]
    result = batch_norm_kept(bare(x).reshape(*x.shape[:2], n, n), kept, **given)
    return wrap(result.reshape(x.shape), x._look, x._kind)


def kept_cells(look: Look, kind: Kind, n: int, rows: int) -> Tensor | None:
    """(rows, n, n) bool, which cells lie in a picture and in the dense map; None where all do."""
    layout, cut = look.layout, kind.cut

    def compute() -> Tensor | None:
        kept = layout.inside(n) & layout.valid[..., None, None]
        mask = beyond(look, cut, n)
        kept = kept if mask is None else kept & ~mask
        return None if not torch.compiler.is_compiling() and bool(kept.all()) else kept

    kept = layout.remembered(("kept", cut, n), compute)
    if kept is None:
        return None
    flat = kept.flatten(0, 1)
    return flat.repeat(rows // len(flat), 1, 1)


@rule(*named("layer_norm rms_norm", F, torch))
def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input normalized_shape", args, kwargs)
    x, shape = given["input"], given["normalized_shape"]
    if {0, *x._kind.space} & set(range(x.ndim - len(shape), x.ndim)):
        raise Refused(f"{name_of(func)} over windows or space")
    return wrap(plainly(func, *args, **kwargs), x._look, x._kind)


@rule(F.local_response_norm)
def _local_response_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if x._kind.space != (2, 3):
        raise Refused(f"{name_of(func)} of maps over the dimensions {x._kind.space}; expected (B, C, H, W)")
    return wrap(plainly(func, bare(x), *args[1:], **kwargs), x._look, x._kind)


@rule(F.normalize)
def _normalize(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input p dim eps out", args, kwargs)
    x, dim = given["input"], given.get("dim", 1)
    dims = {side % x.ndim for side in ([dim] if isinstance(dim, int) else dim)}
    if dims & {0, *x._kind.space}:
        raise Refused(f"{name_of(func)} over windows or space")
    return wrap(plainly(func, bare(x), *args[1:], **kwargs), x._look, x._kind)


@rule(F.group_norm, torch.group_norm)
def _group_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = parameters("input num_groups weight bias eps", args, kwargs)
    x = given["input"]
    rest = (given["num_groups"], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    if not x._kind.space:
        return once_a_picture(F.group_norm, x, *rest)
    if x._kind.space != (2, 3) or any(x._kind.rim):
        raise Refused(f"{name_of(func)} of maps that are padded, or not (B, C, H, W)")
    if fills(x._look.layout):
        return wrap(plainly(F.group_norm, bare(x), *rest), x._look, x._kind)
    return wrap(_over_windows(bare(x), x, *rest), x._look, x._kind)


@rule(F.instance_norm, torch.instance_norm)
def _instance_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input running_mean running_var weight bias use_input_stats momentum eps"
    given = parameters(names, args, kwargs)
    x = given["input"]
    if x._kind.space != (2, 3) or any(x._kind.rim) or not given.get("use_input_stats", True):
        raise Refused(f"{name_of(func)} of padded or pooled maps, or by running statistics")
    if given.get("running_mean") is not None:
        raise Refused(f"{name_of(func)} that keeps running statistics")
    if fills(x._look.layout):
        return wrap(plainly(func, bare(x), *args[1:], **kwargs), x._look, x._kind)
    rest = (x.shape[1], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    return wrap(_over_windows(bare(x), x, *rest), x._look, x._kind)


def _over_windows(
    maps: Tensor, x: WindowMaps, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Group norm (Wu and He 2018) by the moments of the whole picture: each cell weighs what it stands for."""
    full = summed(maps, name="a norm")
    share = weights(x).to(full.dtype)  # (B, K, n, n), adds up to 1
    batch, windows = share.shape[:2]
    parts = full.view(batch, windows, groups, maps.shape[1] // groups, *maps.shape[2:])
    channels = parts.shape[3]
    with without_autocast(full):
        mean = torch.einsum("bkgchw,bkhw->bg", parts, share) / channels
        apart = parts - mean[:, None, :, None, None, None]
        spread = torch.einsum("bkgchw,bkhw->bg", apart.square(), share) / channels
    result = (apart * (spread + eps).rsqrt()[:, None, :, None, None, None]).view(maps.shape)
    if weight is not None:
        result = result * weight[:, None, None]
    return (result if bias is None else result + bias[:, None, None]).to(given_back(maps))
