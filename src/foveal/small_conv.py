"""Convolutions of maps that hold only a few cells, as the last stages of a window do.

There the ordinary kernels are at their worst: of 2 x 2 cells an implicit matrix product is mostly edges. Gathered into
one plain matrix product the same multiplications run two to three times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 128
"""Cells of all maps together up to which gathering pays, whatever their shape."""


def conv_of_padded(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """`torch.nn.functional.conv2d` without padding, of maps whose rims are filled already.

    Args:
        x: (N, C_in, H, W); channels-last memory is fastest.
        weight: (C_out, C_in / groups, h, w); only of channels-last memory can few cells be gathered.
        bias: (C_out,).
        stride, dilation, groups: as of `conv2d`.

    Returns:
        (N, C_out, H', W'), equal to `conv2d` up to rounding.
    """
    rows, columns = (
        (side - kernel) // step + 1 for side, kernel, step in zip(x.shape[2:], weight.shape[2:], stride, strict=True)
    )
    plain = groups == 1 and dilation == (1, 1)
    if weight.shape[2:].numel() == 1:  # of these the ordinary kernels are slow only where they leave cells out
        few = stride != (1, 1) and max(rows, columns) <= 4
    else:
        few = max(rows, columns) <= 2 or len(x) * rows * columns <= FEW
    if not (plain and few and _can_gather(x, weight)):
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)
    patches = x.permute(0, 2, 3, 1).unfold(1, weight.shape[2], stride[0]).unfold(2, weight.shape[3], stride[1])
    flat = patches.permute(0, 1, 2, 4, 5, 3).reshape(len(x) * rows * columns, -1)
    result = F.linear(flat, weight.permute(0, 2, 3, 1).reshape(len(weight), -1), bias)
    return result.view(len(x), rows, columns, -1).permute(0, 3, 1, 2)


def _can_gather(x: Tensor, weight: Tensor) -> bool:
    """Where it was measured: on a CPU, in float32, without gradients, outside of traced graphs."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.is_contiguous(memory_format=torch.channels_last)
    )
