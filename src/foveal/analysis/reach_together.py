"""Receptive fields of steps that take many numbers together: sums, norms, matrix products, attention."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx

from foveal.analysis.boxes import Reach, Step, argument, fold, join_over, rule, spans, thinned, unite, with_boxes
from foveal.analysis.count import einsum_letters
from foveal.analysis.trace import operation, shape_of


def _over(place: int, name: str) -> Step:
    """A reduction over the dimensions that an argument names."""

    def step(node: fx.Node, found: dict[fx.Node, Reach]) -> Any:
        if isinstance(argument(node, 1, "dim"), fx.Node):  # the larger of two maps, number by number
            return unite(shape_of(node), [found[part] for part in node.all_input_nodes if part in found])
        reach = found[node.args[0]]  # type: ignore[index]
        dims = argument(node, place, name)
        if dims is None or isinstance(dims, bool) or dims == []:
            dims = list(range(len(reach.shape)))
        joined = join_over(reach, {dim % len(reach.shape) for dim in ([dims] if isinstance(dims, int) else dims)})
        made = with_boxes(joined, (side.reshape(shape_of(node)) for side in joined.box))
        return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made

    return step


def _together(reach: Reach, dims: set[int]) -> Reach:
    """As many numbers as before, each with what all along these dimensions depend on."""
    joined = join_over(reach, dims)
    return with_boxes(joined, (side.expand(reach.shape) for side in joined.box))


@rule("softmax _softmax _safe_softmax log_softmax _log_softmax")
def _softmax(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    reach = found[node.args[0]]  # type: ignore[index]
    return _together(reach, {argument(node, 1, "dim") % len(reach.shape)})


@rule("cumsum cumprod")
def _so_far(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    reach = found[node.args[0]]  # type: ignore[index]
    return _up_to(reach, argument(node, 1, "dim") % len(reach.shape))


def _up_to(reach: Reach, dim: int) -> Reach:
    """Each number with what it and those before it depend on."""
    sides = []
    for place, side in enumerate(reach.box):
        thin = thinned(side)
        if thin.shape[dim] > 1:
            thin = (torch.cummin(thin, dim) if place % 2 == 0 else torch.cummax(thin, dim)).values
        sides.append(thin.expand(side.shape))
    return with_boxes(reach, sides, whole=reach.whole or spans(reach, {dim}))


@rule("layer_norm native_layer_norm rms_norm _fused_rms_norm")
def _layer_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    reach, many = found[node.args[0]], len(argument(node, 1, "normalized_shape"))  # type: ignore[index]
    return _together(reach, set(range(len(reach.shape) - many, len(reach.shape))))


@rule("group_norm native_group_norm")
def _group_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    reach = found[node.args[0]]  # type: ignore[index]
    at = 1 if operation(node) == "group_norm" else 6
    groups, shape = argument(node, at, "num_groups" if at == 1 else "group"), reach.shape
    apart = with_boxes(reach, (side.unflatten(1, (groups, -1)) for side in reach.box))
    joined = join_over(apart, set(range(2, len(shape) + 1)))
    whole = [side.expand(-1, -1, shape[1] // groups, *shape[2:]).reshape(shape) for side in joined.box]
    return with_boxes(joined, (fold(side) for side in whole))


@rule("instance_norm")
def _instance_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    reach = found[node.args[0]]  # type: ignore[index]
    return _together(reach, set(range(2, len(reach.shape)))) if argument(node, 5, "use_input_stats", True) else reach


@rule("_native_batch_norm_legit")
def _batch_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """With the statistics of its own maps, as a norm has that keeps none."""
    reach = found[node.args[0]]  # type: ignore[index]
    return _together(reach, set(range(len(reach.shape))) - {1})


@rule("glu")
def _glu(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """One half of a map gates the other."""
    reach = found[node.args[0]]  # type: ignore[index]
    dim = argument(node, 1, "dim", -1) % len(reach.shape)
    halves = [side.chunk(2, dim) for side in reach.box]
    return unite(shape_of(node), [with_boxes(reach, (both[at] for both in halves)) for at in (0, 1)])


@rule("linear")
def _linear(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    if any(part in found for part in node.all_input_nodes if part is not node.args[0]):
        return None  # weights that are computed from the picture
    reach = found[node.args[0]]  # type: ignore[index]
    joined = join_over(reach, {len(reach.shape) - 1})
    return with_boxes(joined, (side.expand(shape_of(node)) for side in joined.box))


@rule("matmul bmm mm mv dot vdot addmm baddbmm")
def _matmul(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Row i of the one and column j of the other, whole, make (i, j)."""
    adds = operation(node) in ("addmm", "baddbmm")
    one, other = cast(list[fx.Node], list(node.args[1:3] if adds else node.args[:2]))
    parts = []
    for part, partner, dim in ((one, other, -1), (other, one, -2)):
        if part in found:
            ndim = len(shape_of(part))
            vector = ndim == 1 or len(shape_of(partner)) == 1  # which leaves no dimension
            parts.append(join_over(found[part], {ndim - 1 if ndim == 1 else ndim + dim}, keep=not vector))
    if adds and node.args[0] in found:
        parts.append(found[node.args[0]])  # type: ignore[index]
    return unite(shape_of(node), parts)


@rule("einsum")
def _einsum(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    nodes = cast(list[fx.Node], node.args[1])
    taken, given = einsum_letters(str(node.args[0]), [len(shape_of(part)) for part in nodes])
    parts = []
    for letters, part in zip(taken, nodes, strict=True):
        if part not in found:
            continue
        if len(set(letters)) != len(letters):
            return None
        summed = tuple(at for at, letter in enumerate(letters) if letter not in given)
        kept = [letter for letter in letters if letter in given]
        order = sorted(range(len(kept)), key=[given.index(letter) for letter in kept].__getitem__)
        joined, sides = join_over(found[part], set(summed)), []
        for side in joined.box:
            side = side.squeeze(summed).permute(order)
            for at, letter in enumerate(given):
                side = side if letter in kept else side.unsqueeze(at)
            sides.append(side)
        parts.append(with_boxes(joined, sides))
    return unite(shape_of(node), parts)


@rule("scaled_dot_product_attention")
def _attention(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    query, key, value = cast(list[fx.Node], node.args[:3])
    shape, parts = shape_of(node), []
    for part in (query, argument(node, 3, "attn_mask")):
        if part in found:
            parts.append(join_over(found[part], {len(shape_of(part)) - 1}))
    for part in (key, value):
        if part in found:
            last, causal = len(shape_of(part)) - 1, argument(node, 5, "is_causal", False)
            rows = join_over(found[part], {last})
            square = shape_of(part)[-2] == shape[-2]
            parts.append(_up_to(rows, last - 1) if causal and square else join_over(rows, {last - 1}))
    parts = [_heads(part, shape) for part in parts]
    return unite(shape, parts)


def _heads(part: Reach, shape: tuple[int, ...]) -> Reach:
    """Grouped queries: fewer heads of keys, each for several of the queries'."""
    if len(part.shape) < 3 or part.shape[-3] in (1, shape[-3]):
        return part
    sides = [side.repeat_interleave(shape[-3] // part.shape[-3], -3) for side in part.box]
    return with_boxes(part, sides)


rule("mean sum amax amin nansum nanmean var std var_mean std_mean")(_over(1, "dim"))
rule("logsumexp argmax argmin any all max min prod median")(_over(1, "dim"))
rule("linalg_vector_norm norm")(_over(2, "dim"))
