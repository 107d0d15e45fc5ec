"""What one operation costs: multiply-accumulates (MACs) and floating-point operations (FLOPs).

MACs are the products that are summed in convolutions, linear layers, matrix products and attention, padding counted as
if it were there; this is what papers mostly call FLOPs. FLOPs are all arithmetic: 2 a MAC, 1 for each sum, product,
comparison or elementary function (exp, sqrt, erf, tanh) of anything else. A view of memory costs nothing; a copy costs
memory traffic and no arithmetic. An operation that is in no table is not known: it is told, never counted as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from foveal.analysis.operation_kinds import EACH, MOVES, NEW, REDUCING, TAKING, VIEWS
from foveal.analysis.trace import operation, shape_of, value_of


class Cost(NamedTuple):
    """MACs and FLOPs of an operation; `known` is False where nobody can say."""

    macs: int = 0
    flops: int = 0
    known: bool = True


def cost_of(node: fx.Node) -> Cost:
    """Of one operation of a trace."""
    name = operation(node)
    if name in VIEWS or name in MOVES:
        return Cost()
    if name in EACH:
        return Cost(flops=EACH[name] * _largest(node))
    if name in ("max", "min") and isinstance(_argument(node, 1, "dim"), fx.Node):
        return Cost(flops=_largest(node))  # the larger of two maps, number by number
    if name in REDUCING:
        return Cost(flops=REDUCING[name] * math.prod(shape_of(node.args[0])))
    return RULES[name](node) if name in RULES else Cost(known=False)


def is_view(node: fx.Node) -> bool:
    """Whether what a node gives lies in the memory of what it takes."""
    if operation(node) in ("reshape", "contiguous", "to", "flatten"):
        return True
    return operation(node) in VIEWS


Rule = Callable[[fx.Node], Cost]


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _largest(node: fx.Node) -> int:
    taken = [math.prod(shape_of(part)) for part in node.all_input_nodes if value_of(part) is not None]
    return max([math.prod(shape_of(node)), *taken], default=0)


def _products(macs: int, more: int = 0) -> Cost:
    return Cost(macs, 2 * macs + more)


def _conv(node: fx.Node) -> Cost:
    weight = shape_of(_argument(node, 1, "weight"))
    if _transposes(node):  # every number that is taken is spread by the kernel
        return _products(math.prod(shape_of(node.args[0])) * math.prod(weight[1:]))
    return _products(math.prod(shape_of(node)) * math.prod(weight[1:]))


def _transposes(node: fx.Node) -> bool:
    return "transpose" in operation(node) or (operation(node) == "convolution" and bool(node.args[6]))


def _linear(node: fx.Node) -> Cost:
    return _products(math.prod(shape_of(node)) * shape_of(_argument(node, 1, "weight"))[-1])


def _matmul(node: fx.Node) -> Cost:
    return _products(math.prod(shape_of(node)) * (shape_of(node.args[0]) or (1,))[-1])


def _addmm(node: fx.Node) -> Cost:
    one, sums = shape_of(node.args[1]), operation(node) == "addbmm"
    return _products(math.prod(shape_of(node)) * one[-1] * (one[0] if sums else 1))


def _tensordot(node: fx.Node) -> Cost:
    one = shape_of(node.args[0])
    return _products(math.prod(shape_of(node)) * math.prod(one[dim] for dim in node.args[2]))  # type: ignore


def _einsum(node: fx.Node) -> Cost:
    """Of two tensors: a product for every combination of indices. Of more: one pair after the other, from the left."""
    parts = [shape_of(part) for part in node.args[1]]  # type: ignore[union-attr]
    letters, given = einsum_letters(str(node.args[0]), [len(shape) for shape in parts])
    side: dict[str, int] = {}
    for names, shape in zip(letters, parts, strict=True):
        side |= {name: max(length, side.get(name, 1)) for name, length in zip(names, shape, strict=True)}
    macs, left = 0, set(letters[0])
    for place in range(1, len(letters)):
        both = left | set(letters[place])
        macs += math.prod(side[letter] for letter in both)
        left = both & set("".join([given, *letters[place + 1 :]]))
    return _products(macs) if len(letters) > 1 else Cost(flops=math.prod(parts[0]))


def einsum_letters(equation: str, ndims: list[int]) -> tuple[list[str], str]:
    """One letter for each dimension of what an equation takes and gives, with `...` and a left-out `->` written out."""
    taken, arrow, given = equation.replace(" ", "").partition("->")
    letters, dots = taken.split(","), ""
    for place, (names, ndim) in enumerate(zip(letters, ndims, strict=True)):
        hidden = "".join(chr(0x100 + at) for at in range(ndim - len(names.replace("...", ""))))[::-1]
        letters[place] = names.replace("...", hidden)  # counted from the right, as shapes broadcast
        dots = max(dots, hidden, key=len)
    if not arrow:
        once = sorted(name for name in set(taken) - set(".,") if taken.count(name) == 1)
        given = "..." + "".join(once)
    return letters, given.replace("...", dots)


def _attention(node: fx.Node) -> Cost:
    """Scores and their weighted sum; a causal mask leaves out no work that a kernel could be trusted to leave out."""
    query, key, value = (shape_of(part) for part in node.args[:3])
    pairs = math.prod(query[:-1]) * key[-2]
    return _products(pairs * (query[-1] + value[-1]), 6 * pairs)  # scaled, then the five steps of a softmax


def _pool(node: fx.Node) -> Cost:
    kernel = _argument(node, 1, "kernel_size")
    sides = [kernel] if isinstance(kernel, int) else list(kernel)
    planes = sum(letter.isdigit() and int(letter) for letter in operation(node)[-2:]) or 2
    area = math.prod(sides * planes if len(sides) == 1 else sides)
    return Cost(flops=area * math.prod(shape_of(node)))


def _interpolated(taps: int) -> Rule:
    """Products and sums of so many taps for each number that comes out."""
    return lambda node: Cost(flops=(2 * taps - 1) * math.prod(shape_of(node)))


def _grid_sample(node: fx.Node) -> Cost:
    space = len(shape_of(node)) - 2
    taps = 4**space if _argument(node, 2, "interpolation_mode", 0) == 2 else 2**space
    if _argument(node, 2, "interpolation_mode", 0) == 1:
        return Cost()
    places = math.prod(shape_of(node)) // shape_of(node)[1]
    return Cost(flops=(2 * taps - 1) * math.prod(shape_of(node)) + 4 * taps * places)


def _deform_conv(node: fx.Node) -> Cost:
    """A convolution whose taps are interpolated from four cells each, and weighed where there is a mask."""
    weight, offset = shape_of(node.args[1]), shape_of(node.args[2])
    macs = math.prod(shape_of(node)) * math.prod(weight[1:])
    places = shape_of(node)[0] * math.prod(shape_of(node)[2:]) * offset[1] // 2
    samples = shape_of(node)[0] * math.prod(shape_of(node)[2:]) * shape_of(node.args[0])[1] * math.prod(weight[2:])
    return _products(macs, samples * (7 + bool(node.args[-1])) + 16 * places)


def _recurrent(node: fx.Node) -> Cost:
    """Every matrix of every layer once for each step and sample; the gates' own arithmetic is left out."""
    x, weights = shape_of(node.args[0]), node.args[3 if _is_packed(node) else 2]
    sizes = [shape_of(part) for part in weights]  # type: ignore[union-attr]
    return _products(math.prod(x[:-1]) * sum(math.prod(size) for size in sizes if len(size) == 2))


def _recurrent_cell(node: fx.Node) -> Cost:
    x, weights = shape_of(node.args[0]), node.args[2:4]
    return _products(math.prod(x[:-1]) * sum(math.prod(shape_of(part)) for part in weights))


def _is_packed(node: fx.Node) -> bool:
    """Whether sequences of unlike length lie one after the other."""
    return getattr(node.target, "_overloadname", "") == "data"


def _instance_norm(node: fx.Node) -> Cost:
    return Cost(flops=(7 if _argument(node, 5, "use_input_stats", True) else 2) * math.prod(shape_of(node)))


def _bilinear(node: fx.Node) -> Cost:
    weight = shape_of(node.args[2])
    return _products(math.prod(shape_of(node)[:-1]) * (math.prod(weight) + weight[0] * weight[1]))


RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("conv1d conv2d conv3d convolution _convolution", _conv),
        ("conv_transpose1d conv_transpose2d conv_transpose3d", _conv),
        ("linear", _linear),
        ("matmul bmm mm mv dot vdot inner", _matmul),
        ("tensordot", _tensordot),
        ("instance_norm", _instance_norm),
        ("outer index_add scatter_add", lambda node: Cost(flops=_largest(node))),
        ("_weight_norm", lambda node: Cost(flops=4 * _largest(node))),
        ("addmm baddbmm addbmm addmv", _addmm),
        ("einsum", _einsum),
        ("bilinear _trilinear", _bilinear),
        ("scaled_dot_product_attention", _attention),
        ("max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices", _pool),
        ("avg_pool1d avg_pool2d avg_pool3d", _pool),
        ("upsample_linear1d", _interpolated(2)),
        ("upsample_bilinear2d _upsample_bilinear2d_aa", _interpolated(4)),
        ("upsample_trilinear3d", _interpolated(8)),
        ("upsample_bicubic2d _upsample_bicubic2d_aa", _interpolated(16)),
        ("grid_sampler grid_sampler_2d grid_sampler_3d", _grid_sample),
        ("torchvision.deform_conv2d", _deform_conv),
        ("lstm gru rnn_tanh rnn_relu", _recurrent),
        ("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", _recurrent_cell),
    )
    for name in names.split()
}


def bytes_of(node: Any) -> int:
    """Of all tensors that a node gives."""
    value = node.meta.get("val")
    parts = value if isinstance(value, list | tuple) else [value]
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))


def moved_bytes(node: fx.Node) -> int:
    """That an operation reads and writes: of what it takes only what it touches."""
    return bytes_of(node) + sum(_read(node, part) for part in node.all_input_nodes)


def _read(node: fx.Node, part: fx.Node) -> int:
    """Numbers that are spread over a shape are read once, of a table only the rows asked for, of a shape nothing."""
    value = part.meta.get("val")
    if operation(node) in NEW:
        return 0
    if not isinstance(value, Tensor):
        return bytes_of(part)
    strides = value.stride() if value.layout == torch.strided else (1,) * value.ndim
    once = math.prod(side for side, stride in zip(value.shape, strides, strict=True) if stride)
    if operation(node) in TAKING and part is node.args[0]:
        once = min(once, math.prod(shape_of(node)))
    return once * value.element_size()
