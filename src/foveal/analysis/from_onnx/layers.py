"""ONNX's norms, products, attention and reductions as functions of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, operator, setting


@operator("LRN")
def _local_response_norm(node: Node, x: Tensor) -> Tensor:
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    if node.get("size") % 2:
        return F.local_response_norm(x, node.get("size"), alpha, beta, bias)
    # Of an even number, PyTorch has one channel more in front, ONNX behind.
    return F.local_response_norm(x.flip(1), node.get("size"), alpha, beta, bias).flip(1)


@operator("BatchNormalization")
def _batch_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise ValueError("it is in training mode; export the network after .eval()")
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, node.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, None, None, weight, bias, eps=node.get("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups, channels = node.get("num_groups"), x.shape[1]
    if node.opset < 21 and groups != channels:  # then one weight for each group
        weight, bias = (values.repeat_interleave(channels // groups) for values in (weight, bias))
    return F.group_norm(x, groups, weight, bias, node.get("epsilon", 1e-5))


@operator("LayerNormalization", "RMSNormalization")
def _layer_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    result = _normed(node, x, weight, bias)
    if not node.wants(1) and not node.wants(2):
        return result
    variance, mean = torch.var_mean(x, list(range(node.get("axis", -1) % x.ndim, x.ndim)), correction=0, keepdim=True)
    return result, mean, (variance + node.get("epsilon", 1e-5)).rsqrt()


def _normed(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape, epsilon = list(x.shape[node.get("axis", -1) :]), node.get("epsilon", 1e-5)
    fits = list(weight.shape) == shape and (bias is None or list(bias.shape) == shape)
    own, ours = (weight, bias) if fits else (None, None)
    if node.operator == "RMSNormalization":
        x = F.rms_norm(x, shape, own, epsilon)
    else:
        x = F.layer_norm(x, shape, own, ours, epsilon)
    if fits:
        return x
    return x * weight if bias is None else x * weight + bias


@operator("LpNormalization")
def _lp_normalization(node: Node, x: Tensor) -> Tensor:
    return F.normalize(x, float(node.get("p", 2)), node.get("axis", -1))


@operator("MeanVarianceNormalization")
def _mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = list(node.get("axes") or [0, 2, 3])
    return (x - x.mean(axes, keepdim=True)) / (x.std(axes, correction=0, keepdim=True) + 1e-9)


@operator("MatMul")
def _matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return F.linear(a, b) if node.get("turned") else torch.matmul(a, b)


@operator("Gemm")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.t() if node.get("transA", 0) else a
    b = b if node.get("transB", 0) or node.get("turned") else b.t()  # (columns, rows), as a linear layer has it
    if alpha == 1 and (c is None or (beta == 1 and tuple(c.shape) == (b.shape[0],))):
        return F.linear(a, b, c)
    if c is None:
        return alpha * F.linear(a, b)
    return torch.addmm(c, a, b.t(), beta=beta, alpha=alpha)


@operator("Einsum")
def _einsum(node: Node, *values: Tensor) -> Tensor:
    return torch.einsum(node.get("equation"), *values)


@operator("Attention")
def _attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Any:
    if node.wants(3) or node.get("softcap", 0.0) or lengths is not None:
        raise ValueError("its softcap, its padded lengths and its scores as an output are not followed")
    flat = q.ndim == 3
    if flat:
        heads, others = node.get("q_num_heads"), node.get("kv_num_heads")
        q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
        k, v = (x.unflatten(-1, (others, -1)).transpose(1, 2) for x in (k, v))
    if past_k is not None and past_v is not None:
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    causal = bool(node.get("is_causal", 0))
    if causal and (mask is not None or q.shape[2] != k.shape[2]):
        raise ValueError("it is causal over a mask or a past, which is not followed")
    options = {"scale": node.get("scale"), "enable_gqa": q.shape[1] != k.shape[1]}
    result = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, **options)
    result = result.transpose(1, 2).flatten(2) if flat else result
    return (result, k, v) if node.wants(1) else result


def _product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


REDUCTIONS: dict[str, Any] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keepdim: torch.linalg.vector_norm(x, 1, axes, keepdim),
    "ReduceL2": lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim),
    "ReduceSumSquare": lambda x, axes, keepdim: x.square().sum(axes, keepdim),
    "ReduceLogSum": lambda x, axes, keepdim: x.sum(axes, keepdim).log(),
    "ReduceLogSumExp": torch.logsumexp,
}


ALONE: dict[str, Any] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}
"""What a reduction over no axis does to a number; the others leave it as it is."""


@operator(*REDUCTIONS, settings=(1,))
def _reduce(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    over = setting(node, "axes", axes)
    if not over:
        if node.get("noop_with_empty_axes", 0):  # each number by itself, as a sum of one
            return ALONE[node.operator](x) if node.operator in ALONE else x
        over = list(range(x.ndim))
    result: Tensor = REDUCTIONS[node.operator](x, over, keepdim=bool(node.get("keepdims", 1)))
    return result


@operator("ArgMax", "ArgMin")
def _arg_extreme(node: Node, x: Tensor) -> Tensor:
    function = torch.argmax if node.operator == "ArgMax" else torch.argmin
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    if node.get("select_last_index", 0):  # of equal ones; the first from behind
        return x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=keep)
    return function(x, dim=axis, keepdim=keep)
