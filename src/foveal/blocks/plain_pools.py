"""PyTorch's own pools: the largest or the mean of windows of cells, of the whole picture, or of a fixed grid of it."""

from __future__ import annotations

from typing import Literal

from torch import nn

from foveal.blocks.registry import Block


def max_pool(
    channels: int, *, kernel_size: int = 2, stride: int | None = None, padding: int = 0, dilation: int = 1
) -> nn.MaxPool2d:
    """Max pooling, `y = max(x[window])`: the strongest response of each window of k x k cells. PyTorch's.

    Boureau et al. 2010 on when it beats the mean.

    Shapes: `(B, C, H, W) -> (B, C, H', W')`, `H' = floor((H + 2 * padding - dilation * (k - 1) - 1) / stride) + 1`.

    Parameters: `0`.

    Use it where it matters that something is there and not how much of it, as early in classifiers.
    Not where shifts by a pixel must not show (see `blur_pool`), nor where every cell needs gradient.

    Args:
        channels: C; the pool is the same for any number of them.
        kernel_size: k, cells along a window's side.
        stride: from window to window; k by default.
        padding: cells around the map, which are never the largest; at most half of k.
        dilation: from cell to cell of a window.

    Raises:
        ValueError: for channels or sides below 1, or a padding above half the kernel.

    Example:
        >>> create_block("max_pool", channels=8)(torch.rand(2, 8, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """
    require_channels(channels)
    stride = known_stride(kernel_size, stride, padding)
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; expected a whole number of at least 1")
    return nn.MaxPool2d(kernel_size, stride, padding, dilation)


def average_pool(
    channels: int, *, kernel_size: int = 2, stride: int | None = None, padding: int = 0, count_padding: bool = True
) -> nn.AvgPool2d:
    """Average pooling, `y = mean(x[window])`: what each window of k x k cells holds on the whole. PyTorch's.

    LeCun et al. 1998.

    Shapes: `(B, C, H, W) -> (B, C, H', W')`, `H' = floor((H + 2 * padding - k) / stride) + 1`.

    Parameters: `0`.

    Use it where it matters how much there is, and where every cell should receive gradient.
    Not where a weak response beside nothing must survive: the mean thins it out by k * k.

    Args:
        channels: C; the pool is the same for any number of them.
        kernel_size: k, cells along a window's side.
        stride: from window to window; k by default.
        padding: cells of zeros around the map; at most half of k.
        count_padding: whether those count in the mean.

    Raises:
        ValueError: for channels or sides below 1, or a padding above half the kernel.

    Example:
        >>> create_block("average_pool", channels=8, kernel_size=3, stride=2, padding=1)(torch.rand(2, 8, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """
    require_channels(channels)
    return nn.AvgPool2d(
        kernel_size, known_stride(kernel_size, stride, padding), padding, count_include_pad=count_padding
    )


def overlapping_pool(
    channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 2,
    padding: int = 0,
    kind: Literal["max", "average"] = "max",
) -> nn.MaxPool2d | nn.AvgPool2d:
    """Overlapping pooling, windows of k x k cells at a stride below k, so that neighbours share cells. PyTorch's.

    Krizhevsky et al. 2012 (AlexNet): 3 x 3 at stride 2, found a little harder to overfit than 2 x 2 at stride 2.

    Shapes: `(B, C, H, W) -> (B, C, H', W')`, `H' = floor((H + 2 * padding - k) / stride) + 1`.

    Parameters: `0`.

    Use it in place of 2 x 2 pooling where a network overfits, or where an object at a window's edge must not be lost.
    Not without padding where sizes must halve exactly: 3 at stride 2 makes 7 of 16; with a padding of 1 it makes 8.

    Args:
        channels: C; the pool is the same for any number of them.
        kernel_size: k, cells along a window's side.
        stride: from window to window, below k.
        padding: cells around the map; at most half of k. AlexNet has none.
        kind: the "max" or the "average" of each window.

    Raises:
        ValueError: for channels or sides below 1, a stride not below the kernel, too much padding, another kind.

    Example:
        >>> create_block("overlapping_pool", channels=8)(torch.rand(2, 8, 13, 13)).shape
        torch.Size([2, 8, 6, 6])
    """
    require_channels(channels)
    _refuse_kind(kind)
    if stride >= kernel_size:
        raise ValueError(f"stride {stride} is not below kernel_size {kernel_size}, so no windows overlap; see max_pool")
    make = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
    return make(kernel_size, known_stride(kernel_size, stride, padding), padding)


def global_pool(
    channels: int, *, kind: Literal["max", "average"] = "average", flatten: bool = True
) -> nn.Sequential | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d:
    """Global pooling, `y = mean(x)` or `max(x)` over the whole picture: one number a channel. PyTorch's.

    Lin et al. 2013 (Network in Network). On glimpses a cell weighs the picture area that it alone stands for.

    Shapes: `(B, C, H, W) -> (B, C)`; without flattening `(B, C, 1, 1)`.

    Parameters: `0`.

    Use it before a classifier: no weight is tied to a place, and any picture size serves.
    Not where the answer depends on where something is; `spatial_pyramid_pool` and `adaptive_pool` keep some of it.

    Args:
        channels: C; the pool is the same for any number of them.
        kind: the "average" or the "max".
        flatten: leave out the two sides of 1.

    Raises:
        ValueError: for channels below 1, or another kind.

    Example:
        >>> create_block("global_pool", channels=8)(torch.rand(2, 8, 5, 7)).shape
        torch.Size([2, 8])
    """
    require_channels(channels)
    _refuse_kind(kind)
    pool = nn.AdaptiveMaxPool2d(1) if kind == "max" else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(pool, nn.Flatten()) if flatten else pool


def adaptive_pool(
    channels: int, *, size: int | tuple[int, int] = 7, kind: Literal["max", "average"] = "average"
) -> nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d:
    """Adaptive pooling, `y[i, j] = pool(x[floor(i * H / P) : ceil((i + 1) * H / P), ...])`, P x Q bins. PyTorch's.

    The bins are those of He et al. 2014. On glimpses they are those of the whole picture: of the cells that alone
    stand for some of a bin, the mean by area, or the largest.

    Shapes: `(B, C, H, W) -> (B, C, P, Q)`.

    Parameters: `0`.

    Use it before layers that need one size of map, such as the classifier of VGG.
    Not to shrink maps inside a network: the bins overlap unevenly where sizes do not divide. ONNX has the "max" only
    of sizes that divide the map's.

    Args:
        channels: C; the pool is the same for any number of them.
        size: P and Q, or one number for both.
        kind: the "average" or the "max" of each bin.

    Raises:
        ValueError: for channels or a size below 1, or another kind.

    Example:
        >>> create_block("adaptive_pool", channels=8, size=(2, 3))(torch.rand(2, 8, 11, 7)).shape
        torch.Size([2, 8, 2, 3])
    """
    require_channels(channels)
    _refuse_kind(kind)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or any(side < 1 for side in sides):
        raise ValueError(f"size is {size}; expected one or two whole numbers of at least 1")
    return nn.AdaptiveMaxPool2d(sides) if kind == "max" else nn.AdaptiveAvgPool2d(sides)


def require_channels(channels: int) -> None:
    """Refuses a block that is to take maps without channels."""
    if channels < 1:
        raise ValueError(f"channels is {channels}; expected at least 1")


def known_stride(kernel_size: int, stride: int | None, padding: int) -> int:
    """The stride of a pool, the kernel's side by default; impossible windows are refused."""
    stride = kernel_size if stride is None else stride
    if kernel_size < 1 or stride < 1:
        raise ValueError(f"kernel_size is {kernel_size} and stride {stride}; expected whole numbers of at least 1")
    if not 0 <= padding <= kernel_size // 2:
        raise ValueError(
            f"padding is {padding}; expected 0 to {kernel_size // 2}, half of kernel_size {kernel_size}: no window may "
            f"hold padding alone"
        )
    return stride


def _refuse_kind(kind: str) -> None:
    if kind not in ("max", "average"):
        raise ValueError(f"kind is {kind!r}; expected 'max' or 'average'")


BLOCKS = (
    Block("max_pool", max_pool, origin="torch"),
    Block("average_pool", average_pool, origin="torch"),
    Block("overlapping_pool", overlapping_pool, origin="torch"),
    Block("global_pool", global_pool, origin="torch"),
    Block("adaptive_pool", adaptive_pool, origin="torch"),
)
