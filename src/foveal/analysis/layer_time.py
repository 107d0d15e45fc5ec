"""How long every operation of a recorded run takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from foveal.analysis.trace import Trace


def node_times(recorded: Trace, inputs: Sequence[Any], *, repeats: int = 5) -> dict[fx.Node, float]:
    """Seconds of each operation, the median of several runs after one that warms up.

    Args:
        recorded: a run.
        inputs: what the network was given, with real numbers.
        repeats: how many runs are measured.
    """
    clock = _Clock(recorded)
    with torch.no_grad():
        clock.run_on(inputs)
        runs = [clock.run_on(inputs) for _ in range(repeats)]
    return {node: statistics.median(run[node] for run in runs) for node in recorded.operations()}


class _Clock(fx.Interpreter):
    def __init__(self, recorded: Trace) -> None:
        super().__init__(recorded.program.graph_module)
        self.recorded = recorded
        self.spent: dict[fx.Node, float] = {}

    def run_on(self, inputs: Sequence[Any]) -> dict[fx.Node, float]:
        given = dict(zip(self.recorded.inputs, inputs, strict=True))
        held = {node: value for node, (_, value) in {**self.recorded.parameters, **self.recorded.buffers}.items()}
        places = [node for node in self.recorded.graph.nodes if node.op == "placeholder"]
        self.spent = {}
        # A placeholder that is in neither is one of a parameter that nothing takes.
        self.run(*(given[node] if node in given else held.get(node) for node in places))
        return self.spent

    def run_node(self, node: fx.Node) -> Any:
        began = time.perf_counter()
        result = super().run_node(node)
        self.spent[node] = time.perf_counter() - began
        return result
