"""Graph convolutions by a given adjacency: its nodes are the cells of all windows of a picture."""

from __future__ import annotations

from typing import Any

from foveal.blocks.graph_conv import over_graph
from foveal.convert.window_maps import Refused, bare, name_of, rule, wrap


@rule(over_graph)
def _over_graph(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, adjacency = args
    if x._kind.space != (2, 3) or any(x._kind.rim):
        raise Refused(f"{name_of(func)} of maps that are padded, or not (B, C, H, W)")
    windows, (_, channels, n, _) = x._look.layout.num_windows, x.shape
    if windows == 1:
        return wrap(over_graph(bare(x), adjacency), x._look, x._kind)
    nodes = bare(x).unflatten(0, (-1, windows)).transpose(1, 2)  # (B, C, K, n, n)
    shared = over_graph(nodes.reshape(-1, channels, windows * n, n), adjacency)
    shared = shared.view(-1, channels, windows, n, n).transpose(1, 2)
    return wrap(shared.reshape(-1, channels, n, n), x._look, x._kind)
