"""Which pixels each number of a map depends on: the receptive field, by running a network on boxes instead of numbers.

Every number carries the box of pixels that it can depend on, as four tensors of its map's shape: the first and last row
and column. An operation that only moves numbers moves boxes; one that joins numbers joins their boxes; attention and
means over space join them all. So branches, residuals, dilation, shifted windows and functional calls need no rules of
their own (Araujo et al. 2019 give the arithmetic for chains).

By default boxes go on beyond the picture, as if padding were more of it: so a ResNet-18's last map has a field of 435
pixels, whatever the picture. With `beyond=False` padding is nothing, and boxes hold the pixels that are really there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from foveal.analysis import reach_over_space, reach_padding, reach_together  # noqa: F401 - their rules register
from foveal.analysis.boxes import RULES, Reach, join_all, rule, unite, with_boxes
from foveal.analysis.operation_kinds import EACH, MOVES, NEW, VIEWS
from foveal.analysis.reach_moved import Constants, moved
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
    with torch.device("cpu"), torch.no_grad():  # boxes are small; wherever the network lives
        return _boxes(trace, beyond)


def _boxes(trace: Trace, beyond: bool) -> dict[fx.Node, Reach]:
    shape = shape_of(trace.inputs[0])
    rows = torch.arange(shape[-2], dtype=torch.int32)[:, None].expand(shape)
    columns = torch.arange(shape[-1], dtype=torch.int32).expand(shape)
    found = {trace.inputs[0]: Reach((rows, rows, columns, columns), (1.0, 1.0), beyond=beyond)}
    several: dict[fx.Node, list[Reach]] = {}
    numbers = Constants(trace)
    for node in trace.operations():
        if operation(node) == "getitem":
            source, place = node.args
            if source in several:
                found[node] = several[source][place]  # type: ignore[index]
            continue
        if not any(part in found or part in several for part in node.all_input_nodes):
            continue
        results = _step(node, found, numbers)
        if isinstance(results, list):
            several[node] = results
        else:
            found[node] = results
    return found


def _step(node: fx.Node, found: dict[fx.Node, Reach], numbers: Constants) -> Any:
    name = operation(node)
    taken = [found[part] for part in node.all_input_nodes if part in found]
    if name in RULES:
        made = RULES[name](node, found)
    elif name in VIEWS or name in MOVES or name in NEW:
        made = moved(node, found, numbers)
    elif name in EACH:
        made = unite(shape_of(node), taken)
    else:
        made = None
    given = node.meta.get("val")
    if made is None:  # not known: told, and taken for all that there is
        made = replace(join_all((), taken), whole=True, known=False)
        made = with_boxes(made, (side.expand(shape_of(node)) for side in made.box))
    if isinstance(given, list | tuple) and not isinstance(made, list):  # what goes along: statistics, places
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else () for part in given]
        rest = replace(join_all((), taken), known=made.known)
        return [made if at == 0 else with_boxes(rest, (s.expand(to) for s in rest.box)) for at, to in enumerate(shapes)]
    return made


@rule("grid_sampler grid_sampler_2d grid_sampler_3d torchvision.deform_conv2d")
def _sampled(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Places that are chosen by numbers: any of the map may be taken."""
    whole = join_all(shape_of(node), [found[part] for part in node.all_input_nodes if part in found])
    return replace(whole, whole=True)
