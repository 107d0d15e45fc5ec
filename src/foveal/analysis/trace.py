"""A network as the graph of what it really computes: every operation, functional ones too, in the order of its run.

`torch.export` records the network in evaluation mode on one input. Modules that are never called are not in it, a
module that is called twice is there twice, and an operation that no module stands for is there too.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from foveal.memory import is_out_of_memory


class Untraceable(ValueError):
    """A network whose run cannot be recorded as one graph; the message says where."""


@dataclass(frozen=True)
class Trace:
    """A recorded run.

    Args:
        graph: with a node for every operation; `node.meta["val"]` has the shape and dtype of what it gives.
        inputs: the nodes of what the network was given.
        parameters: the parameter that a node brings to some operation, as (name, tensor).
        buffers: likewise, and tensors that a module holds without saying so or writes down in its `forward`.
        unused: names of the parameters that no operation takes.
        program: what runs the graph on real numbers.
    """

    graph: fx.Graph
    inputs: tuple[fx.Node, ...]
    parameters: dict[fx.Node, tuple[str, Tensor]]
    buffers: dict[fx.Node, tuple[str, Tensor]]
    unused: tuple[str, ...]
    program: Any

    def operations(self) -> list[fx.Node]:
        """All nodes that compute, in order."""
        return [node for node in self.graph.nodes if node.op == "call_function"]


def trace(network: nn.Module, inputs: Sequence[Any]) -> Trace:
    """Records one run of a network in evaluation mode; the network stays as it is.

    But lazy layers take their shapes, and layers that a network makes in its first run are made.

    Args:
        network: any; what is recorded is a copy that has its parameters. One that cannot be copied runs itself, and
            its modules' modes are put back.
        inputs: its positional arguments.

    Raises:
        Untraceable: if the network decides by the numbers in its maps, or fails on these inputs.
        MemoryError: if memory does not suffice; likewise PyTorch's own error that says so.

    Example:
        >>> [node.target.__name__ for node in trace(nn.Conv2d(3, 8, 3), [torch.empty(1, 3, 8, 8)]).operations()]
        ['conv2d.default']
    """
    with _separate_attention(), _quiet():
        try:
            if any(is_lazy(parameter) for parameter in network.parameters()):
                _run(network, inputs)
            program = _recorded(network, inputs)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise Untraceable(_why(network, inputs, error)) from error
    for node in program.graph_module.graph.nodes:
        if not all(isinstance(side, int) for side in shape_of(node)):
            path = layer_of(node)[0] or "the network itself"
            raise Untraceable(f"{_refused(network, inputs)}: {_BY_NUMBERS}, from {operation(node)} in {path} on")
    graph, signature = program.graph_module.graph, program.graph_signature
    state, constants = program.state_dict, program.constants
    parameters, buffers, given, taken = {}, {}, [], set()
    for node in graph.nodes:
        if node.op != "placeholder":
            continue
        name = signature.inputs_to_parameters.get(node.name)
        held = signature.inputs_to_buffers.get(node.name) or signature.inputs_to_lifted_tensor_constants.get(node.name)
        if name is not None:
            if node.users:
                parameters[node] = (name, state[name])
                taken.add(id(state[name]))
        elif held is not None:
            buffers[node] = (held, state[held] if held in state else constants[held])
        elif node.name in signature.user_inputs:
            given.append(node)
    unused = tuple(name for name, value in network.named_parameters() if id(value) not in taken)
    return Trace(graph, tuple(given), parameters, buffers, unused, program)


def layer_of(node: fx.Node) -> tuple[str, str]:
    """Path and type of the innermost module that an operation belongs to; the network's own path is empty."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(stack.values()), ("", ""))
    name = kind if isinstance(kind, str) else kind.__name__
    return str(path).removeprefix("L['self']").lstrip("."), name.rpartition(".")[2]


def operation(node: fx.Node) -> str:
    """What a node does, in one word: `conv2d`, `add`, ..."""
    packet = getattr(node.target, "overloadpacket", node.target)
    name = getattr(packet, "__name__", str(packet))
    space = getattr(node.target, "namespace", "aten")
    return name if space == "aten" else f"{space}.{name}"


def shape_of(node: Any) -> tuple[int, ...]:
    """Of what a node gives; of its first tensor where it gives several."""
    value = value_of(node)
    return () if value is None else tuple(value.shape)


def value_of(node: Any) -> Any:
    """The tensor without numbers that stands for what a node gives; None where it gives none."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else node
    if isinstance(value, list | tuple):
        value = next((part for part in value if isinstance(part, Tensor)), None)
    return value if isinstance(value, Tensor) else None


_BY_NUMBERS = "its shapes depend on the numbers in its maps"


def _recorded(network: nn.Module, inputs: Sequence[Any]) -> Any:
    """The program of one run, after another of a copy: what is worked out once, for all networks, is there then.

    What a network itself works out in its first run and keeps is there only where it cannot be recorded otherwise.
    """
    run = _apart(network)
    before = _leaves(run)
    _run(run, inputs)
    if _parts(run) != _parts(network):  # it makes layers
        _run(network, inputs)
    try:
        return _exported(_apart(network), inputs)
    except Exception as error:
        keeps = list(map(id, before)) != list(map(id, _leaves(run)))
        if is_out_of_memory(error) or not keeps:
            raise
        return _exported(run, inputs)


def _leaves(network: nn.Module) -> list[Any]:
    """All that its modules hold, in lists and dictionaries too."""
    return [value for module in network.modules() for value in tree_leaves(vars(module))]


def _parts(network: nn.Module) -> list[str]:
    """The names of all that it is made of."""
    held = (network.named_modules(), network.named_parameters(), network.named_buffers())
    return [name for each in held for name, _ in each]


def _exported(network: nn.Module, inputs: Sequence[Any]) -> Any:
    with _evaluating(network):
        program = torch.export.export(network, tuple(inputs), strict=False)
    _keep_names(program.graph_module)
    return program.run_decompositions({})


def _run(network: nn.Module, inputs: Sequence[Any]) -> None:
    with torch.no_grad(), _evaluating(network):
        network(*inputs)


def _apart(network: nn.Module) -> nn.Module:
    """A copy that has the same parameters, and all else of its own; the network itself where that cannot be made.

    What modules keep while they evaluate, made from parameters, would stand in the graph as numbers without a source:
    it is gone in those that drop it when they train.
    """
    mine: dict[int, Any] = {id(parameter): parameter for parameter in network.parameters()}
    for value in _leaves(network):
        if isinstance(value, Tensor):  # one that was computed has a history, which `deepcopy` refuses
            mine.setdefault(id(value), value.detach().clone())
    try:
        made = copy.deepcopy(network, mine)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return network
    made.train()
    return made


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _separate_attention() -> Iterator[None]:
    """PyTorch's own attention in its single steps: as one closed step nobody could count it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the graphs that PyTorch prints where one cannot be recorded: what went wrong is told in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*assigned during export")  # of a copy, and dropped with it
            yield
    finally:
        logging.disable(before)


def _keep_names(graph: fx.GraphModule) -> None:
    """Blocks without gradients, or of another precision, are graphs of their own until they become part of this one.

    Run node by node, and not as the code that they are, what is in them keeps the names of its layers.
    """
    for block in graph.modules():
        if block is not graph and isinstance(block, fx.GraphModule):
            block.forward = fx.Interpreter(block).run


def _why(network: nn.Module, inputs: Sequence[Any], error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if _by_numbers(error):
        first = f"{_BY_NUMBERS}, or the way that it takes does (data-dependent)"
    else:
        first = f"{type(error).__name__}: {first[:300]}"
    return f"{_refused(network, inputs)}: {first}"


def _refused(network: nn.Module, inputs: Sequence[Any]) -> str:
    sizes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in inputs)
    return f"{type(network).__name__} cannot be recorded on an input of {sizes}"


def _by_numbers(error: BaseException) -> bool:
    """Whether PyTorch says that a size or a branch would have to be known from numbers that are not there yet."""
    return "data-dependent" in str(error)
