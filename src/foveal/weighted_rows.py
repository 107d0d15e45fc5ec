"""Weighted sums of rows: what filling a halo comes down to, in one fused pass."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def weighted_rows(rows: Tensor, index: Tensor, weight: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Sums of rows, each with its weight.

    Args:
        rows: (R, C).
        index: (M, J) int64, for each result the J rows that it is a sum of; or (E,), those of all results one after
            the other, with `offsets`.
        weight: of the same shape, in the dtype of the rows.
        offsets: (M,) int64, where in `index` each result begins.

    Returns:
        (M, C).

    Example:
        >>> weighted_rows(torch.eye(3), torch.tensor([[0, 2]]), torch.tensor([[0.25, 0.5]]))
        tensor([[0.2500, 0.0000, 0.5000]])
    """
    if offsets is None:
        count, each = index.shape
        traced = torch.compiler.is_compiling()
        starts = torch.arange(0, count * each, each, device=index.device) if traced else None
        offsets = _starts(count, each, index.device) if starts is None else starts
        index, weight = index.reshape(-1), weight.reshape(-1)
    # `F.embedding_bag` makes the offsets anew in each call, and that takes longer than a small rim itself.
    found: Tensor = torch.embedding_bag(rows, index, offsets, False, 0, False, weight)[0]
    return found


@functools.lru_cache(maxsize=512)
def _starts(count: int, each: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(0, count * each, each, device=device)
