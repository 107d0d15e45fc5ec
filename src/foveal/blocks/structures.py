"""Structures that networks are stacked from: a convolution with norm and activation, a bottleneck, a CSP stage."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from foveal.blocks.conv_sizes import Sides, require_multiple, same_padding
from foveal.blocks.registry import Block

Layer = Callable[..., nn.Module]


def conv_norm_act(
    channels: int,
    *,
    out_channels: int | None = None,
    kernel_size: Sides = 3,
    stride: Sides = 1,
    dilation: Sides = 1,
    groups: int = 1,
    norm_layer: Layer | None = nn.BatchNorm2d,
    act_layer: Layer | None = nn.ReLU,
    bias: bool | None = None,
) -> nn.Module:
    """Convolution, norm, activation: `y = act(norm(conv(x)))`, padded so that maps keep their size, but for the stride.

    Batch Normalization, Ioffe and Szegedy 2015. The padding follows from kernel, stride and dilation, so that a
    side of n comes out as `ceil(n / stride)`; where the reach `dilation * (k - 1) + 1` is even and the
    stride above 1, as `ceil((n - 1) / stride)`.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`; H - 1 and W - 1 in such a case.
    Parameters: `C_out * C / groups * k * k + 2 * C_out`; without a norm `C_out` for the bias instead of `2 * C_out`.

    Use it when building any network: it is the unit that all others are made of.
    Not before an addition with its activation on: the sum comes first there (`act_layer=None`).

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k, the cells along its side, or (along y, along x).
        stride: cells from one output to the next.
        dilation: cells from one tap to the next.
        groups: parts that the channels are split into, each convolved alone.
        norm_layer: called with C_out; None for no norm.
        act_layer: called without arguments; None for no activation.
        bias: of the convolution; by default only where there is no norm.

    Raises:
        ValueError: for channels that the groups do not divide, or a size that no padding keeps.
        ImportError: without torchvision.

    Example:
        >>> unit = create_block("conv_norm_act", channels=8, out_channels=16, kernel_size=5, stride=2)
        >>> unit(torch.rand(2, 8, 32, 32)).shape
        torch.Size([2, 16, 16, 16])
    """
    try:
        from torchvision.ops import Conv2dNormActivation
    except ImportError as error:
        raise ImportError("conv_norm_act is torchvision's; pip install 'foveal[train]'") from error
    out_channels = channels if out_channels is None else out_channels
    require_multiple(groups, "groups", channels=channels, out_channels=out_channels)
    made: nn.Module = Conv2dNormActivation(
        channels,
        out_channels,
        kernel_size,
        stride,
        same_padding(kernel_size, stride=stride, dilation=dilation),
        groups,
        norm_layer,
        act_layer,
        dilation,
        inplace=None,
        bias=bias,
    )
    return made


def residual_bottleneck(
    channels: int,
    *,
    out_channels: int | None = None,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm_layer: Layer | None = None,
) -> nn.Module:
    """The residual bottleneck: `y = relu(x' + f(x))`, f a 1 x 1 to a quarter, a 3 x 3, and a 1 x 1 back.

    Deep Residual Learning, He et al. 2016, the stride on the 3 x 3. The shortcut x' is x itself, or a projection by
    1 x 1 with a norm where the number of channels or the size changes.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: with `M = C_out / 4`: `C * M + 9 * M * M / groups + M * C_out + 4 * M + 2 * C_out`, and
        `C * C_out + 2 * C_out` for a projection.

    Use it when a network is deep: gradients reach early layers through the sums.
    Not with few channels: a quarter of 32 is too narrow a neck; two plain 3 x 3 convolutions do better there.

    Args:
        channels: C.
        out_channels: C_out, a multiple of 4; C by default.
        stride: cells from one output to the next.
        dilation: of the 3 x 3.
        groups: of the 3 x 3, as in ResNeXt.
        norm_layer: called with a number of channels; batch norm by default.

    Raises:
        ValueError: for channels that 4 or the groups do not divide, or channels, a stride or a dilation below 1.
        ImportError: without torchvision.

    Example:
        >>> create_block("residual_bottleneck", channels=16, out_channels=32, stride=2)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """
    try:
        from torchvision.models.resnet import Bottleneck
    except ImportError as error:
        raise ImportError("residual_bottleneck is torchvision's; pip install 'foveal[train]'") from error
    if min(channels, stride, dilation) < 1:
        raise ValueError(f"channels {channels}, stride {stride}, dilation {dilation}: expected each at least 1")
    out_channels = channels if out_channels is None else out_channels
    require_multiple(Bottleneck.expansion, "the bottleneck's ratio of", out_channels=out_channels)
    middle = out_channels // Bottleneck.expansion
    require_multiple(groups, "groups", middle_channels=middle)
    norm = nn.BatchNorm2d if norm_layer is None else norm_layer
    shortcut = None
    if stride != 1 or channels != out_channels:
        shortcut = nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), norm(out_channels))
    # Theirs gives each group the whole part of `middle * width / 64` channels.
    width = (64 * (middle // groups) + 0.5) / middle
    made: nn.Module = Bottleneck(channels, middle, stride, shortcut, groups, width, dilation, norm)
    return made


def csp_stage(
    channels: int,
    *,
    out_channels: int | None = None,
    depth: int = 2,
    stride: int = 1,
    groups: int = 1,
    bottle_ratio: float = 0.5,
) -> nn.Module:
    """The cross-stage partial stage: split the channels in two, send one half through `depth` blocks, merge both.

    CSPNet, Wang et al. 2020: `y = merge(cat(x_1, blocks(x_2)))`, each step a convolution with norm and leaky ReLU. Half
    of the channels skip the blocks, which halves their cost and keeps gradients from being computed twice.

    Shapes: `(B, C, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))`.
    Parameters: with `h = C_out / 2`, `m = h * bottle_ratio`, and norms of 2 for each channel that comes out:
        `C * C_out + depth * (2 * h * m + 9 * m * m / groups) + h * h + C_out * C_out
        + 2 * (2 * C_out + h + depth * (2 * m + h))`, and `9 * C * C / groups + 2 * C` with a stride.

    Use it when a residual stage is to cost about half at little loss, in detectors above all.
    Not for a depth of 1 in narrow stages, where the 1 x 1 convolutions around the split cost more than they save.

    Args:
        channels: C.
        out_channels: C_out, even; C by default.
        depth: residual bottlenecks that the half goes through.
        stride: 1, or 2 by a 3 x 3 convolution before the split.
        groups: of the 3 x 3 convolutions.
        bottle_ratio: how wide the blocks' middle is.

    Raises:
        ValueError: for odd channels, a depth below 1, another stride, or channels that the groups do not divide.
        ImportError: without timm.

    Example:
        >>> create_block("csp_stage", channels=16, out_channels=32, stride=2)(torch.rand(2, 16, 16, 16)).shape
        torch.Size([2, 32, 8, 8])
    """
    try:
        from timm.models.cspnet import BottleneckBlock, CrossStage
    except ImportError as error:
        raise ImportError("csp_stage is timm's; pip install 'foveal[train]'") from error
    out_channels = channels if out_channels is None else out_channels
    if depth < 1 or stride not in (1, 2):
        raise ValueError(f"depth {depth}, stride {stride}: expected a depth of at least 1 and a stride of 1 or 2")
    require_multiple(2, "a split of", out_channels=out_channels)
    middle = round(out_channels // 2 * bottle_ratio)
    require_multiple(groups, "groups", middle_channels=middle)
    if stride != 1:
        require_multiple(groups, "groups", channels=channels)
    made: nn.Module = CrossStage(
        channels,
        out_channels,
        stride,
        1,
        depth,
        block_ratio=0.5,
        bottle_ratio=bottle_ratio,
        groups=groups,
        block_fn=BottleneckBlock,
        act_layer=nn.LeakyReLU,
        norm_layer=nn.BatchNorm2d,
    )
    return made


BLOCKS = (
    Block("conv_norm_act", conv_norm_act, origin="torchvision"),
    Block("residual_bottleneck", residual_bottleneck, origin="torchvision"),
    Block("csp_stage", csp_stage, origin="timm"),
)
