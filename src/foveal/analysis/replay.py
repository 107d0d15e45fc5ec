"""A recorded run on real numbers: what each operation gives, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from foveal.analysis.trace import Trace


def replay(
    recorded: Trace,
    inputs: Sequence[Any],
    keep: Collection[fx.Node],
    instead: Mapping[fx.Node, Tensor] | None = None,
) -> dict[fx.Node, Tensor]:
    """Runs it, with gradients as far as the inputs and parameters ask for them.

    Args:
        recorded: a run.
        inputs: of the shapes that it was recorded with.
        keep: the nodes whose results are wanted.
        instead: of some parameters' own values.
    """
    runner = _Runner(recorded, keep, instead)
    runner.run_on(inputs)
    return runner.kept


def node_times(recorded: Trace, inputs: Sequence[Any], *, repeats: int = 5) -> dict[fx.Node, float]:
    """Seconds of each operation, the median of several runs after one that warms up.

    Args:
        recorded: a run.
        inputs: of the shapes that it was recorded with.
        repeats: how many runs are measured.
    """
    runner = _Runner(recorded)
    with torch.no_grad():
        runner.run_on(inputs)
        runs = [dict(runner.run_on(inputs)) for _ in range(repeats)]
    return {node: statistics.median(run[node] for run in runs) for node in recorded.operations()}


class _Runner(fx.Interpreter):
    def __init__(
        self, recorded: Trace, keep: Collection[fx.Node] = (), instead: Mapping[fx.Node, Tensor] | None = None
    ) -> None:
        super().__init__(recorded.program.graph_module)
        self.recorded, self.keep, self.instead = recorded, set(keep), instead or {}
        self.spent: dict[fx.Node, float] = {}
        self.kept: dict[fx.Node, Tensor] = {}

    def run_on(self, inputs: Sequence[Any]) -> dict[fx.Node, float]:
        numbers = [leaf for leaf in tree_leaves(tuple(inputs)) if isinstance(leaf, Tensor)]
        given = dict(zip(self.recorded.inputs, numbers, strict=True))
        held = {node: value for node, (_, value) in {**self.recorded.parameters, **self.recorded.buffers}.items()}
        held.update(self.instead)
        places = [node for node in self.recorded.graph.nodes if node.op == "placeholder"]
        # A placeholder that is in neither is that of a parameter which nothing takes.
        self.run(*(given[node] if node in given else held.get(node) for node in places))
        return self.spent

    def run_node(self, node: fx.Node) -> Any:
        began = time.perf_counter()
        result = super().run_node(node)
        self.spent[node] = time.perf_counter() - began
        if node in self.keep:
            self.kept[node] = result
        return result
