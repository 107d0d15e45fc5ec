"""One layer of a typed list: its numbers, and the module and the step of a chain that it stands for."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from foveal.analysis.chain_field import ChainStep

SLIDING = ("conv", "pointwise", "depthwise", "separable", "pool", "avgpool")
"""Kinds whose window slides over the map as the recurrences of a chain have it."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

POINTWISE = ("norm", *ACTIVATIONS)
"""Kinds that treat every cell by itself and keep its channels."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class ListedLayer:
    """One layer of a list. Pairs are (down, across).

    Args:
        kind: one of `layer_list.KINDS`.
        text: as it was typed.
        channels: that go in; for a linear layer all numbers that it takes.
        out_channels: that come out.
        kernel, stride, dilation: of the window; 1 where there is none.
        before, after: padding above and left of the map, and below and right of it.
        groups: of the channels.
        extra: cells that a transposed convolution puts after its output.
    """

    kind: str
    text: str
    channels: int
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    before: Pair = (0, 0)
    after: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    extra: Pair = (0, 0)

    def step(self, axis: int) -> ChainStep | None:
        """The layer as part of a plain chain along axis 0 (down) or 1 (across); None for one that slides no window
        over the map, or sees all of it."""
        if self.kind in SLIDING:
            return ChainStep(
                self.kernel[axis], self.stride[axis], self.before[axis], self.dilation[axis], self.after[axis]
            )
        return ChainStep(1) if self.kind in POINTWISE else None

    def make(self) -> nn.Module:
        """The layer as a module with random weights, biases included."""
        if self.kind in ("conv", "pointwise", "depthwise"):
            return self._convolution(self.out_channels, self.groups)
        if self.kind == "separable":
            pointwise = nn.Conv2d(self.channels, self.out_channels, 1)
            return nn.Sequential(
                OrderedDict(depthwise=self._convolution(self.channels, self.channels), pointwise=pointwise)
            )
        if self.kind == "transposed":
            return nn.ConvTranspose2d(
                self.channels,
                self.out_channels,
                self.kernel,
                self.stride,
                self.before,
                self.extra,
                self.groups,
                dilation=self.dilation,
            )
        if self.kind == "pool":
            return nn.MaxPool2d(self.kernel, self.stride, self.before, self.dilation)
        if self.kind == "avgpool":
            return nn.AvgPool2d(self.kernel, self.stride, self.before)
        if self.kind in ("global", "globalmax"):
            return nn.AdaptiveAvgPool2d(1) if self.kind == "global" else nn.AdaptiveMaxPool2d(1)
        if self.kind == "upsample":
            return nn.Upsample(scale_factor=(float(self.stride[0]), float(self.stride[1])))
        if self.kind == "linear":
            return nn.Linear(self.channels, self.out_channels)
        if self.kind == "norm":
            return nn.BatchNorm2d(self.channels)
        return nn.Flatten() if self.kind == "flatten" else ACTIVATIONS[self.kind]()

    def _convolution(self, out_channels: int, groups: int) -> nn.Conv2d:
        # Uneven padding is what PyTorch calls "same"; it has no other way to say it.
        padding = self.before if self.before == self.after else "same"
        return nn.Conv2d(self.channels, out_channels, self.kernel, self.stride, padding, self.dilation, groups)
