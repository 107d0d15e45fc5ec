"""ONNX's operators that work number by number, as functions of PyTorch."""

from __future__ import annotations

import math
import operator as python
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import DTYPES, Node, operator

for _name, _function in {
    "Abs": torch.abs, "Neg": torch.neg, "Sign": torch.sign, "Reciprocal": torch.reciprocal,
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sqrt": torch.sqrt,
    "Exp": torch.exp, "Log": torch.log, "Erf": torch.erf, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
    "Relu": F.relu, "HardSwish": F.hardswish, "Softplus": F.softplus, "Softsign": F.softsign, "Mish": F.mish,
    "Not": torch.logical_not, "IsNaN": torch.isnan,
}.items():  # fmt: skip
    operator(_name)(lambda node, x, function=_function: function(x))

for _name, _function in {
    "Add": python.add, "Sub": python.sub, "Mul": python.mul, "Equal": python.eq, "Less": python.lt,
    "Greater": python.gt, "LessOrEqual": python.le, "GreaterOrEqual": python.ge,
}.items():  # fmt: skip
    operator(_name, numbers=True)(lambda node, a, b, function=_function: function(a, b))

for _name, _function in {"And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor}.items():
    operator(_name)(lambda node, a, b, function=_function: function(a, b))


def _whole(*values: Any) -> bool:
    return not any(isinstance(v, float) or (isinstance(v, Tensor) and v.is_floating_point()) for v in values)


@operator("Div", numbers=True)
def _div(node: Node, a: Any, b: Any) -> Tensor:
    return torch.div(torch.as_tensor(a), b, rounding_mode="trunc") if _whole(a, b) else a / b


@operator("Mod", numbers=True)
def _mod(node: Node, a: Any, b: Any) -> Tensor:
    return torch.fmod(torch.as_tensor(a), b) if node.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow", numbers=True)
def _pow(node: Node, a: Any, b: Any) -> Tensor:
    result = torch.pow(a, b)
    return result.to(a.dtype) if isinstance(a, Tensor) and result.dtype != a.dtype else result


@operator("Sum", numbers=True)
def _sum(node: Node, *values: Any) -> Any:
    return reduce(python.add, values)


@operator("Mean", numbers=True)
def _mean(node: Node, *values: Any) -> Any:
    return reduce(python.add, values) / len(values)


def _extreme(node: Node, *values: Any) -> Any:
    side, pairwise = ("max", torch.minimum) if node.operator == "Min" else ("min", torch.maximum)

    def step(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return pairwise(a, b)
        tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
        return tensor.clamp(**{side: number})

    # Tensors first: two numbers beside each other would have no tensor to work on.
    return reduce(step, sorted(values, key=lambda value: not isinstance(value, Tensor)))


operator("Min", "Max", numbers=True)(_extreme)


@operator("Where", numbers=True)
def _where(node: Node, condition: Tensor, a: Any, b: Any) -> Tensor:
    return torch.where(condition, a, b)


@operator("Clip", settings=(1, 2))
def _clip(node: Node, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = (node.get(name) if value is None else value for name, value in (("min", low), ("max", high)))
    bounds = [bound.item() if isinstance(bound, np.ndarray) else bound for bound in (low, high)]
    return x if bounds == [None, None] else x.clamp(*bounds)


@operator("Identity")
def _identity(node: Node, x: Tensor) -> Tensor:
    return x


@operator("Dropout", settings=(1, 2))
def _dropout(node: Node, x: Tensor, ratio: Any = None, training: Any = None) -> Any:
    if training is not None and np.any(training):
        raise ValueError("it is in training mode; export the network after .eval()")
    return (x, torch.ones_like(x, dtype=torch.bool)) if node.wants(1) else x


@operator("Cast")
def _cast(node: Node, x: Tensor) -> Tensor:
    if node.get("to") not in DTYPES:
        raise ValueError(f"it casts to the type {node.get('to')} of ONNX, which PyTorch does not have")
    return x.to(DTYPES[node.get("to")])


@operator("CastLike")
def _cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operator("IsInf")
def _is_inf(node: Node, x: Tensor) -> Tensor:
    found = {(1, 1): torch.isinf, (1, 0): torch.isposinf, (0, 1): torch.isneginf}
    which = (node.get("detect_positive", 1), node.get("detect_negative", 1))
    return found[which](x) if which in found else torch.zeros_like(x, dtype=torch.bool)


@operator("Gelu")
def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


operator("Gelu", domain="com.microsoft")(_gelu)


@operator("BiasGelu", domain="com.microsoft")
def _bias_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("Elu")
def _elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Celu")
def _celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.050701)
    usual = math.isclose(alpha, 1.6732632, rel_tol=1e-5) and math.isclose(gamma, 1.050701, rel_tol=1e-5)
    return F.selu(x) if usual else gamma * F.elu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return F.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    usual = math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5
    return F.hardsigmoid(x) if usual else (alpha * x + beta).clamp(0, 1)


@operator("Swish")
def _swish(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("Shrink")
def _shrink(node: Node, x: Tensor) -> Tensor:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    return torch.where(x > edge, x - bias, torch.where(x < -edge, x + bias, torch.zeros_like(x)))


@operator("PRelu")
def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    along = [side for side in slope.shape if side != 1]
    channels = slope.ndim == x.ndim - 1 and slope.shape[0] == x.shape[1] and len(along) <= 1
    if slope.numel() == 1 or (channels and slope.numel() == x.shape[1]):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


def _softmax(node: Node, x: Tensor) -> Tensor:
    function = F.softmax if node.operator == "Softmax" else F.log_softmax
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    if node.opset >= 13 or axis in (-1, x.ndim - 1):
        return function(x, dim=axis)
    rows = math.prod(x.shape[: axis % x.ndim])  # before set 13 all axes from this one on are one
    return function(x.reshape(rows, -1), dim=1).reshape(x.shape)


operator("Softmax", "LogSoftmax")(_softmax)


@operator("QuantizeLinear")
def _quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    scale, zero = _along(node, x, scale), None if zero is None else _along(node, x, zero)
    dtype = torch.uint8 if zero is None else zero.dtype
    range_ = torch.iinfo(dtype)
    steps = torch.round(x / scale) + (0 if zero is None else zero.to(x.dtype))
    return steps.clamp(range_.min, range_.max).to(dtype)


@operator("DequantizeLinear")
def _dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    scale = _along(node, x, scale)
    steps = x.to(scale.dtype) if zero is None else x.to(scale.dtype) - _along(node, x, zero).to(scale.dtype)
    return steps * scale


def _along(node: Node, x: Tensor, values: Tensor) -> Tensor:
    """One value for all, or one for each place along the axis."""
    if node.get("block_size", 0):
        raise ValueError("its numbers are quantised in blocks, which is not read")
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[node.get("axis", 1)] = -1
    return values.reshape(shape)
