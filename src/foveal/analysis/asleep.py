"""Gains that have not been taught: where they start near 0, whole branches say nothing yet.

Norms whose gain starts at 0 (Goyal et al. 2017), layer scales of 1e-6 (Touvron et al. 2021) and single weights of a
branch (ReZero, Bachlechner et al. 2021) leave random networks with little but their shortcuts. What an architecture
can come to look at is measured with these gains at 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from foveal.analysis.trace import Trace, operation

SMALL = 0.1

_VIEWS = frozenset({"view", "reshape", "unsqueeze", "expand", "_to_copy", "clone", "alias", "permute", "transpose"})


def woken(recorded: Trace) -> dict[fx.Node, Tensor]:
    """Ones for each gain whose values are all the same and at most 0.1 in size: teaching would have moved them apart.

    Args:
        recorded: a run.

    Returns:
        For the node of each such parameter what to take for it. A parameter that does anything but multiply maps,
        such as a bias, is none.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> nn.init.zeros_(network[1].weight)
        >>> [tuple(ones.shape) for ones in woken(trace(network, [torch.rand(1, 3, 8, 8)])).values()]
        [(4,)]
    """
    found = {}
    for node, (_, value) in recorded.parameters.items():
        if not value.is_floating_point() or not value.numel():
            continue
        first = value.flatten()[0]
        if abs(first) <= SMALL and bool((value == first).all()) and all(_gains(node)):
            found[node] = torch.ones_like(value)
    return found


def _gains(node: fx.Node) -> Iterator[bool]:
    """Of each step that takes a parameter, or a view of it: whether it multiplies maps by it."""
    for user in node.users:
        name = operation(user)
        if name in _VIEWS:
            yield from _gains(user)
        elif "norm" in name:
            names = [argument.name for argument in user.target._schema.arguments]  # type: ignore[union-attr]
            yield names[user.args.index(node)] == "weight" if node in user.args else "weight" in user.kwargs
        else:
            yield name == "mul"
