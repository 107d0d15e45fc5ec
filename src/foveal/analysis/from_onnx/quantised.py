"""ONNX's layers of whole numbers, as PyTorch's of floats between the same scales.

Sums are exact up to 2^24, where float32 has every whole number, and are rounded beyond it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, operator
from foveal.analysis.from_onnx.sliding import convolve
from foveal.analysis.from_onnx.weights import as_tensor


def _constant(value: Any, like: Tensor) -> Tensor:
    tensor: Tensor = value if isinstance(value, Tensor) else as_tensor(np.asarray(value))
    return tensor.to(like.device)


def _centred(x: Tensor, zero: Any, *, axis: int | None = None) -> Tensor:
    """Without its zero point, of which there may be one for each place along an axis."""
    x_float = x.float()
    if zero is None:
        return x_float
    if not isinstance(zero, Tensor) and not np.any(zero):
        return x_float
    return x_float - _shaped(_constant(zero, x).float(), x.ndim, axis)


def _shaped(values: Tensor, rank: int, axis: int | None) -> Tensor:
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[0 if axis is None else axis] = -1
    return values.reshape(shape)


def _rounded(x: Tensor, zero: Any, like: torch.dtype) -> Tensor:
    """To whole numbers, from the zero point on."""
    offset = None if zero is None else _constant(zero, x)
    dtype = like if offset is None else offset.dtype
    limits = torch.iinfo(dtype)
    steps = torch.round(x)
    steps = steps if offset is None else steps + offset.float().reshape(())
    return steps.clamp(limits.min, limits.max).to(dtype)


@operator("ConvInteger", settings=(2, 3))
def _conv_integer(node: Node, x: Tensor, weight: Tensor, x_zero: Any = None, w_zero: Any = None) -> Tensor:
    return convolve(node, _centred(x, x_zero), _centred(weight, w_zero, axis=0)).to(torch.int32)


@operator("MatMulInteger", settings=(2, 3))
def _matmul_integer(node: Node, a: Tensor, b: Tensor, a_zero: Any = None, b_zero: Any = None) -> Tensor:
    return torch.matmul(_centred(a, a_zero, axis=-2), _centred(b, b_zero, axis=-1)).to(torch.int32)


@operator("QLinearConv", settings=(1, 2, 4, 5, 6, 7))
def _linear_conv(
    node: Node,
    x: Tensor,
    x_scale: Any,
    x_zero: Any,
    weight: Tensor,
    w_scale: Any,
    w_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Tensor | None = None,
) -> Tensor:
    sums = convolve(node, _centred(x, x_zero), _centred(weight, w_zero, axis=0), None if bias is None else bias.float())
    factor = _constant(x_scale, x).reshape(()) * _constant(w_scale, x) / _constant(y_scale, x).reshape(())
    return _rounded(sums * _shaped(factor, x.ndim, 1), y_zero, x.dtype)


@operator("QLinearMatMul", settings=(1, 2, 4, 5, 6, 7))
def _linear_matmul(
    node: Node, a: Tensor, a_scale: Any, a_zero: Any, b: Tensor, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Tensor:
    sums = torch.matmul(_centred(a, a_zero, axis=-2), _centred(b, b_zero, axis=-1))
    rows, columns = _constant(a_scale, a), _constant(b_scale, a)
    factor = _shaped(rows, sums.ndim, -2) * _shaped(columns, sums.ndim, -1) / _constant(y_scale, a).reshape(())
    return _rounded(sums * factor, y_zero, a.dtype)


@operator("QLinearAdd", "QLinearMul", settings=(1, 2, 4, 5, 6, 7), domain="com.microsoft")
def _linear_pair(
    node: Node, a: Tensor, a_scale: Any, a_zero: Any, b: Tensor, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Tensor:
    one, other = (
        _centred(x, zero) * _constant(scale, x).reshape(())
        for x, scale, zero in ((a, a_scale, a_zero), (b, b_scale, b_zero))
    )
    both = one + other if node.operator == "QLinearAdd" else one * other
    return _rounded(both / _constant(y_scale, a).reshape(()), y_zero, a.dtype)


@operator("QLinearGlobalAveragePool", settings=(1, 2, 3, 4), domain="com.microsoft")
def _linear_pool(node: Node, x: Tensor, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any) -> Tensor:
    if node.get("channels_last", 0):
        raise ValueError("it pools maps with channels last, which is not followed")
    factor = _constant(x_scale, x).reshape(()) / _constant(y_scale, x).reshape(())
    return _rounded(F.adaptive_avg_pool2d(_centred(x, x_zero), 1) * factor, y_zero, x.dtype)


@operator("DynamicQuantizeLinear")
def _dynamic(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.round(-low / scale).clamp(0, 255)
    steps = (torch.round(x / scale) + zero).clamp(0, 255)
    return steps.to(torch.uint8), scale, zero.to(torch.uint8)
