"""Every operator of the table gives what ONNX Runtime gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Does
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import by_runtime, called, check_graph, exported, random, save_graph
from torch import nn

from foveal.analysis.analyze import analyze
from foveal.analysis.from_onnx.network import network_from_onnx
from foveal.analysis.from_onnx.operators import OPERATORS


@dataclass(frozen=True)
class Case:
    """A node with its inputs: arrays are data, those in `fixed` are initializers; None is left out."""

    operator: str
    inputs: Sequence[np.ndarray | None]
    fixed: Sequence[np.ndarray | None] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    calls: str | None = None
    domain: str = ""
    kind: int = TensorProto.FLOAT

    def write(self, file: Path) -> tuple[Path, dict[str, np.ndarray]]:
        inputs = {f"x{at}": array for at, array in enumerate(self.inputs) if array is not None}
        own = [f"layer.w{at}" if np.ndim(array) else f"number{at}" for at, array in enumerate(self.fixed)]
        weights = {name: array for name, array in zip(own, self.fixed, strict=True) if array is not None}
        names = [f"x{at}" if array is not None else "" for at, array in enumerate(self.inputs)]
        names += [name if array is not None else "" for name, array in zip(own, self.fixed, strict=True)]
        outputs = [f"y{at}" for at in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, "the_node", domain=self.domain, **self.attributes)
        domains = [self.domain] if self.domain else []
        options = {"opset": self.opset, "domains": domains, "kind": self.kind}
        save_graph(file, [node], inputs, weights, outputs=outputs, **options)
        return file, inputs


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def number(value: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(value, dtype=dtype)


def positive(*shape: int) -> np.ndarray:
    return np.abs(random(*shape)) + 0.5


def within(*shape: int) -> np.ndarray:
    return np.tanh(random(*shape)).astype(np.float32)


X = random(2, 3, 9, 8)
"""Maps with sides that few strides divide."""

UNARY = [
    "Abs",
    "Neg",
    "Sign",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Round",
    "Exp",
    "Erf",
    "Sigmoid",
    "Tanh",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Relu",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Mish",
    "IsNaN",
    "Identity",
    "Elu",
    "Celu",
    "Selu",
    "ThresholdedRelu",
    "HardSigmoid",
    "Shrink",
    "Softmax",
    "LogSoftmax",
    "LeakyRelu",
]

CASES = [
    *(Case(name, [X]) for name in UNARY),
    *(Case(name, [positive(2, 5)]) for name in ("Sqrt", "Log")),
    *(Case(name, [within(2, 5)]) for name in ("Asin", "Acos", "Atanh")),
    Case("Acosh", [positive(2, 5) + 1]),
    Case("Not", [X > 0]),
    *(Case(name, [X > 0, X < 0.5]) for name in ("And", "Or", "Xor")),
    *(
        Case(name, [X, random(3, 1, 8)])
        for name in ("Add", "Sub", "Mul", "Min", "Max", "Less", "Greater", "Sum", "Mean")
    ),
    *(Case(name, [X, np.round(X)]) for name in ("Equal", "LessOrEqual", "GreaterOrEqual")),
    *(Case(name, [X], [number(0.3)]) for name in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Less", "Sum")),
    *(Case(name, [X], [floats(0.3)], calls=f"aten.{name.lower()}.Tensor") for name in ("Add", "Mul")),
    *(Case(name, [X], [random(3, 1, 1)]) for name in ("Add", "Mul", "Sub", "Div")),
    Case("Add", [random(4)], [random(2, 3, 1)]),
    Case("Mul", [random(4)], [random(1, 1, 1)]),
    Case("Sum", [X, X + 1, X * 2]),
    Case("Max", [X, random(1, 3, 1, 1), random(8)]),
    Case("Div", [X, positive(8)]),
    Case("Div", [ints(7, -7, 9), ints(2, 2, -4)]),
    Case("Div", [ints(7, -7, 9)], [ints(2)]),
    Case("Mod", [ints(7, -7, 9), ints(2, 3, -4)]),
    Case("Mod", [X, positive(8)], attributes={"fmod": 1}),
    Case("Pow", [positive(2, 5), random(5)]),
    Case("Pow", [X], [number(2.0)], calls="aten.pow.Tensor_Scalar"),
    Case("Pow", [X], [number(3, np.int64)]),
    Case("Where", [X > 0, X, random(8)]),
    Case("Where", [X > 0, X], [number(-1.0)]),
    Case("Where", [X > 0], [number(1.0), number(-np.inf)]),
    Case("Clip", [X], [number(-0.5), number(0.5)], calls="aten.clamp.default"),
    Case("Clip", [X], [None, number(0.5)]),
    Case("Clip", [X], [number(0.0)]),
    Case("Clip", [X, number(-0.5)]),
    Case("Clip", [X], attributes={"min": -0.25, "max": 0.75}, opset=10),
    Case("Dropout", [X]),
    Case("Dropout", [X], [number(0.5), number(False, np.bool_)]),
    Case("Dropout", [X], [number(0.5)], outputs=2),
    *(Case("Cast", [X * 5], attributes={"to": to}) for to in (TensorProto.INT64, TensorProto.DOUBLE, TensorProto.BOOL)),
    Case("CastLike", [X * 5, ints(1)], opset=19),
    *(
        Case("IsInf", [floats(1, np.inf, -np.inf, np.nan)], attributes=a)
        for a in ({}, {"detect_negative": 0}, {"detect_positive": 0})
    ),
    Case("Gelu", [X], opset=20, calls="aten.gelu.default"),
    Case("Gelu", [X], attributes={"approximate": "tanh"}, opset=20),
    Case("Gelu", [X], domain="com.microsoft"),
    Case("LeakyRelu", [X], attributes={"alpha": 0.2}),
    Case("Selu", [X], attributes={"alpha": 1.2, "gamma": 0.9}),
    Case("HardSigmoid", [X], attributes={"alpha": 1 / 6, "beta": 0.5}, calls="aten.hardsigmoid.default"),
    Case("Shrink", [X], attributes={"lambd": 0.3, "bias": 0.1}),
    *(Case("PRelu", [X], [slope]) for slope in (random(3, 1, 1), random(1, 1, 1), random(9, 1), random(1))),
    *(Case("Softmax", [X], attributes={"axis": axis}, opset=opset) for axis in (1, 2, 3) for opset in (12, 13)),
    Case("LogSoftmax", [X], opset=9),
    Case("QuantizeLinear", [X], [number(0.05), number(120, np.uint8)]),
    Case("QuantizeLinear", [X], [positive(3) / 30, np.array([1, -2, 3], np.int8)], {"axis": 1}),
    Case("QuantizeLinear", [X], [number(0.05)]),
    Case("DequantizeLinear", [(X * 40).astype(np.int8)], [number(0.05), number(3, np.int8)]),
    Case("DequantizeLinear", [(X * 40).astype(np.int8)], [positive(3), np.array([1, -2, 3], np.int8)], {"axis": 1}),
    # convolutions
    Case("Conv", [X], [random(4, 3, 3, 3)], calls="aten.conv2d.default"),
    Case(
        "Conv",
        [X],
        [random(4, 3, 3, 3), random(4)],
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        calls="aten.conv2d.default",
    ),
    Case("Conv", [X], [random(4, 3, 3, 2)], {"pads": [0, 1, 1, 2], "dilations": [2, 1]}),
    Case("Conv", [X], [random(6, 1, 3, 3)], {"group": 3, "pads": [2, 1, 2, 1]}),
    *(
        Case("Conv", [X], [random(4, 3, 3, 4)], {"auto_pad": how, "strides": [2, 3]})
        for how in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", [random(2, 3, 9)], [random(4, 3, 3)], {"pads": [1, 1]}, calls="aten.conv1d.default"),
    Case(
        "Conv", [random(1, 2, 5, 6, 7)], [random(3, 2, 3, 3, 3)], {"pads": [1, 0, 2] * 2}, calls="aten.conv3d.default"
    ),
    Case("Conv", [X, random(4, 3, 3, 3)]),
    Case("ConvTranspose", [X], [random(3, 4, 3, 3), random(4)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("ConvTranspose", [X], [random(3, 4, 3, 3)], {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
    Case(
        "ConvTranspose", [X], [random(3, 4, 3, 3)], {"strides": [2, 3], "pads": [0, 1, 2, 0], "output_padding": [1, 0]}
    ),
    Case("ConvTranspose", [X], [random(3, 2, 3, 2)], {"group": 3, "dilations": [2, 1], "strides": [2, 2]}),
    Case("ConvTranspose", [X], [random(3, 4, 3, 3)], {"strides": [2, 2], "output_shape": [18, 17]}),
    *(
        Case("ConvTranspose", [X], [random(3, 4, 3, 3)], {"strides": [2, 2], "auto_pad": how})
        for how in ("SAME_UPPER", "SAME_LOWER")
    ),
    Case(
        "ConvTranspose",
        [random(2, 3, 9)],
        [random(3, 4, 4)],
        {"strides": [2], "pads": [1, 1]},
        calls="aten.conv_transpose1d.default",
    ),
    Case("DeformConv", [X, random(4, 3, 3, 3), random(2, 18, 7, 6)], opset=19),
    Case(
        "DeformConv",
        [X, random(4, 3, 3, 3), random(2, 18, 9, 8), random(4), within(2, 9, 9, 8)],
        (),
        {"pads": [1] * 4},
        opset=19,
    ),
    # pools
    Case(
        "MaxPool",
        [X],
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        calls="aten.max_pool2d.default",
    ),
    Case("MaxPool", [X], attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", [X], attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}),
    Case("MaxPool", [X], attributes={"kernel_shape": [3, 2], "pads": [0, 1, 2, 0], "dilations": [2, 1]}),
    Case("MaxPool", [X], attributes={"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "strides": [3, 3], "ceil_mode": 1}),
    *(
        Case("MaxPool", [X], attributes={"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": how})
        for how in ("SAME_UPPER", "SAME_LOWER")
    ),
    Case("MaxPool", [random(2, 3, 9)], attributes={"kernel_shape": [3]}, calls="aten.max_pool1d.default"),
    Case(
        "AveragePool",
        [X],
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        calls="aten.avg_pool2d.default",
    ),
    Case(
        "AveragePool",
        [X],
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1},
    ),
    Case("AveragePool", [X], attributes={"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}),
    Case("AveragePool", [X], attributes={"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1}),
    Case("AveragePool", [X], attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", [X], attributes={"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    *(
        Case(
            "AveragePool",
            [X],
            attributes={"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 2, 0], "strides": [2, 1], **more},
            opset=19,
        )
        for more in ({}, {"count_include_pad": 1}, {"ceil_mode": 1})
    ),
    *(
        Case("MaxPool", [X], attributes={"kernel_shape": [3, 2], "strides": [2, 1], **more}, outputs=2)
        for more in ({}, {"pads": [1, 0, 1, 0]}, {"pads": [0, 1, 2, 0]}, {"ceil_mode": 1}, {"storage_order": 1})
    ),
    Case("MaxPool", [random(2, 3, 9)], attributes={"kernel_shape": [3], "pads": [0, 2]}, outputs=2),
    *(
        Case("LpPool", [X], attributes={"kernel_shape": [3, 3], "strides": [2, 2], **more})
        for more in ({}, {"p": 1}, {"p": 3, "pads": [1, 0, 1, 2]}, {"auto_pad": "SAME_LOWER"})
    ),
    Case("LpPool", [random(2, 3, 9)], attributes={"kernel_shape": [3]}),
    *(Case("GlobalLpPool", [X], attributes={"p": p}) for p in (1, 2, 3)),
    Case("GlobalAveragePool", [X], calls="aten.adaptive_avg_pool2d.default"),
    Case("GlobalAveragePool", [random(2, 3, 9)]),
    Case("GlobalMaxPool", [X]),
    # norms
    Case(
        "BatchNormalization",
        [X],
        [random(3), random(3), random(3), positive(3)],
        calls="aten._native_batch_norm_legit_no_training.default",
    ),
    Case("InstanceNormalization", [X], [random(3), random(3)]),
    Case("GroupNormalization", [random(2, 6, 4, 4)], [random(3), random(3)], {"num_groups": 3}),
    Case(
        "GroupNormalization",
        [random(2, 6, 4, 4)],
        [random(6), random(6)],
        {"num_groups": 3},
        opset=21,
        calls="aten.group_norm.default",
    ),
    Case("LayerNormalization", [X], [random(8), random(8)], {"epsilon": 1e-3}, calls="aten.layer_norm.default"),
    Case("LayerNormalization", [X], [random(9, 8)], {"axis": 2}),
    Case("LayerNormalization", [X], [random(8), random(8)], {"axis": 1}),
    Case("RMSNormalization", [X], [random(8)], opset=23),
    Case("LpNormalization", [X], attributes={"axis": 1, "p": 2}),
    Case("LpNormalization", [X], attributes={"axis": -1, "p": 1}),
    Case("MeanVarianceNormalization", [X]),
    *(Case("LRN", [random(2, 7, 3, 3)], attributes={"size": n, "alpha": 0.5, "bias": 2.0}) for n in (3, 5)),
    *(Case("LayerNormalization", [X], [random(8), random(8)], outputs=outputs) for outputs in (2, 3)),
    Case("LayerNormalization", [X], [random(9, 8)], {"axis": 2}, outputs=3),
    Case("BiasGelu", [X], [random(8)], domain="com.microsoft"),
    # products
    Case("MatMul", [random(2, 4, 5)], [random(5, 6)], calls="aten.linear.default"),
    Case("MatMul", [random(2, 4, 5), random(2, 5, 3)]),
    Case("MatMul", [random(2, 4, 5)], [random(2, 5, 3)]),
    Case("MatMul", [random(5)], [random(5)]),
    Case("Gemm", [random(4, 5)], [random(6, 5), random(6)], {"transB": 1}, calls="aten.linear.default"),
    Case("Gemm", [random(4, 5)], [random(5, 6), random(6)], calls="aten.linear.default"),
    Case("Gemm", [random(5, 4)], [random(5, 6), random(4, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [random(4, 5)], [random(5, 6)], {"alpha": 0.5}),
    Case("Gemm", [random(4, 5), random(5, 6), random(4, 6)]),
    Case("Einsum", [random(2, 3, 4), random(2, 4, 5)], attributes={"equation": "bij,bjk->bik"}),
    *(
        Case(
            "Attention",
            [random(2, 4, 5, 8, seed=s) for s in (0, 1, 2)],
            attributes=a,
            opset=23,
            calls="aten.scaled_dot_product_attention.default",
        )
        for a in ({}, {"scale": 0.1}, {"is_causal": 1})
    ),
    Case("Attention", [random(2, 4, 5, 8), random(2, 2, 6, 8), random(2, 2, 6, 8), random(5, 6)], opset=23),
    Case(
        "Attention",
        [random(2, 5, 32), random(2, 6, 16), random(2, 6, 16)],
        attributes={"q_num_heads": 4, "kv_num_heads": 2},
        opset=23,
    ),
    Case(
        "Attention",
        [random(2, 4, 1, 8), random(2, 4, 1, 8), random(2, 4, 1, 8), None, random(2, 4, 5, 8), random(2, 4, 5, 8)],
        opset=23,
        outputs=3,
    ),
    # reductions
    *(
        Case(f"Reduce{kind}", [positive(2, 3, 4)], [ints(1, -1)])
        for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    ),
    *(Case(f"Reduce{kind}", [X], attributes={"keepdims": 0}) for kind in ("Mean", "Sum", "Max", "Min", "L2")),
    Case("ReduceMean", [X], attributes={"axes": [2, 3], "keepdims": 0}, opset=13, calls="aten.mean.dim"),
    *(
        Case(f"Reduce{kind}", [positive(2, 3)], attributes={"noop_with_empty_axes": 1})
        for kind in ("Mean", "Sum", "Max", "Min", "Prod")
    ),
    *(Case(name, [np.round(X)], attributes={"axis": 2, "select_last_index": 1}) for name in ("ArgMax", "ArgMin")),
    *(Case("OneHot", [np.array([[0, 4], [-1, 2]])], [ints(5), floats(-1, 2.5)], {"axis": axis}) for axis in (-1, 0, 1)),
    Case("OneHot", [np.array([0, 7, 2])], [ints(5), ints(0, 3)]),
    # recurrent layers
    *(
        Case(
            kind,
            [random(7, 2, 5)],
            [random(ways, n * 4, 5), random(ways, n * 4, 4, seed=1), random(ways, n * 8)],
            {"hidden_size": 4, "direction": how, **more},
            outputs=2,
        )
        for kind, n, more in (
            ("LSTM", 4, {}),
            ("GRU", 3, {"linear_before_reset": 1}),
            ("RNN", 1, {}),
            ("RNN", 1, {"activations": ["Relu"]}),
        )
        for how, ways in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
        if not (ways == 2 and "activations" in more)
    ),
    Case(
        "LSTM",
        [random(7, 2, 5)],
        [random(1, 16, 5), random(1, 16, 4, seed=1), None, None, random(1, 2, 4), random(1, 2, 4, seed=2)],
        {"hidden_size": 4},
        outputs=3,
    ),
    # whole numbers
    *(
        Case("ConvInteger", [np.abs(X * 40).astype(np.uint8)], [(random(4, 3, 3, 3) * 40).astype(kind), *zeros], more)
        for kind, zeros, more in (
            (np.int8, [number(3, np.uint8)], {"pads": [1, 0, 1, 2]}),
            (np.uint8, [number(3, np.uint8), number(5, np.uint8)], {"strides": [2, 2]}),
            (np.uint8, [], {"auto_pad": "SAME_UPPER"}),
        )
    ),
    *(
        Case(
            "QLinearConv",
            [np.abs(X * 40).astype(np.uint8)],
            [
                *(number(0.05), number(3, np.uint8), (random(4, 3, 3, 3) * 40).astype(np.int8), scale),
                *(
                    np.zeros(scale.shape, np.int8),
                    number(0.4),
                    number(120, np.uint8),
                    ints(1, -90, 40, 7).astype(np.int32),
                ),
            ],
            {"pads": [1, 1, 1, 1], "strides": [2, 1]},
        )
        for scale in (number(0.02), positive(4) / 50)
    ),
    Case("MatMulInteger", [(random(4, 5) * 40).astype(np.int8)], [(random(5, 6) * 40).astype(np.int8)]),
    Case(
        "MatMulInteger",
        [np.abs(random(4, 5) * 40).astype(np.uint8)],
        [(random(5, 6) * 40).astype(np.int8), number(3, np.uint8), number(-2, np.int8)],
    ),
    Case(
        "QLinearMatMul",
        [np.abs(random(4, 5) * 40).astype(np.uint8)],
        [
            *(number(0.05), number(3, np.uint8), (random(5, 6) * 40).astype(np.int8), number(0.02), number(1, np.int8)),
            *(number(0.1), number(120, np.uint8)),
        ],
    ),
    *(
        Case(
            name,
            [np.abs(X * 40).astype(np.uint8)],
            [
                *(number(0.05), number(3, np.uint8), np.abs(random(3, 1, 1) * 90).astype(np.uint8), number(0.04)),
                *(number(9, np.uint8), number(0.1), number(20, np.uint8)),
            ],
            domain="com.microsoft",
            kind=TensorProto.UINT8,
        )
        for name in ("QLinearAdd", "QLinearMul")
    ),
    Case(
        "QLinearGlobalAveragePool",
        [np.abs(X * 40).astype(np.uint8)],
        [number(0.05), number(3, np.uint8), number(0.02), number(20, np.uint8)],
        domain="com.microsoft",
        kind=TensorProto.UINT8,
    ),
    Case("DynamicQuantizeLinear", [X], outputs=3),
    Case("ArgMax", [X], attributes={"axis": 1, "keepdims": 0}),
    Case("ArgMin", [X], attributes={"axis": -1}),
    # shapes
    Case("Reshape", [X], [ints(0, -1, 4)]),
    Case("Reshape", [random(2, 0, 3)], [ints(0, 3, 2)], {"allowzero": 1}),
    *(Case("Flatten", [X], attributes={"axis": axis}) for axis in (0, 1, 2, -1)),
    Case("Transpose", [X], attributes={"perm": [0, 2, 3, 1]}),
    Case("Transpose", [X]),
    Case("Squeeze", [random(2, 1, 3, 1)], [ints(1, -1)]),
    Case("Squeeze", [random(2, 1, 3, 1)]),
    Case("Squeeze", [random(2, 1, 3, 1)], attributes={"axes": [3]}, opset=11),
    Case("Unsqueeze", [random(2, 3)], [ints(0, -1)]),
    Case("Unsqueeze", [random(2, 3)], attributes={"axes": [1]}, opset=11),
    Case("Expand", [random(3, 1)], [ints(2, 1, 4)]),
    Case("Tile", [random(2, 3)], [ints(2, 3)]),
    Case("Concat", [X, X + 1], [X * 2], {"axis": -2}),
    Case("Split", [X], [ints(2, 3, 4)], {"axis": 2}, outputs=3),
    Case("Split", [X], attributes={"axis": 2, "num_outputs": 4}, outputs=4),
    Case("Split", [X], attributes={"axis": 3}, opset=13, outputs=2),
    Case("Split", [X], attributes={"axis": 3, "split": [5, 3]}, opset=11, outputs=2),
    Case("Slice", [X], [ints(1, -7), ints(2**63 - 1, -1), ints(1, 3), ints(1, 2)]),
    Case("Slice", [X], [ints(-1, 6), ints(-(2**63) + 1, 1), ints(2, 3), ints(-2, -1)]),
    Case("Slice", [X], [ints(0, 0), ints(1, 2)]),
    Case("Slice", [X], attributes={"starts": [1], "ends": [3], "axes": [2]}, opset=9),
    *(
        Case("Gather", [X], [at], {"axis": axis})
        for at in (number(-1, np.int64), ints(0, 2), ints(-1, 0), ints(1, 2), np.array([[0, 1], [2, -1]]))
        for axis in (1, 3)
    ),
    Case("Gather", [X, ints(-1, 1)], attributes={"axis": 2}),
    Case("GatherElements", [X, np.array([[[[-1, 0]]]])], attributes={"axis": 3}),
    Case("GatherND", [X], [np.array([[0, 1], [1, -2]])]),
    Case("ScatterND", [X], [np.array([[0, 1], [1, 2]]), random(2, 9, 8)]),
    Case("ScatterND", [X], [np.array([[0, 1], [0, 1]]), random(2, 9, 8)], {"reduction": "add"}),
    *(
        Case(
            "ScatterElements",
            [random(3, 4), np.array([[1, 2], [0, -1]]), random(2, 2)],
            attributes={"axis": 1, "reduction": how},
        )
        for how in ("none", "add", "mul", "max", "min")
    ),
    Case("Pad", [X], [ints(0, 0, 1, 2, 0, 0, 3, -1), number(1.5)]),
    Case("Pad", [X], [ints(0, 1, 0, 0, 0, 2, 0, 0)]),
    *(
        Case("Pad", [X], [ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": mode}, opset=19)
        for mode in ("reflect", "edge", "wrap")
    ),
    Case("Pad", [X], [ints(0, 0, 0, 2, 0, 0, 0, 0)], {"mode": "reflect"}),
    Case("Pad", [X], [ints(1, 2, 0, 1), number(0.5), ints(-1, 2)]),
    Case("Pad", [X], attributes={"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, opset=10),
    *(
        Case("DepthToSpace", [random(2, 12, 3, 4)], attributes={"blocksize": 2, "mode": mode})
        for mode in ("DCR", "CRD")
    ),
    Case("SpaceToDepth", [random(2, 3, 4, 6)], attributes={"blocksize": 2}),
    *(Case("Trilu", [random(2, 4, 5)], [number(k, np.int64)], {"upper": upper}) for k in (-1, 1) for upper in (0, 1)),
    *(Case("CumSum", [X], [number(2, np.int64)], {"exclusive": e, "reverse": r}) for e in (0, 1) for r in (0, 1)),
    Case("TopK", [X], [ints(3)], {"axis": 2}, outputs=2),
    *(
        Case("GridSample", [X, within(2, 4, 5, 2)], attributes=a)
        for a in (
            {},
            {"mode": "nearest"},
            {"padding_mode": "border", "align_corners": 1},
            {"mode": "bicubic", "padding_mode": "reflection"},
        )
    ),
    # resize
    *(
        Case(
            "Resize",
            [X],
            [None, floats(1, 1, *scales)],
            {"mode": "nearest", "coordinate_transformation_mode": where, "nearest_mode": rounding},
        )
        for scales in ((2, 2), (0.5, 1.5))
        for where in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
        for rounding in ("floor", "round_prefer_floor", "ceil", "round_prefer_ceil")
    ),
    *(
        Case(
            "Resize",
            [X],
            [None, None, ints(2, 3, *size)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            calls="aten.upsample_nearest2d.vec",
        )
        for size in ((18, 16), (5, 12))
    ),
    *(
        Case("Resize", [X], [None, floats(1, 1, *scales)], {"mode": mode, "coordinate_transformation_mode": where})
        for scales in ((2, 2), (0.6, 1.7))
        for mode, where in (
            ("linear", "half_pixel"),
            ("linear", "pytorch_half_pixel"),
            ("linear", "align_corners"),
            ("linear", "asymmetric"),
            ("cubic", "half_pixel"),
            ("cubic", "align_corners"),
        )
    ),
    *(
        Case(
            "Resize", [X], [None, None, ints(2, 3, *size)], {"mode": "linear", "coordinate_transformation_mode": where}
        )
        for size in ((18, 5), (1, 1))
        for where in ("half_pixel", "pytorch_half_pixel", "align_corners", "half_pixel_symmetric")
    ),
    Case(
        "Resize",
        [X],
        [None, None, ints(18, 16)],
        {"mode": "linear", "axes": [2, 3]},
        calls="aten.upsample_bilinear2d.vec",
    ),
    Case("Resize", [random(2, 3, 9)], [None, floats(1, 1, 2)], {"mode": "linear"}),
    Case("Resize", [random(1, 2, 3, 4, 5)], [None, floats(1, 1, 2, 2, 2)], {"mode": "linear"}),
    *(
        Case(
            "Resize", [X], [None, None, ints(5, 4)], {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": how}
        )
        for how in ("not_larger", "not_smaller")
    ),
    *(Case("Resize", [X], [floats(1, 1, 2.0, 0.5)], {"mode": mode}, opset=10) for mode in ("nearest", "linear")),
    *(
        Case(
            "Resize",
            [X],
            [None, None, ints(2, 3, 4, 5)],
            {"mode": mode, "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5},
        )
        for mode in ("linear", "cubic")
    ),
    Case("Resize", [X], [None, None, ints(2, 3, 18, 12)], {"mode": "linear", "antialias": 1}),
    *(
        Case("Resize", [X], [None, floats(1, 1, *scales)], {"mode": "cubic", **more})
        for scales in ((2, 2), (0.6, 1.7))
        for more in (
            {"cubic_coeff_a": -0.5},
            {"exclude_outside": 1},
            {"cubic_coeff_a": -0.5, "exclude_outside": 1},
            {"coordinate_transformation_mode": "asymmetric"},
        )
    ),
    *(Case("Upsample", [X], [floats(1, 1, 2, 2)], {"mode": mode}, opset=9) for mode in ("nearest", "linear")),
    Case("Upsample", [X], attributes={"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, opset=8),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_an_operator_gives_what_onnx_runtime_gives(case: Case, tmp_path: Path) -> None:
    check_graph(*case.write(tmp_path / "graph.onnx"), export=False)


def test_operators_that_pytorch_has_are_one_call_of_it_under_the_name_of_their_node(tmp_path: Path) -> None:
    """In one export of all of them side by side: an export takes a while whatever is in it."""
    cases = [case for case in CASES if case.calls is not None]
    written = [case.write(tmp_path / f"{at}.onnx") for at, case in enumerate(cases)]
    networks = nn.ModuleList([network_from_onnx(file) for file, _ in written])
    given = [[torch.from_numpy(array) for array in inputs.values()] for _, inputs in written]
    run = Does(lambda self, all_: [one(*its) for one, its in zip(self.networks, all_, strict=True)], networks=networks)
    nodes = [f"networks.{at}.{next(iter(network.nodes))}" for at, network in enumerate(networks)]
    assert called(exported(run, [given])) == [(case.calls, node) for case, node in zip(cases, nodes, strict=True)]


@pytest.mark.full
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_an_operator_can_be_exported(case: Case, tmp_path: Path) -> None:
    check_graph(*case.write(tmp_path / "graph.onnx"))


def test_every_operator_of_the_table_is_checked() -> None:
    assert set(OPERATORS) - {(case.domain, case.operator) for case in CASES} == {("", "Swish")}


@pytest.mark.parametrize("kind", ["Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"])
def test_a_reduction_over_no_axis_works_number_by_number(kind: str, tmp_path: Path) -> None:
    """As the standard and its reference have it; ONNX Runtime hands all of them through."""
    file, inputs = Case(f"Reduce{kind}", [positive(2, 3)], attributes={"noop_with_empty_axes": 1}).write(tmp_path / "a")
    (wanted,) = ReferenceEvaluator(str(file)).run(None, inputs)
    given = network_from_onnx(file)(*(torch.from_numpy(array) for array in inputs.values()))
    np.testing.assert_allclose(given.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "more"), [("linear", {}), ("cubic", {}), ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1})]
)
def test_a_smoothed_map_is_as_the_reference_has_it(mode: str, more: dict[str, Any], tmp_path: Path) -> None:
    attributes = {"mode": mode, "antialias": 1, **more}
    file, inputs = Case("Resize", [X[:1, :1]], [None, floats(1, 1, 0.5, 0.3)], attributes).write(tmp_path / "a")
    (wanted,) = ReferenceEvaluator(str(file)).run(None, inputs)
    np.testing.assert_allclose(network_from_onnx(file)(torch.from_numpy(X[:1, :1])).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case("Conv", [X], [random(4, 3, 3, 3)], {"auto_pad": "FOO"}), "its auto_pad is 'FOO'; expected NOTSET"),
        (Case("MaxPool", [X], attributes={"kernel_shape": [2, 2], "auto_pad": "SAME"}), "its auto_pad is 'SAME'"),
        (
            Case("Conv", [X], [random(4, 3, 3, 3)], {"kernel_shape": [5, 5]}),
            r"its kernel_shape is \[5, 5\], and its weight is one of \[3, 3\]",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(case: Case, said: str, tmp_path: Path) -> None:
    file, _ = case.write(tmp_path / "graph.onnx")
    with pytest.raises(ValueError, match=said) as caught:
        network_from_onnx(file)(torch.from_numpy(X))
    assert "\n" not in str(caught.value)


def gru(**more: Any) -> Case:
    weights = [random(1, 12, 5), random(1, 12, 4, seed=1), random(1, 24)]
    return Case("GRU", [random(7, 2, 5)], weights, {"hidden_size": 4, **more}, outputs=2)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (gru(), "a gate before the product"),
        (gru(clip=3.0, linear_before_reset=1), "clipped sums"),
        (gru(activations=["Sigmoid", "Softsign"], linear_before_reset=1), "other activations"),
        (gru(linear_before_reset=1), None),
    ],
)
def test_a_recurrent_layer_of_another_kind_costs_as_much_and_is_told(
    case: Case, said: str | None, tmp_path: Path
) -> None:
    file, inputs = case.write(tmp_path / "graph.onnx")
    network = network_from_onnx(file)
    given, wanted = network(torch.from_numpy(inputs["x0"])), by_runtime(file, inputs)
    assert [tuple(part.shape) for part in given] == [part.shape for part in wanted]
    made = analyze(network, inputs=[torch.from_numpy(inputs["x0"])])
    assert made.macs == 7 * 2 * 12 * (5 + 4)
    told = [remark for remark in made.remarks if "gives other numbers" in remark]
    assert len(told) == (said is not None)
    assert all(said is not None and said in remark for remark in told)


def test_weights_of_layers_of_whole_numbers_are_parameters_and_their_scales_are_not(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.operator == "QLinearConv")
    file, _ = case.write(tmp_path / "graph.onnx")
    made = analyze(network_from_onnx(file))
    assert made.parameters == 4 * 27 + 4
    assert made.macs == 2 * 4 * 27 * 5 * 8
    assert not made.uncounted
    scaled = Case(
        "DequantizeLinear", [(X * 40).astype(np.int8)], [positive(3), np.array([1, -2, 3], np.int8)], {"axis": 1}
    )
    assert not list(network_from_onnx(scaled.write(tmp_path / "b.onnx")[0]).parameters())


@pytest.mark.parametrize("operator", ["LpPool", "AveragePool", "LRN", "Resize"])
def test_what_is_done_in_steps_is_counted_and_has_a_field(operator: str, tmp_path: Path) -> None:
    attributes = {
        "LpPool": {"kernel_shape": [3, 3]},
        "AveragePool": {"kernel_shape": [2, 2], "dilations": [2, 2]},
        "LRN": {"size": 4},
        "Resize": {"mode": "cubic", "cubic_coeff_a": -0.5},
    }
    fixed = [None, floats(1, 1, 2, 2)] if operator == "Resize" else []
    file, _ = Case(operator, [X[:1]], fixed, attributes[operator], opset=19).write(tmp_path / "graph.onnx")
    made = analyze(network_from_onnx(file))
    (layer,) = made.layers
    assert not made.uncounted
    assert layer.flops > 0
    assert layer.field is not None
    assert layer.field.size == {"LpPool": (3, 3), "AveragePool": (3, 3), "LRN": (1, 1), "Resize": (4, 4)}[operator]


@pytest.mark.parametrize("size", [2, 4, 6])
def test_an_even_number_of_channels_is_normalised_over_as_the_standard_has_it(size: int, tmp_path: Path) -> None:
    """ONNX Runtime has odd ones only: here each channel with its (size - 1) / 2 neighbours, the odd one behind."""
    x = random(2, 7, 3, 3)
    file, _ = Case("LRN", [x], attributes={"size": size, "alpha": 0.5, "bias": 2.0}).write(tmp_path / "graph.onnx")
    wanted = np.empty(x.shape)
    for channel in range(7):
        low, high = max(0, channel - (size - 1) // 2), min(7, channel + size // 2 + 1)
        wanted[:, channel] = x[:, channel] / (2 + 0.5 / size * (x[:, low:high] ** 2).sum(1)) ** 0.75
    np.testing.assert_allclose(network_from_onnx(file)(torch.from_numpy(x)).numpy(), wanted, atol=1e-5)
