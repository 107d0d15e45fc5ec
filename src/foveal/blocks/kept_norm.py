"""Batch norm in training whose statistics leave out what is no part of a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def norm_kept(norm: nn.BatchNorm2d, x: Tensor, kept: Tensor) -> Tensor:
    """A training pass of a batch norm module, see `batch_norm_kept`; running statistics move as in its own.

    Args:
        norm: with affine terms and running statistics.
        x: (N, C, n, m) float of any precision; channels-last memory is fastest.
        kept: (N, n, m) bool, the cells that count.

    Example:
        >>> norm_kept(nn.BatchNorm2d(8), torch.rand(3, 8, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool)).shape
        torch.Size([3, 8, 4, 4])
    """
    momentum: float | Tensor | None = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / norm.num_batches_tracked if momentum is None else momentum
    return batch_norm_kept(x, kept, norm.running_mean, norm.running_var, norm.weight, norm.bias, momentum, norm.eps)


def batch_norm_kept(
    x: Tensor,
    kept: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float | Tensor | None = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` in training (Ioffe and Szegedy 2015) with the statistics of the kept cells.

    All cells are normalised by them, the others too.

    Args:
        x: (N, C, n, m) float of any precision; channels-last memory is fastest.
        kept: (N, n, m) bool, the cells that count.
        running_mean: (C,), moved in place where given; likewise `running_var`.
        weight: (C,), ones by default; likewise `bias`, zeros.
        momentum: how far the running statistics move.
        eps: added to the variance.

    Returns:
        (N, C, n, m), in the dtype of `x`.

    Raises:
        ValueError: if fewer than two cells are kept (not told while a graph is traced).
    """
    weight = torch.ones(x.shape[1], device=x.device) if weight is None else weight
    bias = torch.zeros(x.shape[1], device=x.device) if bias is None else bias
    if torch.compiler.is_compiling():
        result, mean, var, count = _traced(x, kept.to(x.device), weight, bias, eps)
    else:
        index = kept.flatten().nonzero()[:, 0].to(x.device)
        if len(index) < 2:
            raise ValueError(
                f"batch norm in training needs at least 2 cells inside a picture, here are {len(index)} of "
                f"{kept.numel()}; use larger batches or windows that hold more of the picture"
            )
        result, mean, var = _KeptNorm.apply(x, weight, bias, index, eps)
        count = torch.tensor(len(index), device=x.device)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            share = torch.as_tensor(0.0 if momentum is None else momentum).to(running_mean)
            # Through `.data`, unseen by autograd as in PyTorch's own: an earlier pass may wait for its backward.
            running_mean.data.lerp_(mean.to(running_mean), share)
            running_var.data.lerp_((var * count / (count - 1)).to(running_var), share)
    return result


def _traced(x: Tensor, kept: Tensor, gain: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
    """The same in single operations of fixed shape, which a compiler fuses."""
    counts, maps = kept[:, None].to(torch.float32), x.float()
    count = counts.sum()
    mean = (maps * counts).sum((0, 2, 3)) / count
    var = ((maps - mean[:, None, None]).square() * counts).sum((0, 2, 3)) / count
    gain = gain * (var + eps).rsqrt()
    result = maps * gain[:, None, None] + (bias - mean * gain)[:, None, None]
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
        # As if the statistics were constants; kernels on accelerators ask for saved ones, though they may be empty ...
        none = mean.new_empty(0)
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, var, none, none, False, ctx.eps, wanted
        )
        # ... and what reaches the kept cells through them.
        spread = (var + ctx.eps).rsqrt()
        slope = -weight * spread.square() * dweight / len(index)
        level = -weight * spread * dbias / len(index) - slope * mean
        rows = _rows(dx)
        held = _rows(x).index_select(0, index).to(slope.dtype)
        share = torch.addcmul(level, held, slope).to(rows.dtype)
        dx = rows.index_add(0, index, share).view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        return dx, dweight, dbias, None, None
