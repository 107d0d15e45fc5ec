"""The table of ONNX's operators as functions of PyTorch, which the modules beside fill.

Each follows onnx.ai/onnx/operators, from operator set 7 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""PyTorch's type of each number in `onnx.TensorProto.DataType` that it has."""


@dataclass(frozen=True)
class Node:
    """A node of the graph, as its function sees it."""

    name: str
    operator: str
    domain: str
    opset: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    scope: str = ""

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.attributes.get(attribute, default)

    def wants(self, output: int) -> bool:
        """Whether the graph has a name for that output."""
        return len(self.writes) > output and bool(self.writes[output])


@dataclass(frozen=True)
class Operator:
    """How to run the nodes of one operator.

    Args:
        run: takes the node and its inputs: tensors, or None where one is left out.
        settings: the inputs that are no data, such as the shape of a Reshape; known ones come as NumPy arrays.
        numbers: whether a known single number comes as a Python number.
        approximates: what of a node is run in another way, at the same cost; None if nothing.
    """

    run: Callable[..., Any]
    settings: frozenset[int]
    numbers: bool
    approximates: Callable[[Node], str | None]


OPERATORS: dict[tuple[str, str], Operator] = {}
"""By domain ("" is ONNX's own) and name."""


def operator(
    *names: str,
    settings: Sequence[int] = (),
    numbers: bool = False,
    domain: str = "",
    approximates: Callable[[Node], str | None] = lambda node: None,
) -> Any:
    """Enters a function `run(node, *inputs)` in the table, under one or several names."""

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATORS[domain, name] = Operator(run, frozenset(settings), numbers, approximates)
        return run

    return enter


def integers(value: Any, what: str) -> list[int]:
    """A setting as a list of whole numbers.

    Raises:
        ValueError: if it is computed from data.
    """
    if isinstance(value, Tensor):
        raise ValueError(f"its {what} are computed from data; only constants and sizes of tensors can be followed")
    return [int(number) for number in np.asarray(value).reshape(-1)]


def setting(node: Node, attribute: str, value: Any) -> list[int] | None:
    """What newer operator sets take as an input and older ones as an attribute; None if it is left out."""
    value = node.get(attribute) if value is None else value
    return None if value is None else integers(value, attribute)
