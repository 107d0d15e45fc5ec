"""Which pixels each number of a map depends on: the receptive field, by running a network on boxes instead of numbers.

Every number carries the box of pixels that it can depend on, as four tensors of its map's shape: the first and last row
and column. An operation that only moves numbers moves boxes; one that joins numbers joins their boxes; attention and
means over space join them all. So branches, residuals, dilation, shifted windows and functional calls need no rules of
their own (Araujo et al. 2019 give the arithmetic for chains).

By default boxes go on beyond the picture, as if padding were more of it: so a ResNet-18's last map has a field of 435
pixels, whatever the picture. With `beyond=False` padding is nothing, and boxes hold the pixels that are really there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from foveal.analysis import reach_over_space, reach_together  # noqa: F401 - their rules register
from foveal.analysis.boxes import NONE, RULES, Reach, fold, gathered, join_all, rule, unite
from foveal.analysis.count import EACH, MOVES, VIEWS
from foveal.analysis.trace import Trace, operation, shape_of


def reaches(trace: Trace, *, beyond: bool = True) -> dict[fx.Node, Reach]:
    """The boxes of every map that depends on the picture, the first input of a recorded run.

    Args:
        trace: of a network whose first input is (B, C, H, W).
        beyond: whether boxes go on beyond the picture.

    Example:
        >>> from foveal.analysis.trace import trace
        >>> recorded = trace(torch.nn.Conv2d(3, 8, 7, stride=2, padding=3), [torch.empty(1, 3, 32, 32)])
        >>> reach = reaches(recorded)[recorded.operations()[-1]]
        >>> reach.at(0, 0, 8, 8), reach.jump
        ((13, 19, 13, 19), (2.0, 2.0))
    """
    shape = shape_of(trace.inputs[0])
    rows = torch.arange(shape[-2], dtype=torch.int32)[:, None].expand(shape)
    columns = torch.arange(shape[-1], dtype=torch.int32).expand(shape)
    found = {trace.inputs[0]: Reach((rows, rows, columns, columns), (1.0, 1.0), beyond=beyond)}
    several: dict[fx.Node, list[Reach]] = {}
    numbers = {node: value for node, (_, value) in trace.buffers.items()}
    for node in trace.operations():
        if operation(node) == "getitem":
            source, place = node.args
            parts = several.get(source)  # type: ignore[arg-type]
            if parts is not None:
                found[node] = parts[place]  # type: ignore[index]
            elif source in found and shape_of(node) == found[source].shape:  # type: ignore[index]
                found[node] = found[source]  # type: ignore[index]
            continue
        if not any(part in found or part in several for part in node.all_input_nodes):
            continue
        results = _step(node, found, numbers)
        if isinstance(results, list):
            several[node] = results
        else:
            found[node] = results
    return found


def _step(node: fx.Node, found: dict[fx.Node, Reach], numbers: dict[fx.Node, Tensor]) -> Any:
    name = operation(node)
    taken = [found[part] for part in node.all_input_nodes if part in found]
    if name in RULES:
        made = RULES[name](node, found)
    elif name in VIEWS or name in MOVES:
        made = _moved(node, found, numbers)
    elif name in EACH:
        made = unite(shape_of(node), taken)
    else:
        made = None
    if made is None:  # not known: told, and taken for all that there is
        whole = join_all(shape_of(node), taken)
        return replace(whole, whole=True, known=False)
    return made


def _moved(node: fx.Node, found: dict[fx.Node, Reach], numbers: dict[fx.Node, Tensor]) -> Reach | list[Reach] | None:
    """An operation that only moves numbers, run on boxes; what depends on no pixel brings empty ones."""
    parts = [found[part] for part in node.all_input_nodes if part in found]
    if operation(node) in ("masked_fill", "where"):
        return unite(shape_of(node), parts)
    results: list[list[Tensor]] = []
    for place in range(4):
        empty = NONE if place % 2 == 0 else -NONE

        def boxes(part: fx.Node, place: int = place, empty: int = empty) -> Any:
            if part in found:
                return found[part].box[place]
            value = part.meta.get("val")
            if not isinstance(value, Tensor):
                return value
            if not value.is_floating_point():
                if part not in numbers:
                    raise _Numbers
                return numbers[part]
            return torch.full((), empty, dtype=torch.int32).expand(value.shape)

        try:
            args, kwargs = fx.map_arg((node.args, node.kwargs), boxes)
            if operation(node) in _AS:
                result = _AS[operation(node)](*args)
            else:
                result = node.target(*args, **{k: v for k, v in kwargs.items() if k != "dtype"})  # type: ignore[operator]
        except (RuntimeError, NotImplementedError, TypeError):
            return None
        results.append([fold(part) for part in (result if isinstance(result, list | tuple) else [result])])
    made = [gathered([results[place][at] for place in range(4)], parts) for at in range(len(results[0]))]
    return made if isinstance(node.meta.get("val"), list | tuple) else made[0]


class _Numbers(RuntimeError):
    """Where the places of a picture come from other numbers, and are known only when it runs."""


_SAME = ("_to_copy", "to", "dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous", "detach", "alias")
_AS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAME, lambda x, *rest: x),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), torch.reshape),  # boxes lie otherwise in memory than numbers
}


@rule("grid_sampler grid_sampler_2d torchvision.deform_conv2d")
def _sampled(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Places that are chosen by numbers: any of the map may be taken."""
    whole = join_all(shape_of(node), [found[part] for part in node.all_input_nodes if part in found])
    return replace(whole, whole=True)
