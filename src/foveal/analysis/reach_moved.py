"""Receptive fields of operations that only move numbers: they are run on boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from foveal.analysis.boxes import NONE, Reach, argument, finest, fold, gathered, measured, unite
from foveal.analysis.operation_kinds import NEW, words
from foveal.analysis.trace import Trace, operation, shape_of

PLACED = words("index gather index_select embedding take_along_dim scatter index_put index_copy masked_select")
"""What takes places, or leaves them out, as other numbers say."""

UNMOVED = words("sort argsort topk nonzero as_strided one_hot tril triu scatter max_unpool2d max_unpool3d")
"""What would do something else with boxes than with the numbers that they stand for."""

CUTS = words("slice narrow split split_with_sizes unsafe_split chunk unsafe_chunk tensor_split slice_copy")
"""What leaves rows and columns out."""

JOINS = words("cat concat hstack vstack repeat tile")
"""What puts maps side by side: as many pixels from one cell to the next as before."""

_SAME = words(
    "_to_copy to type_as float half bfloat16 dropout feature_dropout alpha_dropout clone contiguous detach alias "
    "lift_fresh_copy"
)
_AS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAME, lambda x, *rest: x),
    **dict.fromkeys(("view", "_unsafe_view"), torch.reshape),  # boxes have no memory along some dimensions
}


class Constants:
    """The numbers that do not depend on what a network is given, worked out where they are asked for."""

    def __init__(self, trace: Trace) -> None:
        self.values: dict[fx.Node, Any] = {node: value for node, (_, value) in trace.buffers.items()}
        self.values |= {node: value for node, (_, value) in trace.parameters.items()}

    def __getitem__(self, node: fx.Node) -> Any:
        """Of a node; KeyError if it depends on what the network is given."""
        if node not in self.values:
            if node.op != "call_function":
                raise KeyError(node)
            args, kwargs = fx.map_arg((node.args, node.kwargs), self.__getitem__)
            self.values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self.values[node]


def moved(node: fx.Node, found: dict[fx.Node, Reach], numbers: Constants) -> Reach | list[Reach] | None:
    """What an operation that only moves numbers makes of boxes; what depends on no pixel brings empty ones."""
    name = operation(node)
    parts = [found[part] for part in node.all_input_nodes if part in found]
    if name in NEW:
        empty = [torch.full((), NONE * (1 - 2 * (place % 2)), dtype=torch.int32) for place in range(4)]
        return gathered([side.expand(shape_of(node)) for side in empty], parts)
    if name in ("masked_fill", "where"):
        return unite(shape_of(node), parts)
    if name in UNMOVED or (name in PLACED and any(part in found for part in _places(node))):
        return None
    results: list[list[Tensor]] = []
    for place in range(4):

        def boxes(part: fx.Node, place: int = place) -> Any:
            if part in found:
                return found[part].box[place]
            value = part.meta.get("val")
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return numbers[part]
            return torch.full((), NONE if place % 2 == 0 else -NONE, dtype=torch.int32).expand(value.shape)

        try:
            args, kwargs = fx.map_arg((node.args, node.kwargs), boxes)
            options = {key: value for key, value in kwargs.items() if key != "dtype"}
            result = _AS.get(name, node.target)(*args, **({} if name in _AS else options))  # type: ignore[operator]
        except (RuntimeError, NotImplementedError, TypeError, KeyError, IndexError):
            return None
        results.append([fold(part) for part in (result if isinstance(result, list | tuple) else [result])])
    made = [gathered([results[place][at] for place in range(4)], parts) for at in range(len(results[0]))]
    if name in CUTS or name in JOINS:
        jump = _cut(node, parts[0]) if name in CUTS else finest(parts)
        made = [replace(one, jump=jump) for one in made]
    else:
        made = [measured(one, parts[0]) for one in made]
    return made if isinstance(node.meta.get("val"), list | tuple) else made[0]


def _cut(node: fx.Node, reach: Reach) -> tuple[float, float]:
    """The jump of every so many rows or columns."""
    jump, places = list(reach.jump), reach.places()
    if operation(node) == "slice" and places is not None and argument(node, 1, "dim", 0) % 4 in places:
        jump[places.index(argument(node, 1, "dim", 0) % 4)] *= argument(node, 4, "step", 1)
    return jump[0], jump[1]


def _places(node: fx.Node) -> list[Any]:
    """What an operation takes places from."""
    at = {"index": [1], "index_put": [1], "embedding": [1], "take_along_dim": [1], "masked_select": [1]}
    listed: list[Any] = []
    for value in [node.args[place] for place in at.get(operation(node), [2])]:
        listed += value if isinstance(value, list | tuple) else [value]
    return listed
