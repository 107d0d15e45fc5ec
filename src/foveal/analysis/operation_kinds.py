"""What kind of thing each operation of a graph does: shows memory, copies it, or computes, and with how many steps.

An operation that is in none of these tables, and has no rule in `count`, is not known.
"""

from __future__ import annotations


def words(text: str) -> set[str]:
    """The names in a text, separated by spaces."""
    return set(text.split())


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: int(row[0]) for row in rows for name in row[1:]}


VIEWS = words(
    """
    view reshape permute transpose t expand expand_as slice select squeeze unsqueeze alias detach split chunk unbind
    split_with_sizes narrow as_strided flatten unflatten movedim view_as _unsafe_view diagonal getitem unfold
    swapaxes mT contiguous to lift_fresh_copy lift_fresh tensor_split alias_copy view_copy sym_size
    _assert_tensor_metadata _assert_scalar _assert_async sym_constrain_range_for_size broadcast_to unsafe_chunk
    unsafe_split real
    """
)
"""What shows memory in another way, and costs nothing."""

MOVES = words(
    """
    clone cat concat stack pad constant_pad_nd reflection_pad2d replication_pad2d roll flip index gather
    index_select embedding pixel_shuffle pixel_unshuffle copy slice_scatter select_scatter repeat
    upsample_nearest2d _upsample_nearest_exact2d upsample_nearest1d upsample_nearest3d zeros ones full empty arange
    zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty scalar_tensor channel_shuffle
    native_channel_shuffle masked_fill where _to_copy scatter sort topk one_hot dropout feature_dropout
    alpha_dropout repeat_interleave tile fill tril triu eye linspace meshgrid index_put masked_select nonzero
    argsort hstack vstack type_as float half bfloat16 expand_copy squeeze_copy permute_copy slice_copy rot90
    take_along_dim zero triu_indices tril_indices im2col index_copy max_unpool2d max_unpool3d pad_sequence block_diag
    """
)
"""What copies or fills memory: traffic without arithmetic."""

NEW = words(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty rand_like randn_like fill zero"
)
"""What takes a map for its shape alone."""

TAKING = words("index index_select embedding gather take_along_dim take")
"""What reads of a table, which comes first, as many numbers as it gives."""


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
    7 layer_norm native_layer_norm group_norm native_group_norm _native_batch_norm_legit
    """
)

# Likewise, for each number that an operation takes: sums, means, largest values.
REDUCING = _table(
    """
    1 sum mean amax amin max min prod any all argmax argmin nansum nanmean count_nonzero
    1 adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool1d adaptive_max_pool1d
    1 adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d col2im
    2 linalg_vector_norm norm frobenius_norm
    3 var std logsumexp
    4 var_mean std_mean
    """
)
