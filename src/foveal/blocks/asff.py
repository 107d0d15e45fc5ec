"""Adaptively spatial feature fusion: every place chooses which level of a feature pyramid it listens to.

After Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection" (2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.registry import Block
from foveal.blocks.resized_like import resized_like


class ASFF(nn.Module):
    """`y_l = conv(sum_i a_i * r_il(x_i))`, where `a = softmax_i(conv(cat_i(conv(r_il(x_i)))))` at every place.

    `r_il` brings level i to level l: coarser ones by a 1 x 1 convolution and nearest neighbours, finer ones by a
    3 x 3 convolution of stride 2, after max pools of 3 x 3 where they are more than one level finer. The weights `a`,
    one a level, are shared by all channels and add up to 1 at every place: Liu et al. (2019). Every convolution but
    the one whose result the softmax takes is followed by batch norm and a leaky ReLU (0.1).

    Shapes: maps of N levels, the finest first, each with half the cells a side of the one before:
        `[(B, C_i, H / 2**i, W / 2**i)] -> (B, out_channels, H / 2**l, W / 2**l)`, or a list of N such.

    Parameters: for a level l of N, with c = C_l, o = out_channels and w = weight_channels:
        `sum over i < l of (9 * C_i * c + 2 * c) + sum over i > l of (C_i * c + 2 * c) + N * (c + 2) * w
        + N * N * w + N + 9 * c * o + 2 * o`.

    Use it where one head reads several levels of a pyramid and objects of unlike size lie beside each other: a sum of
    levels adds what contradicts, this lets every place choose.

    Not for levels that differ by other factors than 2, nor as the first thing to try: plain sums (FPN) are cheaper.

    Args:
        channels: C_i of every level, the finest first, at least two.
        level: which level comes out, 0 is the finest; None gives all of them, in a list.
        out_channels: of what comes out; those of each level by default.
        weight_channels: w, to which every level is narrowed before the weights are made.

    Raises:
        ValueError: for impossible channels or an unknown level; for maps that do not fit.

    Example:
        >>> fused = create_block("asff", channels=(8, 16, 32), level=1)
        >>> fused([torch.rand(1, 8, 16, 16), torch.rand(1, 16, 8, 8), torch.rand(1, 32, 4, 4)]).shape
        torch.Size([1, 16, 8, 8])
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        level: int | None = None,
        out_channels: int | None = None,
        weight_channels: int = 16,
    ) -> None:
        super().__init__()
        channels = tuple(channels) if isinstance(channels, Sequence) else (channels,)
        if len(channels) < 2 or not all(isinstance(many, int) and many > 0 for many in channels):
            raise ValueError(f"channels is {channels}; expected those of two levels or more, the finest first")
        if level is not None and level not in range(len(channels)):
            raise ValueError(f"level is {level!r}; expected 0 (the finest) to {len(channels) - 1}, or None for all")
        if weight_channels < 1 or (out_channels is not None and out_channels < 1):
            raise ValueError(
                f"weight_channels is {weight_channels!r} and out_channels {out_channels!r}; expected 1 or more"
            )
        self.channels, self.level = channels, level
        wanted = range(len(channels)) if level is None else [level]
        self.fusions = nn.ModuleList(
            _OneLevel(channels, place, out_channels or channels[place], weight_channels) for place in wanted
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Maps of all levels, the finest first -> those of one level, or of all."""
        given = [x.shape[1] for x in maps]
        if given != list(self.channels):
            raise ValueError(f"maps have {given} channels; expected {list(self.channels)}, the finest level first")
        fused = [fusion(maps) for fusion in self.fusions]
        return fused if self.level is None else fused[0]


class _OneLevel(nn.Module):
    def __init__(self, channels: tuple[int, ...], level: int, out_channels: int, weight_channels: int) -> None:
        super().__init__()
        self.level, width = level, channels[level]
        self.resize = nn.ModuleList(
            nn.Identity() if place == level else _unit(many, width, *((3, 2) if place < level else (1, 1)))
            for place, many in enumerate(channels)
        )
        self.narrow = nn.ModuleList(_unit(width, weight_channels, 1) for _ in channels)
        self.weigh = nn.Conv2d(len(channels) * weight_channels, len(channels), 1)
        self.out = _unit(width, out_channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        alike = [self._brought(x, place, maps[self.level]) for place, x in enumerate(maps)]
        opinions = [narrow(x) for narrow, x in zip(self.narrow, alike, strict=True)]
        shares = self.weigh(torch.cat(opinions, 1)).softmax(1).split(1, 1)
        fused = alike[0] * shares[0]
        for x, share in zip(alike[1:], shares[1:], strict=True):
            fused = fused + x * share
        result: Tensor = self.out(fused)
        return result

    def _brought(self, x: Tensor, place: int, like: Tensor) -> Tensor:
        """Level `place`, with the cells and channels of this level."""
        given = tuple(x.shape[-2:])
        for _ in range(self.level - place - 1):
            x = F.max_pool2d(x, 3, 2, 1)
        x = self.resize[place](x)
        if place > self.level:
            return resized_like(x, like, "nearest")
        if x.shape[-2:] != like.shape[-2:]:
            raise ValueError(
                f"the map of level {place} has {given} cells and that of level {self.level} {tuple(like.shape[-2:])}; "
                f"expected {tuple(x.shape[-2:])} there: every level has half the cells of the one before, rounded up"
            )
        return x


def _unit(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.1))


BLOCKS = (Block("asff", ASFF),)
