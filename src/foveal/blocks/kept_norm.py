"""Batch norm in training whose statistics leave out what is no part of a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def norm_kept(norm: nn.BatchNorm2d, x: Tensor, kept: Tensor) -> Tensor:
    """A training pass of batch norm (Ioffe and Szegedy 2015) with the statistics of the kept cells.

    All cells are normalised by them, the others too; running statistics move as in `torch.nn.BatchNorm2d`.

    Args:
        norm: with affine terms and running statistics.
        x: (N, C, n, m) float of any precision; channels-last memory is fastest.
        kept: (N, n, m) bool, the cells that count.

    Returns:
        (N, C, n, m), in the dtype of `x`.

    Raises:
        ValueError: if fewer than two cells are kept (not told while a graph is traced).

    Example:
        >>> norm_kept(nn.BatchNorm2d(8), torch.rand(3, 8, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool)).shape
        torch.Size([3, 8, 4, 4])
    """
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018
    assert norm.num_batches_tracked is not None
    if torch.compiler.is_compiling():
        result, mean, var, count = _traced(norm, x, kept.to(x.device))
    else:
        index = kept.flatten().nonzero()[:, 0].to(x.device)
        if len(index) < 2:
            raise ValueError(
                f"batch norm in training needs at least 2 cells inside a picture, here are {len(index)} of "
                f"{kept.numel()}; use larger batches or windows that hold more of the picture"
            )
        result, mean, var = _KeptNorm.apply(x, norm.weight, norm.bias, index, norm.eps)
        count = torch.tensor(len(index), device=x.device)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked if norm.momentum is None else torch.tensor(norm.momentum)
        share = share.to(norm.running_mean)
        norm.running_mean.lerp_(mean.to(norm.running_mean), share)
        norm.running_var.lerp_((var * count / (count - 1)).to(norm.running_var), share)
    return result


def _traced(norm: nn.BatchNorm2d, x: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
    """The same in single operations of fixed shape, which a compiler fuses."""
    weight, maps = kept[:, None].to(torch.float32), x.float()
    count = weight.sum()
    mean = (maps * weight).sum((0, 2, 3)) / count
    var = ((maps - mean[:, None, None]).square() * weight).sum((0, 2, 3)) / count
    gain = norm.weight * (var + norm.eps).rsqrt()
    result = maps * gain[:, None, None] + (norm.bias - mean * gain)[:, None, None]
    return result.to(x.dtype), mean.detach(), var.detach(), count


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class _KeptNorm(torch.autograd.Function):
    """Out of PyTorch's own kernels: written in single operations, autograd made a training step twice as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, index: Tensor, eps: float) -> tuple[Tensor, ...]:
        rows = _rows(x).index_select(0, index)
        like_maps = rows.T[None, :, :, None]  # (1, C, kept, 1), which lies in memory as channels-last maps do
        _, mean, spread = torch.native_batch_norm(like_maps, weight, bias, None, None, True, 0.0, eps)
        var = spread.pow(-2) - eps
        ctx.save_for_backward(x, weight, index, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, index, mean, var = ctx.saved_tensors
        wanted = [True, True, True]
        # As if the statistics were constants ...
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, var, None, None, False, ctx.eps, wanted
        )
        # ... and what reaches the kept cells through them.
        spread = (var + ctx.eps).rsqrt()
        slope = -weight * spread.square() * dweight / len(index)
        level = -weight * spread * dbias / len(index) - slope * mean
        rows = _rows(dx)
        share = torch.addcmul(level, _rows(x).index_select(0, index).float(), slope).to(rows.dtype)
        dx = rows.index_add(0, index, share).view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        return dx, dweight, dbias, None, None
