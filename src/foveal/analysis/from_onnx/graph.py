"""Sorts an ONNX graph: what is a weight, what is known, and which nodes are left to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# Importing these fills the table of operators.
import foveal.analysis.from_onnx.layers
import foveal.analysis.from_onnx.pointwise
import foveal.analysis.from_onnx.pooling
import foveal.analysis.from_onnx.quantised
import foveal.analysis.from_onnx.recurrent
import foveal.analysis.from_onnx.resize
import foveal.analysis.from_onnx.shapes
import foveal.analysis.from_onnx.sliding  # noqa: F401 - operators register
from foveal.analysis.from_onnx.file import OnnxFile, array_of, graphs_of, import_onnx, own_domain
from foveal.analysis.from_onnx.known import FOLDED, SIZES, compute, constant
from foveal.analysis.from_onnx.names import SCOPES, is_made_up, layer_of
from foveal.analysis.from_onnx.operators import OPERATORS, Node
from foveal.analysis.from_onnx.weights import Weight, as_tensor, weight_of

VIEWS = {"Cast", "DequantizeLinear", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""What exporters put between a weight and its layer."""


class UnknownOperator(ValueError):
    """The graph has operators that are not in the table.

    Args:
        message: one line.
        operators: (domain, operator, name of the first node) of each.
    """

    def __init__(self, message: str, operators: list[tuple[str, str, str]]) -> None:
        super().__init__(message)
        self.operators = operators


@dataclass
class Graph:
    """A sorted graph.

    Args:
        steps: the nodes that run, in order, each with its protobuf message.
        known: constants and all that follows from them.
        later: names of what follows from the sizes of tensors, so is known when the network runs.
        weights: by the names that nodes read.
        names: other names of values, each with the name to look it up by.
    """

    steps: list[tuple[Node, Any]] = field(default_factory=list)
    known: dict[str, np.ndarray] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)
    weights: dict[str, Weight] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def is_known(self, name: str) -> bool:
        return not name or name in self.known or name in self.later

    def resolved(self, name: str) -> str:
        """The name to look a value up by."""
        while name in self.names:
            name = self.names[name]
        return name


def refuse_unknown(file: OnnxFile, path: object) -> None:
    """Looks at every node before anything runs.

    Raises:
        UnknownOperator: naming all operators that are not in the table.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for proto in _nodes(file.model.graph):
        key = (own_domain(proto.domain), proto.op_type)
        if key not in OPERATORS and (key[0] or key[1] not in {"Constant", "If", *FOLDED}):
            found[key].append(proto.name)
    if found:
        rows = []
        for (domain, operator), names in sorted(found.items()):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            rows.append(f"{operator} (domain {domain or 'ai.onnx'!r}, node {names[0]!r}{more})")
        message = f"{path} has operators that are not known: {'; '.join(rows)}"
        raise UnknownOperator(message, [(*key, names[0]) for key, names in sorted(found.items())])


def sort_graph(file: OnnxFile) -> Graph:
    """Sorts the main graph; branches that are known to be taken become part of it.

    Raises:
        ValueError: for a node whose constants do not fit, or a branch that is chosen by data.
    """
    graph, uses = Graph(), _uses(file.model.graph)
    kinds = {entry.name: {p.key: p.value for p in entry.metadata_props} for entry in file.model.graph.value_info}
    for name, array in file.weights.items():
        _take(graph, name, array, uses[name], kinds.get(name, {}))
    _walk(graph, file, file.model.graph, {}, uses)
    _turn(graph, {graph.resolved(output.name) for output in file.model.graph.output})
    return graph


def _nodes(graph: Any) -> Iterator[Any]:
    for proto in graph.node:
        yield proto
        for inner in graphs_of(proto):
            yield from _nodes(inner)


def _uses(graph: Any) -> dict[str, list[tuple[str, int]]]:
    """For every name the operators that read it, and as which input; through an Identity, those behind it; "" is who
    runs the network."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for output in graph.output:
        found[output.name].append(("", 0))
    for proto in reversed(list(_nodes(graph))):
        for at, name in enumerate(proto.input):
            found[name] += found[proto.output[0]] if proto.op_type == "Identity" else [(proto.op_type, at)]
    return found


def _take(graph: Graph, name: str, array: np.ndarray, uses: list[tuple[str, int]], kind: dict[str, str]) -> None:
    weight = weight_of(name, array, uses, kind)
    if weight is None:
        graph.known[name] = array
    else:
        graph.weights[name] = weight


def _walk(graph: Graph, file: OnnxFile, part: Any, names: dict[str, str], uses: Any) -> None:
    """Enters the nodes of a graph, or of a branch, whose own values have the names that are given."""
    onnx = import_onnx()
    for at, proto in enumerate(part.node):
        reads = tuple(graph.resolved(names.get(name, name)) for name in proto.input)
        node = Node(
            name=proto.name or f"{proto.op_type}_{at}",
            operator=proto.op_type,
            domain=own_domain(proto.domain),
            opset=file.opsets.get(own_domain(proto.domain), 1),
            reads=reads,
            writes=tuple(names.get(name, name) for name in proto.output),
            attributes={a.name: _plain(onnx.helper.get_attribute_value(a)) for a in proto.attribute},
        )
        named = [(at, graph.weights[name]) for at, name in enumerate(reads) if name in graph.weights]
        layers = [(at, weight.name) for at, weight in named if not weight.made_up]
        noted = next((str(entry.value) for entry in proto.metadata_props if entry.key == SCOPES), "")
        node = replace(node, scope=layer_of(node.name, node.operator, layers, noted))
        try:
            if node.operator == "If":
                _branch(graph, file, node, names, uses)
            else:
                _enter(graph, node, proto, uses)
        except ValueError as error:
            raise ValueError(f"the node {node.name!r} ({node.operator}): {error}") from error


def _enter(graph: Graph, node: Node, proto: Any, uses: Any) -> None:
    if (node.domain, node.operator) == ("", "Constant"):
        graph.known[node.writes[0]] = constant(node)
    elif node.operator == "Identity" and node.reads[0] in graph.weights:
        graph.names[node.writes[0]] = node.reads[0]
    elif node.operator in FOLDED and node.domain == "" and all(name in graph.known or not name for name in node.reads):
        try:
            values = compute(node, proto, [graph.known.get(name) for name in node.reads])
        except (ArithmeticError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
            raise ValueError(f"its constants do not fit: {error}") from error
        graph.known.update(zip(node.writes, values, strict=True))
    elif node.operator in SIZES or (node.operator in FOLDED and all(map(graph.is_known, node.reads))):
        graph.later.update(node.writes)
        graph.steps.append((node, proto))
    elif not _is_view(graph, node, uses):
        if (node.domain, node.operator) not in OPERATORS:
            raise ValueError("it works on data here; it is known for constants and sizes only")
        graph.steps.append((node, proto))


def _is_view(graph: Graph, node: Node, uses: Any) -> bool:
    """Whether a node only turns a weight into another form of itself, which then takes its place."""
    if node.operator not in VIEWS or not node.reads:
        return False
    first, *others = node.reads
    stored = graph.known.get(first) if node.operator == "DequantizeLinear" else None
    if stored is not None:  # a quantised weight
        weight = Weight(first, as_tensor(stored), made_up=is_made_up(first))
    elif first in graph.weights:
        weight = graph.weights[first]
    else:
        return False
    constants = all(name in graph.known or name in graph.weights or not name for name in others)
    if not constants or len(uses[first]) != 1 or any(len(uses[name]) != 1 for name in others if name in graph.weights):
        return False
    entry = OPERATORS[node.domain, node.operator]
    given: list[Any] = [weight.tensor]
    for at, name in enumerate(others, 1):
        if name in graph.weights:
            given.append(graph.weights[name].tensor)
        else:
            value = graph.known.get(name)
            given.append(value if value is None or at in entry.settings else as_tensor(value))
    tensor = entry.run(node, *given)
    if not tensor.is_floating_point():
        return False
    for name in node.reads:
        graph.weights.pop(name, None)
    graph.weights[node.writes[0]] = replace(weight, tensor=tensor.contiguous())
    return True


def _branch(graph: Graph, file: OnnxFile, node: Node, names: dict[str, str], uses: Any) -> None:
    condition = graph.known.get(node.reads[0])
    if condition is None:
        raise ValueError("its branch is chosen when the network runs; export the network with fixed sizes")
    part = node.get("then_branch") if bool(condition.reshape(-1)[0]) else node.get("else_branch")
    inside = [name for proto in part.node for name in proto.output if name]
    inside += [tensor.name for tensor in part.initializer]
    own = names | {name: f"{node.writes[0]}/{name}" for name in inside}
    for tensor in part.initializer:
        _take(graph, own[tensor.name], array_of(tensor), uses[tensor.name], {})
    _walk(graph, file, part, own, uses)
    for name, result in zip(node.writes, part.output, strict=True):
        graph.names[name] = graph.resolved(own.get(result.name, result.name))


def _turn(graph: Graph, answers: set[str]) -> None:
    """Stores the right sides of products as a linear layer has them, (columns, rows), so that each runs as one."""
    readers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for at, (node, _) in enumerate(graph.steps):
        for position, name in enumerate(node.reads):
            readers[name].append((at, position))
    for name, weight in graph.weights.items():
        nodes = [(graph.steps[at][0], position) for at, position in readers[name]]
        plain = weight.tensor.ndim == 2 and name not in answers and all(position == 1 for _, position in nodes)
        if plain and nodes and all(n.operator in ("MatMul", "Gemm") and not n.get("transB", 0) for n, _ in nodes):
            weight.tensor = weight.tensor.t().contiguous()
            for at, _ in readers[name]:
                node, proto = graph.steps[at]
                graph.steps[at] = (replace(node, attributes={**node.attributes, "turned": 1}), proto)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float, str)) or hasattr(value, "DESCRIPTOR"):
        return value
    return [_plain(part) for part in value]
