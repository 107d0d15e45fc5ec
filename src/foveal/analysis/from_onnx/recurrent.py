"""ONNX's recurrent layers by PyTorch's kernels, which do their matrices, and the usual gates, alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, operator

ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where PyTorch's gates stand in ONNX's: its LSTM has i, f, c, o, not i, o, f, c, and its GRU r, z, h, not z, r, h."""

USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def approximation(node: Node) -> str | None:
    """What of a recurrent layer PyTorch's kernel does in another way, at the same cost; None if nothing."""
    given = {at for at, name in enumerate(node.reads) if name}
    directions = 2 if node.get("direction") == "bidirectional" else 1
    activations = list(node.get("activations") or [])
    known = [USUAL[node.operator] * directions] + [["Relu"] * directions] * (node.operator == "RNN")
    parts = [
        ("other activations", bool(activations) and activations not in known),
        ("clipped sums", bool(node.get("clip", 0.0))),
        ("a forget gate that is coupled", bool(node.get("input_forget", 0))),
        ("peepholes", 7 in given),
        ("sequences of unlike length", 4 in given),
        ("a gate before the product", node.operator == "GRU" and not node.get("linear_before_reset", 0)),
    ]
    has = [words for words, there in parts if there]
    return f"has {' and '.join(has)}, and is run as PyTorch's {node.operator}, which has not" if has else None


@operator("LSTM", "GRU", "RNN", settings=(4,), approximates=approximation)
def _recurrent(
    node: Node,
    x: Tensor,
    weight: Tensor,
    again: Tensor,
    bias: Tensor | None = None,
    lengths: Any = None,
    state: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    batch_first, directions, hidden = bool(node.get("layout", 0)), weight.shape[0], again.shape[-1]
    backwards = node.get("direction", "forward") == "reverse"
    x = x.transpose(0, 1) if batch_first else x
    x = x.flip(0) if backwards else x
    parameters = []
    for way in range(directions):
        biases = [] if bias is None else bias[way].chunk(2)
        parameters += [_in_order(node, matrix) for matrix in (weight[way], again[way], *biases)]
    zeros = x.new_zeros(directions, x.shape[1], hidden)
    states = [zeros if one is None else one.transpose(0, 1) if batch_first else one for one in (state, cell)]
    options = (parameters, bias is not None, 1, 0.0, False, directions == 2, False)
    results: tuple[Tensor, ...]
    if node.operator == "LSTM":
        results = torch.lstm(x, states, *options)
    elif node.operator == "GRU":
        results = torch.gru(x, states[0], *options)
    elif "Relu" in (node.get("activations") or []):
        results = torch.rnn_relu(x, states[0], *options)
    else:
        results = torch.rnn_tanh(x, states[0], *options)
    every, *last = results
    every = every.flip(0) if backwards else every
    every = every.unflatten(-1, (directions, hidden))
    if batch_first:
        return every.transpose(0, 1), *(one.transpose(0, 1) for one in last)
    return every.transpose(1, 2), *last


def _in_order(node: Node, matrix: Tensor) -> Tensor:
    order = ORDERS[node.operator]
    gates = matrix.chunk(len(order))
    return torch.cat([gates[at] for at in order]) if len(order) > 1 else matrix
