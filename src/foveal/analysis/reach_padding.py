"""Receptive fields of steps that add a rim to a map, cut it into patches, or lay these back."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from foveal.analysis.boxes import Reach, argument, fold, gathered, measured, rule, thinned, unite, with_boxes
from foveal.analysis.slide import jump_of, past_edges, sides_of, spread
from foveal.analysis.trace import operation, shape_of


@rule("pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d _pad_circular")
def _pad(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    if node.args[0] not in found:
        return None
    name = operation(node)
    mode = argument(node, 2, "mode", "constant") if name == "pad" else name.strip("_").partition("_")[0]
    modes = {"reflection": "reflect", "replication": "replicate", "pad": "circular"}
    pad = list(argument(node, 1, "pad"))
    return padded(found[node.args[0]], pad, modes.get(mode, mode))  # type: ignore[index]


def padded(reach: Reach, pad: list[int], mode: str = "constant") -> Reach:
    """With a rim, as `torch.nn.functional.pad` takes it: the last dimension first; cut where it is negative.

    Rims of rows and columns go on as the map does, where boxes go on beyond the picture. If they do not, they hold
    what is copied there, or nothing. So do rims of what is no row or column: channels.
    """
    sides = []
    for place, side in enumerate(reach.box):
        for axis in range(len(pad) // 2):
            dim, before, after = side.ndim - 1 - axis, pad[2 * axis], pad[2 * axis + 1]
            if before or after:
                side = _rimmed(reach, place, side, dim, torch.arange(-before, side.shape[dim] + after), mode)
        sides.append(side)
    return with_boxes(reach, sides)


def _rimmed(reach: Reach, place: int, side: Tensor, dim: int, at: Tensor, mode: str) -> Tensor:
    thin, length, places = thinned(side), side.shape[dim], reach.places() or ()
    if dim in places:
        jump = jump_of(reach, place, side.ndim - 2 + places.index(dim))
    else:
        jump = None
    if jump is None and mode != "constant":
        at = _copied(at, length, mode)
    if thin.shape[dim] == 1 and length > 1 and (dim in places or bool(((at >= 0) & (at < length)).all())):
        return thin.expand([*side.shape[:dim], len(at), *side.shape[dim + 1 :]])
    if thin.shape[dim] == 1 and length > 1:
        thin = thin.expand([*thin.shape[:dim], length, *thin.shape[dim + 1 :]])
    thin = past_edges(thin, dim, at, jump, place % 2 == 0)
    return thin.expand([*side.shape[:dim], len(at), *side.shape[dim + 1 :]])


def _copied(at: Tensor, length: int, mode: str) -> Tensor:
    """The cells that a rim is copied from."""
    if mode == "circular":
        return at % length
    if mode == "reflect":
        turn = at % max(1, 2 * length - 2)
        return torch.minimum(turn, 2 * length - 2 - turn)
    return at.clamp(0, length - 1)


@rule("im2col")
def _patches(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """The cells under a sliding kernel, side by side as channels."""
    kernel, dilation, padding, stride = (tuple(sides_of(value, 2, 1)) for value in node.args[1:5])
    tall, wide = padding
    reach = found[node.args[0]]  # type: ignore[index]
    rim = padded(reach, [wide, wide, tall, tall])
    # Patches are cut from numbers that are not whole alone; these hold all rows and columns exactly.
    cut = [fold(F.unfold(side.double(), kernel, dilation, 0, stride).to(torch.int32)) for side in rim.box]
    return gathered(cut, [reach])


@rule("col2im")
def _from_patches(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Patches laid where they were cut from: a cell takes from each that covers it, of the channel for its place."""
    reach, out = found[node.args[0]], shape_of(node)  # type: ignore[index]
    kernel, dilation, padding, stride = (sides_of(value, 2, 1) for value in node.args[2:6])
    sides = zip(out[-2:], kernel, dilation, padding, stride, strict=True)
    grid = [(side + 2 * rim - step * (taps - 1) - 1) // by + 1 for side, taps, step, rim, by in sides]
    cut = [side.reshape(-1, out[-3], *kernel, *grid) for side in reach.box]
    step = (reach.jump[0] * stride[0], reach.jump[1] * stride[1])
    made: Reach | None = None
    for row, column in itertools.product(*map(range, kernel)):
        part = with_boxes(reach, (fold(side[:, :, row, column]) for side in cut), jump=step)
        before = [padding[0] - row * dilation[0], padding[1] - column * dilation[1]]
        whole = (*part.shape[:2], *out[-2:])
        laid = spread(part, whole, kernel=(1, 1), stride=stride, before=before, dilation=(1, 1))
        made = laid if made is None else unite(whole, [made, laid])
    assert made is not None
    return measured(with_boxes(made, (side.reshape(out) for side in made.box), jump=reach.jump), reach)
