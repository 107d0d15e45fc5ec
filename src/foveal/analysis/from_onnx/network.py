"""An ONNX file as a network of PyTorch, that can be exported and taken apart as any other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveal.analysis.from_onnx.file import check, read_onnx
from foveal.analysis.from_onnx.graph import Graph, UnknownOperator, refuse_unknown, sort_graph
from foveal.analysis.from_onnx.known import compute
from foveal.analysis.from_onnx.names import ROLES, put
from foveal.analysis.from_onnx.operators import DTYPES, OPERATORS, Node
from foveal.analysis.from_onnx.weights import Weight, as_tensor

__all__ = ["OnnxNetwork", "OnnxStep", "UnknownOperator", "network_from_onnx"]

LONGEST = 64
"""Numbers in a list of places that is passed as it is; longer ones, index tables, are stored with the network."""


def network_from_onnx(path: str | os.PathLike[str]) -> OnnxNetwork:
    """Reads an ONNX file as a network that runs its graph by PyTorch's functions, one a node wherever there is one.

    Learned weights are its parameters and keep their names ("layer1.0.conv1.weight"); where the exporter numbered them
    through, they are called after the layer of the node that reads them. A stored right side of a product is held
    turned, as `nn.Linear` holds it. What the exporter merged stays merged: batch norms that were folded into
    convolutions are gone, and the convolution has a bias instead. Single numbers, index tables and shape arithmetic are
    constants. Every node is a module of its own, under its layer and with its own name
    (`layer1.0.conv1.node_conv2d_3`).

    The file is only read: nothing in it can run, and weights in other files are taken from beside it alone.

    Args:
        path: of an .onnx file, of operator set 7 or newer.

    Returns:
        The network, in evaluation mode; for its inputs see `OnnxNetwork`.

    Raises:
        ValueError: for a file that is missing, no ONNX file, hurt, or whose weights are not beside it.
        UnknownOperator: a ValueError that names all operators that cannot be run.
        ImportError: if `onnx` is missing.

    Example:
        >>> network_from_onnx("resnet18.onnx").input_shape  # doctest: +SKIP
        (None, 3, 224, 224)
    """
    file = read_onnx(path)
    refuse_unknown(file, path)
    check(file, path)
    try:
        return OnnxNetwork(file.model.graph, sort_graph(file), os.fspath(path))
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from error


class OnnxNetwork(nn.Module):
    """A network that runs the graph of an ONNX file.

    Takes as many tensors as the graph has inputs, in their order, and returns its output, or a tuple of them. Sizes of
    tensors are read as numbers, so that an export of it has the sizes of its example.

    Attributes:
        inputs: name -> shape of each input, None for sizes that the file leaves open, or instead of the whole shape.
        input_dtypes: name -> type of each input.
        input_name: of the first input; likewise `input_shape` and `input_dtype`.
        outputs: names.
        nodes: path of each module that runs a node -> the node's name in the file.
    """

    def __init__(self, proto: Any, graph: Graph, path: str) -> None:
        super().__init__()
        self.path = path
        self.inputs, dtypes = _inputs(proto, graph)
        self.input_name = next(iter(self.inputs))
        self.input_dtypes = dict(zip(self.inputs, dtypes, strict=True))
        self.input_shape, self.input_dtype = self.inputs[self.input_name], dtypes[0]
        self.outputs = [entry.name for entry in proto.output]
        self.nodes: dict[str, str] = {}
        self._read_from = [graph.resolved(name) for name in self.outputs]
        self._known = graph.known
        self._paths: dict[str, str] = {}  # of weights and stored constants, by the names that nodes read
        self._counts: dict[str, int] = {}
        for name, weight in graph.weights.items():
            if not weight.made_up:
                self._store(name, [weight.name], weight)
        self._steps: list[OnnxStep | _Sizes] = [self._step(node, message, graph) for node, message in graph.steps]
        for name, weight in graph.weights.items():  # what no node reads is part of the file too, maybe of its answer
            if name not in self._paths:
                self._store(name, [weight.name], weight)
        self._refuse_undefined()
        last = {name: at for at, step in enumerate(self._steps) for name in step.node.reads}
        self._drop = [[n for n in step.node.reads if last[n] == at] for at, step in enumerate(self._steps)]
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """Raises: ValueError: if the number of inputs is not the graph's, or a node does not fit what it is given."""
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"{self.path} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}); {len(inputs)} given"
            )
        values: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        for step, drop in zip(self._steps, self._drop, strict=True):
            given = [self._value(name, values, at in step.settings) for at, name in enumerate(step.node.reads)]
            try:
                results = step(*given)
            except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(self._explained(step.node, given, error, inputs)) from error
            values.update(zip(step.node.writes, results, strict=False))
            for name in drop:
                if name not in self._read_from:
                    values.pop(name, None)
        results = [self._value(name, values, False) for name in self._read_from]
        tensors = [value if isinstance(value, Tensor) else torch.as_tensor(value) for value in results]
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def _value(self, name: str, values: dict[str, Any], setting: bool) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._known and (setting or name not in self._paths):
            return self._known[name]
        return attrgetter(self._paths[name])(self)

    def _explained(self, node: Node, given: Sequence[Any], error: Exception, inputs: Sequence[Tensor]) -> str:
        shapes = ", ".join(str(tuple(value.shape)) if hasattr(value, "shape") else "-" for value in given)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        wants = ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())
        got = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        return (
            f"{self.path}: the node {node.name!r} ({node.operator}) does not run on {shapes}: {line}; "
            f"the file's input is {wants}, given was {got}"
        )

    def _step(self, node: Node, message: Any, graph: Graph) -> OnnxStep | _Sizes:
        if all(not name or name in graph.later for name in node.writes):
            return _Sizes(node, message)
        step = OnnxStep(node, graph.known)
        own = node.name.rstrip("/").rpartition("/")[2]
        path = put(self, [node.scope, own], step, self._counts)
        self.nodes[path] = node.name
        for at, name in enumerate(node.reads):
            if name in self._paths:
                continue
            if name in graph.weights:
                weight = graph.weights[name]
                role = "bias" if node.operator == "Add" else ROLES.get(at, "weight")
                readable = not node.scope and re.search(r"[A-Za-z]", weight.name) and "::" not in weight.name
                self._store(name, [weight.name] if readable else [node.scope or path, role], weight)
            elif at not in step.settings and name in graph.known and graph.known[name].size > 1:
                table = Weight(name, as_tensor(graph.known[name]), learned=False)
                self._store(name, [path, f"constant_{at}"], table)
        return step

    def _refuse_undefined(self) -> None:
        defined = {"", *self.inputs, *self._known, *self._paths}
        for node in (step.node for step in self._steps):
            if not defined.issuperset(node.reads):
                raise ValueError(f"the node {node.name!r} reads {set(node.reads) - defined}, which nothing makes")
            defined.update(node.writes)
        if not defined.issuperset(self._read_from):
            raise ValueError(f"its outputs {set(self._read_from) - defined} are made by nothing")

    def _store(self, name: str, pieces: list[str], weight: Weight) -> None:
        value = weight.tensor
        if weight.learned:
            value = nn.Parameter(value, requires_grad=value.is_floating_point())
        self._paths[name] = put(self, pieces, value, self._counts)


class OnnxStep(nn.Module):
    """One node, as a module, so that an export tells what it ran for it."""

    def __init__(self, node: Node, known: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.node = node
        self.settings = OPERATORS[node.domain, node.operator].settings
        if node.operator == "Gather" and node.reads[1] in known and known[node.reads[1]].size > LONGEST:
            self.settings = frozenset()

    def forward(self, *values: Any) -> tuple[Any, ...]:
        entry = OPERATORS[self.node.domain, self.node.operator]
        data = [value for at, value in enumerate(values) if at not in self.settings and isinstance(value, Tensor)]
        ranks = [value.ndim for value in data if value.dtype != torch.bool]
        device = data[0].device if data else None

        def passed(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if entry.numbers and value.size == 1 and value.ndim <= max(ranks, default=-1):
                return value.item()
            tensor = as_tensor(value)
            return tensor if device in (None, tensor.device) else tensor.to(device)

        given = [value if at in self.settings else passed(value) for at, value in enumerate(values)]
        result = entry.run(self.node, *given)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def approximation(self) -> str | None:
        """What of the node is run in another way, at the same cost; None if nothing."""
        return OPERATORS[self.node.domain, self.node.operator].approximates(self.node)

    def extra_repr(self) -> str:
        return f"{self.node.operator}, {self.node.name!r}"


class _Sizes:
    """A node that computes with sizes of tensors, which needs no data."""

    def __init__(self, node: Node, message: Any) -> None:
        self.node, self.message = node, message
        self.settings = frozenset(range(len(node.reads)))

    def __call__(self, *values: Any) -> list[np.ndarray]:
        return compute(self.node, self.message, values)


def _inputs(proto: Any, graph: Graph) -> tuple[dict[str, tuple[int | None, ...] | None], list[Any]]:
    """Shapes and types of the inputs that are no weights."""
    shapes: dict[str, tuple[int | None, ...] | None] = {}
    dtypes = []
    for entry in proto.input:
        if entry.name in graph.weights or entry.name in graph.known:
            continue
        kind = entry.type.tensor_type
        if not entry.type.HasField("tensor_type") or kind.elem_type not in DTYPES:
            raise ValueError(f"its input {entry.name!r} is no tensor of numbers that PyTorch has")
        sides = [
            side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in kind.shape.dim
        ]
        shapes[entry.name] = tuple(sides) if kind.HasField("shape") else None
        dtypes.append(DTYPES[kind.elem_type])
    if not shapes:
        raise ValueError("the graph has no input")
    return shapes, dtypes
