"""What of an ONNX graph is known without data: constants, sizes of tensors, and all that is computed from these alone.

Exporters write shapes as Shape -> Gather -> Concat -> Reshape. Here such values are NumPy arrays that onnx's own
reference computes, so none of it reaches PyTorch, and an export of the network has no step that depends on data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from foveal.analysis.from_onnx.file import array_of, import_onnx
from foveal.analysis.from_onnx.operators import Node

LARGEST = 1 << 24
"""Numbers in a value that is computed from constants: a few bytes of a file could ask for any number of them."""

SIZES = ("Shape", "Size")

FOLDED = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "CumSum", "Div",
    "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape",
    "Round", "ScatterND", "Shape", "Sign", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
"""The operators that are computed at once where all their inputs are known."""


def constant(node: Node) -> np.ndarray:
    """The value of a Constant.

    Raises:
        ValueError: if it is of a kind that is not read.
    """
    given = node.attributes
    if "value" in given:
        return array_of(given["value"])
    for kind, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for name in (kind, f"{kind}s"):
            if name in given:
                return np.asarray(given[name], dtype=dtype)
    raise ValueError(f"it is a constant by {', '.join(given) or 'nothing'}, which is not read")


def compute(node: Node, proto: Any, values: Sequence[Any]) -> list[np.ndarray]:
    """Computes a node's outputs from known inputs, or from the size of a tensor.

    Raises:
        ValueError: if the result would be too large, or the node does not fit its inputs.
    """
    if node.operator in SIZES:
        shape = [int(side) for side in values[0].shape]
        if node.operator == "Size":
            return [np.array(math.prod(shape), dtype=np.int64)]
        return [np.array(shape[slice(node.get("start", 0), node.get("end"))], dtype=np.int64)]
    numbers = _numbers(node, values)
    if numbers > LARGEST:
        raise ValueError(f"it makes a constant of {numbers:,} numbers; expected {LARGEST:,} at most")
    onnx = import_onnx()
    from onnx.reference import ReferenceEvaluator

    inner = onnx.NodeProto()
    inner.CopyFrom(proto)
    del inner.input[:], inner.output[:]
    inner.input.extend(f"in{at}" if value is not None else "" for at, value in enumerate(values))
    inner.output.extend(f"out{at}" if name else "" for at, name in enumerate(node.writes))
    names = [[name for name in side if name] for side in (inner.input, inner.output)]
    function = onnx.helper.make_function("", "known", *names, [inner], [onnx.helper.make_opsetid("", node.opset)])
    given = {f"in{at}": value for at, value in enumerate(values) if value is not None}
    results = iter(ReferenceEvaluator(function).run(None, given, {}))
    return [np.asarray(next(results)) if name else np.empty(0) for name in node.writes]


def _numbers(node: Node, values: Sequence[Any]) -> int:
    """How many numbers the result has, at most."""
    arrays = [np.asarray(value) for value in values if value is not None]
    if node.operator == "ConstantOfShape":
        return math.prod(int(side) for side in arrays[0].reshape(-1))
    if node.operator == "Range":
        start, limit, step = (float(array.item()) for array in arrays)
        return math.ceil(max(0.0, (limit - start) / step)) if step else 0
    if node.operator == "Tile":
        return arrays[0].size * math.prod(int(times) for times in arrays[1].reshape(-1))
    if node.operator == "Expand":
        return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(int(side) for side in arrays[1].reshape(-1))))
    if node.operator in ("Gather", "GatherND"):
        axis = node.get("axis", 0)
        side = arrays[0].shape[axis] if -arrays[0].ndim <= axis < arrays[0].ndim else 1
        return arrays[1].size * arrays[0].size // max(1, side)
    try:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    except ValueError:
        return sum(array.size for array in arrays)
