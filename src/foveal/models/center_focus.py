"""CenterFocusCNN: a residual network that looks through windows, in full width where it looks and narrower around.

Basic residual blocks (He et al. 2016) on `FoveatedConv2d`; a Gaussian of eccentricity after each of four stages. With
one window over the whole picture the same code is the plain dense network.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from foveal.blocks.channel_gating import ChannelGating
from foveal.blocks.gaussian_attention import GaussianSpatialAttention
from foveal.blocks.slim import SlimConv2d, SlimNorm2d, Split, merge, split
from foveal.layout import Layout
from foveal.retina import Glimpse

SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # widths and residual blocks of the four stages
    "nano": ((16, 32, 64, 128), (1, 1, 1, 1)),
    "tiny": ((24, 48, 96, 192), (1, 1, 2, 2)),
    "small": ((32, 64, 128, 256), (1, 2, 2, 2)),
    "base": ((64, 128, 256, 512), (2, 2, 2, 2)),
}
SIGMAS = (0.5, 0.75, 1.0, 1.5)  # narrow in shallow stages, wider in deep ones


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut, projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, width: float) -> None:
        super().__init__()
        self.conv1 = SlimConv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False, width=width)
        self.norm1 = SlimNorm2d(channels, width=width)
        self.conv2 = SlimConv2d(channels, channels, 3, padding=1, bias=False, width=width)
        self.norm2 = SlimNorm2d(channels, width=width)
        nn.init.zeros_(self.norm2.weight)  # a new block starts as its shortcut
        self.project: SlimConv2d | None = None
        if stride != 1 or in_channels != channels:
            self.project = SlimConv2d(in_channels, channels, 1, stride=stride, bias=False, width=width)
            self.project_norm = SlimNorm2d(channels, width=width)

    def forward(self, x: Tensor | Split, layout: Layout, *, halo: bool) -> Tensor | Split:
        shortcut = x
        if self.project is not None:
            shortcut = self.project_norm(self.project(x, layout, halo=halo), layout)
        x = self.norm1(self.conv1(x, layout, halo=halo), layout).relu()
        x = self.norm2(self.conv2(x, layout, halo=halo), layout)
        return (x + shortcut).relu()  # type: ignore[operator]


class CenterFocusCNN(nn.Module):
    """A glimpse to feature maps, one map of `S / 16` cells a side for every window.

    Args:
        name: one of "nano", "tiny", "small", "base".
        halo: fill every window's rim from the windows around; False pads each with zeros.
        periphery_channels: leading fraction of every layer's channels that windows coarser than level 0 compute.
        gating: a `ChannelGating` after each stage, which ranks the channels; see `sort_channels`.
        floor: the least weight of the Gaussian attention.

    Raises:
        ValueError: for an unknown name or a fraction out of range.

    Example:
        >>> glimpse = Retina(size=64, levels=3)(torch.rand(3, 256, 256))
        >>> CenterFocusCNN("nano")(glimpse).shape
        torch.Size([1, 3, 128, 4, 4])
    """

    stride = 16

    def __init__(
        self,
        name: str = "small",
        *,
        halo: bool = True,
        periphery_channels: float = 1.0,
        gating: bool = False,
        floor: float = 0.25,
    ) -> None:
        super().__init__()
        if name not in SIZES:
            raise ValueError(f"unknown size {name!r}; choose one of {', '.join(SIZES)}")
        widths, depths = SIZES[name]
        self.name, self.halo, self.periphery_channels, self.floor = name, halo, periphery_channels, floor
        self.channels = widths[-1]
        width = periphery_channels
        self.stem = SlimConv2d(3, widths[0], 3, stride=2, padding=1, bias=False, width=width)
        self.stem_norm = SlimNorm2d(widths[0], width=width)
        self.stages, self.attentions, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = widths[0]
        for stage, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = nn.ModuleList()
            for block in range(depth):
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(ResidualBlock(channels, wide, stride=stride, width=width))
                channels = wide
            self.stages.append(blocks)
            self.attentions.append(GaussianSpatialAttention(SIGMAS[stage], floor=floor))
            if gating:
                self.gates.append(ChannelGating(wide))

    def forward(self, glimpse: Glimpse) -> Tensor:
        """(B, K, 3, S, S) pixels -> (B, K, C, S / 16, S / 16) features.

        Channels that the periphery does not compute are zero.

        Raises:
            ValueError: if S is not a multiple of 16.
        """
        pixels, layout = glimpse.pixels, glimpse.layout
        if layout.size % self.stride:
            raise ValueError(f"windows of {layout.size} cells are not a multiple of the network's stride {self.stride}")
        x: Tensor | Split = pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.periphery_channels < 1:
            x = split(x, layout)  # type: ignore[arg-type]
        x = self.stem_norm(self.stem(x, layout, halo=self.halo), layout).relu()
        for stage, blocks in enumerate(self.stages):
            for block in cast(nn.ModuleList, blocks):
                x = block(x, layout, halo=self.halo)
            x = self._weigh(x, layout, stage)
        if isinstance(x, Split):
            x = merge(x, layout)
        return x.unflatten(0, pixels.shape[:2])

    def _weigh(self, x: Tensor | Split, layout: Layout, stage: int) -> Tensor | Split:
        """The stage's attention and gate, which look at all windows together."""
        whole = merge(x, layout) if isinstance(x, Split) else x
        whole = self.attentions[stage](whole, layout)
        if self.gates:
            whole = self.gates[stage](whole, layout)
        if isinstance(x, Split):
            parts = split(whole, layout)
            return Split(parts.fine, parts.coarse[:, : x.coarse.shape[1]])
        return whole

    @torch.no_grad()
    def sort_channels(self) -> Tensor:
        """Sorts the channels of every stage by what its gate has learned, best first; the function stays the same.

        Afterwards the leading part, which a narrow periphery computes, is the learned best part. Channels inside a
        block are sorted by their norm's scale (network slimming, Liu et al. 2017).

        Returns:
            (C,) int64: which channel of the features each one was before, `after == before[..., order, :, :]`.

        Raises:
            ValueError: if the network has no gates, or its periphery is already narrow.
        """
        if not self.gates or self.periphery_channels < 1:
            raise ValueError(
                f"sorting needs gating=True and a full-width network (periphery_channels=1); this one has "
                f"gating={bool(self.gates)} and periphery_channels={self.periphery_channels}"
            )
        stages = [[cast(ResidualBlock, block) for block in cast(nn.ModuleList, blocks)] for blocks in self.stages]
        for stage, blocks in enumerate(stages):
            gate = cast(ChannelGating, self.gates[stage])
            order = gate.importance.argsort(descending=True, stable=True)
            if stage == 0 and blocks[0].project is None:
                _permute_outputs(self.stem, self.stem_norm, order)
            for position, block in enumerate(blocks):
                if position or (stage == 0 and block.project is None):
                    _permute_inputs(block.conv1, order)
                inner = block.norm1.weight.abs().argsort(descending=True, stable=True)
                _permute_outputs(block.conv1, block.norm1, inner)
                _permute_inputs(block.conv2, inner)
                _permute_outputs(block.conv2, block.norm2, order)
                if block.project is not None:
                    _permute_outputs(block.project, block.project_norm, order)
            gate.permute_channels(order)
            if stage + 1 < len(stages):
                following = stages[stage + 1][0]
                _permute_inputs(following.conv1, order)
                if following.project is not None:
                    _permute_inputs(following.project, order)
        return order

    @torch.no_grad()
    def narrowed(self, periphery_channels: float) -> CenterFocusCNN:
        """These weights in a network whose periphery computes only the leading channels.

        Its norms for the narrow width start from the leading part of the others; they are to be trained. Sort the
        channels first, so that the leading part is the best.

        Args:
            periphery_channels: fraction of every layer's channels, in (0, 1].

        Returns:
            A new network, on the same device and in the same dtype and mode.

        Raises:
            ValueError: if the periphery is narrow already, or for a fraction out of range.

        Example:
            >>> network = CenterFocusCNN("nano", gating=True)
            >>> order = network.sort_channels()
            >>> network.narrowed(0.5).periphery_channels
            0.5
        """
        if self.periphery_channels < 1:
            raise ValueError(
                f"the periphery already computes only {self.periphery_channels} of the channels; narrow a network of "
                f"full width (periphery_channels=1)"
            )
        narrow = CenterFocusCNN(
            self.name, halo=self.halo, periphery_channels=periphery_channels, gating=bool(self.gates), floor=self.floor
        )
        state = self.state_dict()
        for name, value in narrow.state_dict().items():
            if name not in state:
                full = state[name.replace(".periphery.", ".")]
                state[name] = full[: len(value)] if value.ndim else full
        narrow.load_state_dict(state)
        for name, value in self.named_parameters():
            narrow.get_parameter(name).requires_grad_(value.requires_grad)
        return narrow.to(self.stem.weight).train(self.training)


def _permute_inputs(conv: nn.Conv2d, order: Tensor) -> None:
    conv.weight.copy_(conv.weight[:, order])


def _permute_outputs(conv: nn.Conv2d, norm: nn.BatchNorm2d, order: Tensor) -> None:
    conv.weight.copy_(conv.weight[order])
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert values is not None
        values.copy_(values[order])
