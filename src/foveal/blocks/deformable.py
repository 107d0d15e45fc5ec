"""Convolutions whose taps move: by offsets that are read from the map itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from foveal.blocks.across_windows import across_windows
from foveal.blocks.conv_sizes import require_multiple, same_padding
from foveal.blocks.registry import Block

_MISSING = "deformable convolutions are torchvision's; pip install 'foveal[train]'"


class DeformableConv(nn.Module):
    """Deformable convolution: `y(p) = sum over taps k of w_k * m_k(p) * x(p + p_k + o_k(p))`, read bilinearly.

    Deformable Convolutional Networks, Dai et al. 2017 (version 1, m = 1), and v2, Zhu et al. 2019 (version 2, m a
    sigmoid). Offsets `o` and masks `m` come from a convolution of the same map, which starts at zero: taps on the grid,
    masks at one half. The sampling is torchvision's. Offsets are unbounded: windows of a glimpse take as wide a rim as
    the offsets at hand need, which a traced graph cannot know and refuses (`center_deformable_conv` is bounded).

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: `C_out * C / groups * k * k + C_out`, and for the offsets `C * k * k * P + P` with
        `P = offset_groups * k * k * 2` in version 1, `* 3` in version 2.

    Use it when things deform or turn, late in a network where maps are small.
    Not early, nor on accelerators without the operator: it gathers four cells for every tap and channel.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k, odd.
        stride: cells from one output to the next.
        dilation: cells from one tap to the next, at the start.
        groups: parts that the channels are split into, each convolved alone.
        offset_groups: parts of the channels with offsets of their own.
        version: 1 moves the taps, 2 weighs them too.
        bias: whether a learned number is added to each channel.

    Raises:
        ValueError: for an even kernel, another version, or channels that the groups do not divide.
        ImportError: without torchvision.

    Example:
        >>> create_block("deformable_conv", channels=8, version=1)(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        version: int = 2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        try:
            from torchvision.ops import DeformConv2d
        except ImportError as error:
            raise ImportError(_MISSING) from error
        out_channels = channels if out_channels is None else out_channels
        if version not in (1, 2):
            raise ValueError(f"version is {version!r}; expected 1 or 2")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; expected an odd one, so that taps have a centre")
        require_multiple(groups, "groups", channels=channels, out_channels=out_channels)
        require_multiple(offset_groups, "offset_groups", channels=channels)
        padding = same_padding(kernel_size, stride=stride, dilation=dilation)
        self.taps = offset_groups * kernel_size * kernel_size
        self.version = version
        self.conv = DeformConv2d(channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.offsets = nn.Conv2d(channels, self.taps * (version + 1), kernel_size, stride, padding, dilation)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride)."""
        read = self.offsets(x)
        if self.version == 1:
            return _deformed(self.conv, x, read, None)
        return _deformed(self.conv, x, read[:, : 2 * self.taps], read[:, 2 * self.taps :].sigmoid())


class CenterDeformConv(DeformableConv):
    """Deformable convolution, bounded, from the centre out: `o_k(p) = reach * tanh(f_k(x)(p)) - contraction * p_k`.

    After Dai et al. 2017. Taps start drawn towards the kernel's centre by `contraction` (0: on the grid, 1: all in the
    centre) and move at most `reach` cells along either axis from there. `penalty` keeps them near where the task does
    not ask for more. As the reach is bounded, so is the rim of a window, in traced graphs too.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: those of `deformable_conv`.

    Use it when a foveated network is to look about in its own neighbourhood, or where free offsets run away.
    Not for large deformations: `reach` is the limit.

    Args:
        channels: C.
        contraction: from 0 to 1, how far taps start drawn to the centre.
        reach: cells along either axis that a tap can move, above 0.
        options: of `deformable_conv`.

    Raises:
        ValueError: for a contraction or reach out of range, and as `deformable_conv`.
        ImportError: without torchvision.

    Example:
        >>> block = create_block("center_deformable_conv", channels=8)
        >>> block(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
        >>> block.penalty.item()  # nothing has moved yet
        0.0
    """

    start: Tensor

    def __init__(self, channels: int, *, contraction: float = 0.5, reach: float = 2.0, **options: Any) -> None:
        super().__init__(channels, **options)
        if not 0 <= contraction <= 1:
            raise ValueError(f"contraction is {contraction}; expected a number from 0 to 1")
        if not 0 < reach < math.inf:
            raise ValueError(f"reach is {reach}; expected a number of cells above 0")
        self.contraction, self.reach = contraction, reach
        side, spread = self.conv.kernel_size[0], self.conv.dilation[0]
        along = (torch.arange(side) - side // 2) * float(spread)
        places = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1).flatten(0, 1)  # (taps, 2), y and x
        start = (-contraction * places).repeat(self.taps // len(places), 1)
        self.register_buffer("start", start.view(1, -1, 1, 1), persistent=False)
        self._penalty: Tensor | None = None

    @property
    def penalty(self) -> Tensor:
        """The mean square of how far taps moved from their start in the latest call, in cells; add it to the loss.

        Raises:
            RuntimeError: before the first call.
        """
        if self._penalty is None:
            raise RuntimeError("the penalty is of the latest call; call the block first")
        return self._penalty

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride)."""
        read = self.offsets(x)
        moved = self.reach * torch.tanh(read[:, : 2 * self.taps])
        self._keep(moved)
        mask = read[:, 2 * self.taps :].sigmoid() if self.version == 2 else None
        return deform_within(x, moved + self.start.to(moved.dtype), mask, self.conv, self.reach)

    def _keep(self, moved: Tensor) -> None:
        # A graph that is exported gives what it returns and nothing else.
        if self.training or not torch.compiler.is_compiling():
            self._penalty = mean_of_pictures(moved.square().mean((2, 3)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_penalty": None}  # a result with its graph cannot be copied

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"contraction={self.contraction}, reach={self.reach}"


@across_windows
def deform_within(x: Tensor, offset: Tensor, mask: Tensor | None, conv: Any, reach: float) -> Tensor:
    """A deformable convolution whose taps stay within `reach` cells of the square of its kernel."""
    return _deformed(conv, x, offset, mask)


def working_dtype(weight: Tensor) -> torch.dtype:
    """What the sampling is computed in: all of it in the dtype of the kernel, but for bfloat16 on a CPU."""
    rough = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    return torch.float32 if rough else weight.dtype


def _deformed(conv: Any, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    dtype = working_dtype(conv.weight)
    given = [None if part is None else part.to(dtype) for part in (x, offset, mask)]
    if dtype == conv.weight.dtype:
        result: Tensor = conv(*given)
    else:
        from torchvision.ops import deform_conv2d

        maps, moved, weighed = given
        bias = None if conv.bias is None else conv.bias.to(dtype)
        shape = (conv.stride, conv.padding, conv.dilation)
        result = deform_conv2d(maps, moved, conv.weight.to(dtype), bias, *shape, weighed)
    return result.to(x.dtype)


@across_windows
def mean_of_pictures(x: Tensor) -> Tensor:
    """(B, C) of whole pictures -> ()."""
    return x.mean()


BLOCKS = (
    Block("deformable_conv", DeformableConv, origin="torchvision"),
    Block("center_deformable_conv", CenterDeformConv),
)
