"""What a network costs and what it sees, layer by layer, from the graph of what it really computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import fx, nn

from foveal.analysis.boxes import Reach, emptied, is_empty, thinned
from foveal.analysis.count import bytes_of, cost_of, is_view, moved_bytes
from foveal.analysis.example_inputs import example_inputs, is_channels_last
from foveal.analysis.from_onnx.network import OnnxStep
from foveal.analysis.peak import peak_bytes
from foveal.analysis.reach import reaches
from foveal.analysis.trace import Trace, layer_of, operation, shape_of, trace, value_of


@dataclass(frozen=True)
class Field:
    """What a number of a layer's map can depend on.

    Args:
        size: height and width of the largest box of pixels, padding included.
        jump: pixels from one cell's centre to the next one's, along y and x; None where nobody can say.
        start: the centre of the first cell's box, along y and x; pixel 0 reaches from 0 to 1, so its centre is 0.5.
        padded: the fraction of the cells whose boxes reach beyond the picture.
        whole: whether every cell depends on the whole picture, through attention or a pool over space.
    """

    size: tuple[int, int]
    jump: tuple[float | None, float | None]
    start: tuple[float, float]
    padded: float
    whole: bool


@dataclass(frozen=True)
class Layer:
    """One layer of a run: a module that computes, or what a larger module computes between those inside it.

    Args:
        name: path of the module; empty for the network itself.
        kind: type of the module, or the operations where it is a larger one.
        input: shape of the first tensor that goes in and comes from what the network was given; where none does, of the
            first that is no parameter.
        output: shape of what comes out.
        parameters: that it takes and no earlier layer did.
        macs: multiply-accumulates; likewise `flops`, floating-point operations.
        activation_bytes: of what it writes.
        moved_bytes: that it reads and writes, parameters included.
        field: None where it depends on no pixel, or where nobody can say.
        milliseconds: measured, if it was.
        operations: the graph's, in order.
        blind: whether it depends on no pixel: a table that is made from parameters alone.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    flops: int
    activation_bytes: int
    moved_bytes: int
    field: Field | None
    milliseconds: float | None
    operations: tuple[str, ...]
    blind: bool = False

    @property
    def intensity(self) -> float:
        """FLOPs for each byte that is moved: where a machine could do more in that time, a layer waits for memory."""
        return self.flops / max(1, self.moved_bytes)


@dataclass(frozen=True)
class Analysis:
    """A network on one input.

    Args:
        network: type of the network.
        picture: (B, C, H, W) of its input.
        layers: in the order of its run.
        parameters: that the run uses, each once.
        unused: names of those that it does not.
        buffers: numbers that it keeps besides.
        peak_bytes: the most memory that activations need at once, each freed after its last use.
        uncounted: layers with operations whose cost nobody can say, as "name: operation".
        remarks: in plain words, each with the number behind it.
        unknown: layers that depend on the picture, and nobody can say on what of it.
    """

    network: str
    picture: tuple[int, ...]
    layers: tuple[Layer, ...]
    parameters: int
    unused: dict[str, int]
    buffers: int
    peak_bytes: int
    uncounted: tuple[str, ...]
    remarks: tuple[str, ...] = field(default=())
    unknown: tuple[str, ...] = field(default=())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions, linear layers, matrix products and attention."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations of everything, 2 for each MAC."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Of all that is written, as if nothing were freed: what training keeps, about."""
        return sum(layer.activation_bytes for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain types, for JSON."""
        totals = {"macs": self.macs, "flops": self.flops, "activation_bytes": self.activation_bytes}
        rows = [asdict(layer) | {"intensity": layer.intensity} for layer in self.layers]
        return {**asdict(self), "layers": rows, "totals": {"parameters": self.parameters, **totals}}


def analyze(
    network: nn.Module,
    size: int | Sequence[int] | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    time: bool = False,
) -> Analysis:
    """Counts what a network costs and finds what each of its layers sees.

    Args:
        network: that takes a picture (B, C, H, W) first.
        size: height and width of the picture, or one number for both; by default 224, or what an ONNX file says.
        inputs: what the network takes instead, its positional arguments.
        time: also run it, and measure every layer.

    Raises:
        Untraceable: if the network's run cannot be recorded.
        ValueError: for an impossible size, or a network that takes no picture; see `example_inputs`.

    Example:
        >>> analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), 32).macs
        194400
    """
    given = list(inputs) if inputs is not None else example_inputs(network, size)
    return from_trace(network, trace(network, given), given if time else None)


def from_trace(network: nn.Module, recorded: Trace, inputs: Sequence[Any] | None = None) -> Analysis:
    """The same of a run that is recorded already; with inputs it is measured."""
    from foveal.analysis.remarks import remarks_on
    from foveal.analysis.replay import node_times

    picture = shape_of(recorded.inputs[0])
    found = reaches(recorded) if len(picture) == 4 and not is_channels_last(network) else {}
    seconds = node_times(recorded, inputs) if inputs is not None else {}
    groups = groups_of(recorded)
    of_picture, of_inputs = _that_depend(recorded, recorded.inputs[:1]), _that_depend(recorded, recorded.inputs)
    layers, counted, uncounted = [], set(), []
    for group in groups:
        costs = [cost_of(node) for node in group]
        name, _ = layer_of(group[0])
        own = [source for node in group for part in node.all_input_nodes for source in _parameters(part, recorded)]
        new = {id(parameter): parameter.numel() for parameter in own}
        fresh = {key: many for key, many in new.items() if key not in counted}
        counted |= set(fresh)
        words = [operation(node) for node in group if operation(node) != "getitem"]
        unknown = [operation(node) for node, cost in zip(group, costs, strict=True) if not cost.known]
        uncounted += [f"{name or 'the network'}: {op}" for op in unknown]
        does = [node for node in group if not is_view(node)]
        taken = [part for node in group for part in node.all_input_nodes if part not in group]
        made = [part for part in taken if not _parameters(part, recorded)]
        reach, last = found.get(group[-1]), group[-1]
        layers.append(
            Layer(
                name=name,
                kind=_kind(network, group, does),
                input=shape_of(next((part for part in taken if part in of_inputs), made[0] if made else None)),
                output=shape_of(last),
                parameters=sum(fresh.values()),
                macs=sum(cost.macs for cost in costs),
                flops=sum(cost.flops for cost in costs),
                activation_bytes=sum(bytes_of(node) for node in does),
                moved_bytes=sum(moved_bytes(node) for node in does),
                field=_field(reach, picture),
                milliseconds=1e3 * sum(seconds[node] for node in group) if seconds else None,
                operations=tuple(words),
                blind=len(picture) == 4 and (last not in of_picture or (reach is not None and is_empty(reach))),
            )
        )
    unused = {name: parameter.numel() for name, parameter in network.named_parameters() if name in recorded.unused}
    used = {id(parameter): parameter.numel() for _, parameter in recorded.parameters.values()}
    whole = Analysis(
        network=type(network).__name__,
        picture=picture,
        layers=tuple(layers),
        parameters=sum(used.values()),
        unused=unused,
        buffers=sum(buffer.numel() for buffer in network.buffers()),
        peak_bytes=peak_bytes(recorded),
        uncounted=tuple(dict.fromkeys(uncounted)),
        unknown=tuple(dict.fromkeys(layer_of(nodes[-1])[0] for nodes in groups if _is_unknown(found.get(nodes[-1])))),
    )
    remarks = [*remarks_on(whole, groups, found), *_approximations(network)]
    return Analysis(**{**whole.__dict__, "remarks": tuple(remarks)})


def _approximations(network: nn.Module) -> Iterator[str]:
    """Nodes of an ONNX file that PyTorch does in another way."""
    for path, module in network.named_modules():
        how = module.approximation() if isinstance(module, OnnxStep) else None
        if how is not None:
            yield f"{path} {how}: it costs as much, and gives other numbers."


def groups_of(recorded: Trace) -> list[list[fx.Node]]:
    """Operations that follow each other in the same layer; views of memory alone are no layer."""
    groups: list[list[fx.Node]] = []
    last: Any = None
    for node in recorded.operations():
        if value_of(node) is None:
            continue
        here = layer_of(node)
        if groups and here == last:
            groups[-1].append(node)
        else:
            groups.append([node])
        last = here
    return [group for group in groups if not all(is_view(node) for node in group)]


def _parameters(node: fx.Node, recorded: Trace) -> list[torch.Tensor]:
    """The parameters that a node is, or shows in another way."""
    if node in recorded.parameters:
        return [recorded.parameters[node][1]]
    if node.op != "call_function" or not is_view(node):
        return []
    return [parameter for part in node.all_input_nodes for parameter in _parameters(part, recorded)]


def _kind(network: nn.Module, group: list[fx.Node], does: list[fx.Node]) -> str:
    """The type of a module that computes alone, an ONNX node's operator, or else what is done."""
    path, kind = layer_of(group[0])
    try:
        module = network.get_submodule(path)
    except AttributeError:
        return kind
    if isinstance(module, OnnxStep):
        return module.node.operator
    if path and not any(True for _ in module.children()):
        return kind
    return " + ".join(dict.fromkeys(operation(node) for node in does))


def _is_unknown(reach: Reach | None) -> bool:
    return reach is not None and not reach.known


def _that_depend(recorded: Trace, sources: Sequence[fx.Node]) -> set[fx.Node]:
    """All nodes that depend on some, these included."""
    found = set(sources)
    for node in recorded.operations():
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _field(reach: Reach | None, picture: tuple[int, ...]) -> Field | None:
    if reach is None or not reach.known or is_empty(reach):
        return None
    together = emptied(reach.together())
    first = together.at(*[0] * len(together.shape))
    top, bottom, left, right = (thinned(side) for side in together.box)
    height, width = picture[-2:]
    beyond = (top < 0) | (bottom >= height) | (left < 0) | (right >= width)
    start = ((first[0] + first[1] + 1) / 2, (first[2] + first[3] + 1) / 2)
    whole = sees_all(reach, picture)
    jump = tuple(None if math.isnan(step) else step for step in reach.jump)
    return Field(reach.field(), (jump[0], jump[1]), start, float(beyond.float().mean()), whole)


def sees_all(reach: Reach, picture: tuple[int, ...]) -> bool:
    """Whether all numbers of a map depend on the whole picture, through steps that take places together."""
    top, bottom, left, right = (thinned(side) for side in reach.together().box)
    height, width = picture[-2:]
    inside = (top.amax() <= 0) & (bottom.amin() >= height - 1) & (left.amax() <= 0) & (right.amin() >= width - 1)
    return reach.whole and bool(inside)
