"""Convolutions and pools as a recorded run has them: by module, by function or by a node of an ONNX file, all alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import fx

from foveal.analysis.boxes import argument
from foveal.analysis.count import is_view
from foveal.analysis.operation_kinds import EACH
from foveal.analysis.slide import sides_of
from foveal.analysis.trace import operation, shape_of

Pair = tuple[int, int]

PADS = ("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
UNCHANGED = ("clone", "contiguous", "to", "_to_copy", "alias", "dropout")


@dataclass(frozen=True)
class KernelStep:
    """A kernel that goes over the rows and columns of a map (B, C, H, W).

    Args:
        node: of the graph.
        kind: what the kernel does.
        kernel, stride, dilation: along y and x.
        padding: likewise, on either side; None where PyTorch works it out ("same").
        channels: that go in; likewise `out_channels`.
        groups: of the channels.
        weight: where a convolution's kernel comes from: the parameter, where it is one.
    """

    node: fx.Node
    kind: Literal["conv", "transposed", "pool"]
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair | None
    channels: int
    out_channels: int
    groups: int = 1
    weight: fx.Node | None = None

    @property
    def input(self) -> tuple[int, ...]:
        """Shape of what goes in."""
        return shape_of(self.node.args[0])

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of what comes out."""
        return shape_of(self.node)


def kernel_step(node: fx.Node) -> KernelStep | None:
    """What an operation of a trace is as such a step; None for any other."""
    name = operation(node)
    if name in ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"):
        kernel = _pair(argument(node, 1, "kernel_size"))
        stride = _pair(argument(node, 2, "stride") or kernel)
        dilation = _pair(argument(node, 4, "dilation", 1)) if name.startswith("max") else (1, 1)
        padding, channels = _pair(argument(node, 3, "padding", 0)), shape_of(node)[-3]
        return (
            KernelStep(node, "pool", kernel, stride, dilation, padding, channels, channels) if _is_map(node) else None
        )
    if name == "convolution":
        places = {"stride": 3, "padding": 4, "dilation": 5, "groups": 8}
        transposed = bool(argument(node, 6, "transposed"))
    elif name == "conv2d":
        places = {"stride": 3, "padding": 4, "dilation": 5, "groups": 6}
        transposed = False
    elif name == "conv_transpose2d":
        places = {"stride": 3, "padding": 4, "dilation": 7, "groups": 6}
        transposed = True
    else:
        return None
    weight: Any = argument(node, 1, "weight")
    shape = shape_of(weight)
    if len(shape) != 4 or not _is_map(node):
        return None
    told = {word: argument(node, place, word, 0 if word == "padding" else 1) for word, place in places.items()}
    padding_ = {"valid": (0, 0), "same": None}[told["padding"]] if isinstance(told["padding"], str) else told["padding"]
    taken, given = (shape[0], shape[1] * told["groups"]) if transposed else (shape[1] * told["groups"], shape[0])
    return KernelStep(
        node,
        "transposed" if transposed else "conv",
        (shape[2], shape[3]),
        _pair(told["stride"]),
        _pair(told["dilation"]),
        None if padding_ is None else _pair(padding_),
        taken,
        given,
        told["groups"],
        _source(weight),
    )


def padding_before(node: Any) -> tuple[Pair, Pair]:
    """How many rows in front and behind, and how many columns, steps of padding have put around a map.

    Steps that work number by number may stand between.
    """
    around = [[0, 0], [0, 0]]
    while isinstance(node, fx.Node) and node.op == "call_function":
        if operation(node) in PADS:
            amounts: Any = node.args[1]
            for axis, first in ((1, 0), (0, 2)):  # the last dimension comes first
                pair = amounts[first : first + 2]
                around[axis] = [at + max(0, more) for at, more in zip(around[axis], pair or (0, 0), strict=True)]
            node = node.args[0]
        elif operation(node) in EACH or operation(node) in UNCHANGED:
            same = [part for part in node.all_input_nodes if shape_of(part) == shape_of(node)]
            node = same[0] if len(same) == 1 else None
        else:
            break
    return (around[0][0], around[0][1]), (around[1][0], around[1][1])


def _pair(value: Any) -> Pair:
    down, across = sides_of(value, 2)
    return down, across


def _is_map(node: fx.Node) -> bool:
    return len(shape_of(node.args[0])) == 4


def _source(node: Any) -> Any:
    """The parameter behind views of it."""
    while isinstance(node, fx.Node) and node.op == "call_function" and is_view(node):
        node = node.args[0]
    return node
