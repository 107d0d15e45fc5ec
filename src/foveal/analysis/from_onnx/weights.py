"""Which initializers of an ONNX graph are weights: the format itself does not tell them from constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foveal.analysis.from_onnx.names import is_made_up
from foveal.analysis.from_onnx.operators import OPERATORS

LAYERS = {
    "Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "PRelu", "BatchNormalization", "InstanceNormalization",
    "LayerNormalization", "GroupNormalization", "RMSNormalization",
}  # fmt: skip
"""The operators that learn something even where it is a single number."""

WHOLE = {
    ("QLinearConv", 3), ("QLinearConv", 8), ("ConvInteger", 1), ("QLinearMatMul", 3), ("MatMulInteger", 1),
}  # fmt: skip
"""Where operators read the weights of layers of whole numbers, by operator and place."""

SCALES = {("QuantizeLinear", 1), ("DequantizeLinear", 1)}
"""Where they read floats that nobody learned."""

FOLDED_FROM = "pkg.onnxscript.optimizer.folded_from"
KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
"""What torch.onnx notes about some initializers: that it computed them, and whether they were parameters."""


@dataclass
class Weight:
    """An initializer that is data to the layers: learned, or only stored."""

    name: str
    tensor: Tensor
    learned: bool = True
    made_up: bool = False


def weight_of(name: str, array: np.ndarray, uses: Sequence[tuple[str, int]], noted: Mapping[str, str]) -> Weight | None:
    """The weight that an initializer is, or None for a constant.

    Numbers that are no floats are constants, unless layers of whole numbers have them for weights; so are those that
    operators only read as settings or scales, such as the bounds of a Clip. A single float is one unless a layer learns
    it or its name says which layer has it.

    Args:
        name: of the initializer.
        array: its numbers.
        uses: the operators that read it, and as which input.
        noted: what its exporter noted about it.

    Raises:
        ValueError: if PyTorch does not have numbers of its type.
    """
    made_up = is_made_up(name) or FOLDED_FROM in noted
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        return Weight(name, as_tensor(array), made_up=made_up) if uses and WHOLE.issuperset(uses) else None
    if uses and SCALES.issuperset(uses):
        return None
    if uses and all(("", use) in OPERATORS and at in OPERATORS["", use].settings for use, at in uses):
        return None
    lone = array.size == 1 and (made_up or (array.ndim == 0 and "." not in name))
    if lone and noted.get(KIND) != "PARAMETER" and not any(use in LAYERS for use, _ in uses):
        return None
    statistics = bool(uses) and all(use == "BatchNormalization" and at > 2 for use, at in uses)
    learned = not statistics and noted.get(KIND, "PARAMETER") == "PARAMETER"
    return Weight(name, as_tensor(array), learned, made_up)


def as_tensor(array: np.ndarray) -> Tensor:
    """Its own copy of an array's numbers.

    Raises:
        ValueError: if PyTorch does not have numbers of its type.
    """
    array = np.array(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(f"it holds numbers of type {array.dtype}, which PyTorch does not have") from error
