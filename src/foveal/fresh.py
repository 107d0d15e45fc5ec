"""New memory for large results: a page of 4 kB that is written to for the first time costs more than writing it."""

from __future__ import annotations

import contextlib
import math
import mmap

import torch
from torch import Tensor

LARGE = 1 << 25
"""Bytes from which the C library takes new pages for each result, and gives them back; smaller memory is used again."""


def fresh(*shape: int) -> Tensor:
    """`torch.empty`, in float32 on the CPU; where it is large, in pages of 2 MB if the system has them to give.

    What comes is its caller's own, and given back with its last tensor.

    Example:
        >>> fresh(2, 3).shape
        torch.Size([2, 3])
    """
    numbers = math.prod(shape)
    if numbers * 4 < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape)
    pages = mmap.mmap(-1, numbers * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without them; the memory is as good
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.float32).view(shape)
