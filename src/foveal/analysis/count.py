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

from torch import Tensor, fx

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
    if name in REDUCING:
        return Cost(flops=REDUCING[name] * math.prod(shape_of(node.args[0])))
    return RULES[name](node) if name in RULES else Cost(known=False)


def is_view(node: fx.Node) -> bool:
    """Whether what a node gives lies in the memory of what it takes."""
    if operation(node) in ("reshape", "contiguous", "to", "flatten"):
        return True
    return operation(node) in VIEWS


def _words(text: str) -> list[str]:
    return text.split()


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: int(row[0]) for row in rows for name in row[1:]}


VIEWS = set(
    _words(
        """
    view reshape permute transpose t expand expand_as slice select squeeze unsqueeze alias detach split chunk unbind
    split_with_sizes narrow as_strided flatten unflatten movedim view_as _unsafe_view diagonal getitem unfold
    swapaxes mT contiguous to lift_fresh_copy lift_fresh tensor_split alias_copy view_copy sym_size
    _assert_tensor_metadata _assert_scalar _assert_async sym_constrain_range_for_size broadcast_to unsafe_chunk
    unsafe_split real
    """
    )
)
"""What shows memory in another way, and costs nothing."""

MOVES = set(
    _words(
        """
    clone cat concat stack pad constant_pad_nd reflection_pad2d replication_pad2d roll flip index gather
    index_select embedding pixel_shuffle pixel_unshuffle copy slice_scatter select_scatter repeat im2col
    upsample_nearest2d _upsample_nearest_exact2d upsample_nearest1d upsample_nearest3d zeros ones full empty arange
    zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty scalar_tensor channel_shuffle
    native_channel_shuffle masked_fill where _to_copy scatter sort topk one_hot dropout feature_dropout
    alpha_dropout repeat_interleave tile fill tril triu eye linspace meshgrid index_put masked_select nonzero
    argsort hstack vstack type_as float half bfloat16 expand_copy squeeze_copy permute_copy slice_copy rot90
    take_along_dim zero triu_indices tril_indices
    """
    )
)
"""What copies or fills memory: traffic without arithmetic."""


# Each line: FLOPs, then the operations that take so many for each number of the largest tensor they take or give.
EACH = _table(
    """
    1 add sub rsub mul div true_divide neg relu relu6 clamp clamp_min clamp_max hardtanh abs maximum minimum fmax fmin
    1 eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not isnan isinf isfinite
    1 __and__ __or__ __xor__ __lshift__ __rshift__ logical_xor bitwise_xor exp2 hypot copysign heaviside
    1 exp expm1 log log2 log10 log1p sqrt rsqrt reciprocal pow square sin cos tan tanh sinh cosh asin acos atan atan2
    1 erf erfc lgamma floor ceil round trunc sign sgn floor_divide remainder fmod threshold hardshrink nan_to_num
    1 cumsum cumprod bernoulli rand rand_like randn randn_like uniform normal
    2 leaky_relu prelu _prelu_kernel rrelu_with_noise batch_norm _native_batch_norm_legit_no_training
    3 lerp addcmul addcdiv softplus elu softsign logit glu
    4 sigmoid selu celu hardsigmoid log_sigmoid log_sigmoid_forward rms_norm _fused_rms_norm
    5 silu gelu mish hardswish softmax _softmax _safe_softmax
    6 log_softmax _log_softmax
    7 layer_norm native_layer_norm group_norm native_group_norm instance_norm _native_batch_norm_legit
    """
)

# Likewise, for each number that an operation takes: sums, means, largest values.
REDUCING = _table(
    """
    1 sum mean amax amin max min prod any all argmax argmin nansum nanmean count_nonzero
    1 adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool1d adaptive_max_pool1d
    2 linalg_vector_norm norm frobenius_norm
    3 var std logsumexp
    4 var_mean std_mean
    """
)

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
    return _products(math.prod(shape_of(node)) * shape_of(node.args[1])[-1])


def _einsum(node: fx.Node) -> Cost:
    """Of two tensors: a product for every combination of indices. Of more: one pair after the other, from the left."""
    equation, parts = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    taken, _, given = str(equation).replace(" ", "").partition("->")
    letters = taken.split(",")
    if "." in taken or len(letters) != len(parts):
        return Cost(known=False)
    side: dict[str, int] = {}
    for name, part in zip(letters, parts, strict=True):
        side.update(zip(name, shape_of(part), strict=True))
    macs, left = 0, set(letters[0])
    for place in range(1, len(letters)):
        both = left | set(letters[place])
        macs += math.prod(side[letter] for letter in both)
        left = both & (set(given) | set("".join(letters[place + 1 :])))
    return _products(macs) if len(letters) > 1 else Cost(flops=math.prod(shape_of(parts[0])))


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
    taps = 16 if _argument(node, 2, "interpolation_mode", 0) == 2 else 4
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
    x, weights = shape_of(node.args[0]), [part for part in node.all_input_nodes if len(shape_of(part)) == 2]
    return _products(x[0] * x[1] * sum(math.prod(shape_of(part)) for part in weights))


def _bilinear(node: fx.Node) -> Cost:
    weight = shape_of(node.args[2])
    return _products(math.prod(shape_of(node)[:-1]) * (math.prod(weight) + weight[0] * weight[1]))


RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("conv1d conv2d conv3d convolution _convolution", _conv),
        ("conv_transpose1d conv_transpose2d conv_transpose3d", _conv),
        ("linear", _linear),
        ("matmul bmm mm mv dot inner", _matmul),
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
        ("grid_sampler grid_sampler_2d", _grid_sample),
        ("torchvision.deform_conv2d", _deform_conv),
        ("lstm gru rnn_tanh rnn_relu", _recurrent),
    )
    for name in _words(names)
}


def bytes_of(node: Any) -> int:
    """Of all tensors that a node gives."""
    value = node.meta.get("val")
    parts = value if isinstance(value, list | tuple) else [value]
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))
