"""ONNX's convolutions as functions of PyTorch, and how its kernels slide."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from foveal.analysis.from_onnx.operators import Node, operator

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def of_space(table: dict[int, Any], x: Tensor) -> Any:
    """What a table has for as many axes of space as a map has.

    Raises:
        ValueError: if that is nothing.
    """
    if x.ndim - 2 not in table:
        raise ValueError(f"its maps have {x.ndim - 2} axes of space; PyTorch has it for 1 to 3")
    return table[x.ndim - 2]


class Sliding:
    """What a kernel that slides needs: strides, dilations and padding in front and behind, per axis."""

    def __init__(self, node: Node, x: Tensor, kernel: list[int]) -> None:
        axes = len(kernel)
        told = list(node.get("kernel_shape") or kernel)
        if told != kernel:
            raise ValueError(f"its kernel_shape is {told}, and its weight is one of {kernel}")
        self.strides = list(node.get("strides") or [1] * axes)
        self.dilations = list(node.get("dilations") or [1] * axes)
        pads = list(node.get("pads") or [0] * (2 * axes))
        how = node.get("auto_pad") or "NOTSET"
        if how not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise ValueError(f"its auto_pad is {how!r}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
        if how == "VALID":
            pads = [0] * (2 * axes)
        elif how in ("SAME_UPPER", "SAME_LOWER"):
            totals = []
            for side, k, s, d in zip(x.shape[2:], kernel, self.strides, self.dilations, strict=True):
                totals.append(max((math.ceil(side / s) - 1) * s + d * (k - 1) + 1 - side, 0))
            smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
            pads = smaller + larger if how == "SAME_UPPER" else larger + smaller
        self.front, self.behind = pads[:axes], pads[axes:]

    def padded(self, x: Tensor, value: float = 0.0, most: list[int] | None = None) -> tuple[Tensor, list[int]]:
        """The map and the padding that is left to the layer: all of it where both sides are alike."""
        limits = most or self.front
        if self.front == self.behind and all(0 <= p <= m for p, m in zip(self.front, limits, strict=True)):
            return x, self.front
        around = [side for pair in zip(self.front, self.behind, strict=True) for side in reversed(pair)]
        return F.pad(x, around[::-1], value=value), [0] * len(self.front)

    def outputs(self, x: Tensor, kernel: list[int], ceil: bool) -> list[int]:
        """The sides of what comes out."""
        sides = []
        for axis, (k, stride, dilation) in enumerate(zip(kernel, self.strides, self.dilations, strict=True)):
            left = x.shape[2 + axis] + self.front[axis] + self.behind[axis] - dilation * (k - 1) - 1
            side = (-(-left // stride) if ceil else left // stride) + 1
            most = -(-(x.shape[2 + axis] + self.front[axis]) // stride)
            sides.append(min(side, most) if ceil else side)
        return sides

    def without_padding_alone(self, x: Tensor, result: Tensor) -> Tensor:
        """A pool's result without the last windows of its ceil mode that would start in the padding behind the map."""
        for axis, (front, stride) in enumerate(zip(self.front, self.strides, strict=True), 2):
            most = -(-(x.shape[axis] + front) // stride)
            result = result.narrow(axis, 0, most) if result.shape[axis] > most else result
        return result


@operator("Conv")
def convolve(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution with the settings of a node."""
    slide = Sliding(node, x, list(weight.shape[2:]))
    x, padding = slide.padded(x)
    options = (slide.strides, padding, slide.dilations, node.get("group", 1))
    result: Tensor = of_space(CONVOLUTIONS, x)(x, weight, bias, *options)
    return result


@operator("ConvTranspose")
def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    kernel = list(weight.shape[2:])
    slide, how = Sliding(node, x, kernel), node.get("auto_pad", "NOTSET")
    extra = list(node.get("output_padding") or [0] * len(kernel))
    front, behind = slide.front, slide.behind
    wanted = node.get("output_shape")
    if wanted or how in ("SAME_UPPER", "SAME_LOWER"):
        sides = zip(x.shape[2:], kernel, slide.strides, slide.dilations, extra, strict=True)
        whole = [s * (side - 1) + d * (k - 1) + 1 + e for side, k, s, d, e in sides]
        sizes = wanted or [side * s for side, s in zip(x.shape[2:], slide.strides, strict=True)]
        totals = [a - b for a, b in zip(whole, sizes[-len(kernel) :], strict=True)]
        smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
        front, behind = (smaller, larger) if how == "SAME_UPPER" else (larger, smaller)
    padding = [max(0, min(pair)) for pair in zip(front, behind, strict=True)]
    grown = [max(0, e + p - b) for e, p, b in zip(extra, padding, behind, strict=True)]
    options = (slide.strides, padding, grown, node.get("group", 1), slide.dilations)
    result = of_space(TRANSPOSED, x)(x, weight, bias, *options)
    for axis, (p, g, f, b, e) in enumerate(zip(padding, grown, front, behind, extra, strict=True)):
        length = result.shape[2 + axis] + 2 * p - g + e - f - b
        if f - p or length != result.shape[2 + axis]:  # padding that is not alike on both sides is cut off
            result = result.narrow(2 + axis, f - p, length)
    return result


@operator("DeformConv")
def _deform_conv(
    node: Node, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    try:
        from torchvision.ops import deform_conv2d
    except ImportError as error:
        raise ImportError("DeformConv needs torchvision; run: pip install 'foveal[train]'") from error
    slide = Sliding(node, x, list(weight.shape[2:]))
    x, padding = slide.padded(x)
    result: Tensor = deform_conv2d(
        x, offset, weight, bias, tuple(slide.strides), tuple(padding), tuple(slide.dilations), mask
    )
    return result
