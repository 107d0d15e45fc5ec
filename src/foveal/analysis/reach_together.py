"""Receptive fields of steps that take many numbers together: sums, norms, matrix products, attention."""

from __future__ import annotations

from typing import Any, cast

from torch import fx

from foveal.analysis.boxes import Reach, Step, argument, join_all, join_over, rule, unite, with_boxes
from foveal.analysis.trace import operation, shape_of


def _over(place: int, name: str, default: Any = None) -> Step:
    """A reduction over the dimensions that an argument names."""

    def step(node: fx.Node, found: dict[fx.Node, Reach]) -> Any:
        reach = found[node.args[0]]  # type: ignore[index]
        dims = argument(node, place, name, default)
        ndim = len(reach.shape)
        chosen = {dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)} if dims not in (None, []) else None
        joined = join_over(reach, chosen if chosen is not None else set(range(ndim)))
        if chosen is None and not shape_of(node):
            return join_all((), [reach])
        made = with_boxes(joined, (side.reshape(shape_of(node)) for side in joined.box))
        return [made, made] if isinstance(node.meta.get("val"), list | tuple) else made

    return step


def _along(place: int, name: str) -> Step:
    """A step that takes all numbers along a dimension together and gives as many: a softmax."""

    def step(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
        reach = found[node.args[0]]  # type: ignore[index]
        joined = join_over(reach, {argument(node, place, name) % len(reach.shape)})
        return with_boxes(joined, (side.expand(reach.shape) for side in joined.box))

    return step


@rule("layer_norm native_layer_norm rms_norm _fused_rms_norm")
def _layer_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    reach, many = found[node.args[0]], len(argument(node, 1, "normalized_shape"))  # type: ignore[index]
    joined = join_over(reach, set(range(len(reach.shape) - many, len(reach.shape))))
    made = with_boxes(joined, (side.expand(reach.shape) for side in joined.box))
    return [made] * 3 if isinstance(node.meta.get("val"), list | tuple) else made


@rule("group_norm native_group_norm instance_norm")
def _group_norm(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | list[Reach]:
    reach = found[node.args[0]]  # type: ignore[index]
    joined = join_over(reach, set(range(1, len(reach.shape))))
    made = with_boxes(joined, (side.expand(reach.shape) for side in joined.box))
    return [made] * 3 if isinstance(node.meta.get("val"), list | tuple) else made


@rule("linear")
def _linear(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    if node.args[0] not in found:
        return None
    reach = found[node.args[0]]  # type: ignore[index]
    joined = join_over(reach, {len(reach.shape) - 1})
    return with_boxes(joined, (side.expand(shape_of(node)) for side in joined.box))


@rule("matmul bmm mm addmm baddbmm")
def _matmul(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
    """Row i of the one and column j of the other, whole, make (i, j)."""
    adds = operation(node) in ("addmm", "baddbmm")
    one, other = cast(list[fx.Node], list(node.args[1:3] if adds else node.args[:2]))
    parts = []
    if one in found:
        parts.append(join_over(found[one], {len(found[one].shape) - 1}))
    if other in found:
        parts.append(join_over(found[other], {max(0, len(found[other].shape) - 2)}))
    if any(len(shape_of(side)) < 2 for side in (one, other)):
        return join_all(shape_of(node), parts)
    if adds and node.args[0] in found:
        parts.append(found[node.args[0]])  # type: ignore[index]
    return unite(shape_of(node), parts)


@rule("einsum")
def _einsum(node: fx.Node, found: dict[fx.Node, Reach]) -> Reach | None:
    taken, _, given = str(node.args[0]).replace(" ", "").partition("->")
    parts = []
    for letters, part in zip(taken.split(","), node.args[1], strict=False):  # type: ignore[arg-type]
        if part not in found:
            continue
        if "." in letters or len(set(letters)) != len(letters):
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
    query, key, value = node.args[:3]
    parts = []
    if query in found:
        parts.append(join_over(found[query], {len(shape_of(query)) - 1}))  # type: ignore[index]
    for part in (key, value):
        if part in found:
            parts.append(join_over(found[part], {len(shape_of(part)) - 1, len(shape_of(part)) - 2}))  # type: ignore[index]
    shape = shape_of(node)
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
rule("softmax _softmax _safe_softmax log_softmax _log_softmax cumsum cumprod")(_along(1, "dim"))
