"""How much memory the activations of a run need at once."""

from __future__ import annotations

from torch import fx

from foveal.analysis.count import bytes_of, is_view
from foveal.analysis.trace import Trace


def peak_bytes(recorded: Trace) -> int:
    """The most bytes of activations at once, when each is freed after what takes it last, views of it included.

    What the network is given is held throughout, and what it returns to the end.
    """
    nodes, given = recorded.operations(), [node for node in recorded.graph.nodes if node.op != "call_function"]
    root: dict[fx.Node, fx.Node] = {node: node for node in given}
    last: dict[fx.Node, int] = {}
    for place, node in enumerate(nodes):
        root[node] = root[node.all_input_nodes[0]] if is_view(node) and node.all_input_nodes else node
        for part in node.all_input_nodes:
            last[root[part]] = place
    for node in recorded.graph.output_node().all_input_nodes:
        last[root[node]] = len(nodes)
    gone: dict[int, int] = {}
    for place, node in enumerate(nodes):
        if root[node] is node:
            gone[last.get(node, place)] = gone.get(last.get(node, place), 0) + bytes_of(node)
    live = peak = sum(bytes_of(node) for node in recorded.inputs)
    for place, node in enumerate(nodes):
        live += bytes_of(node) if root[node] is node else 0
        peak = max(peak, live)
        live -= gone.get(place, 0)
    return peak
