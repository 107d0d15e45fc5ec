"""Sizes that convolutions have to fit: a padding that keeps a map's size, channels that groups and branches divide."""

from __future__ import annotations

from typing import Literal

from foveal.halo_table import pair

Sides = int | tuple[int, int]
"""One number for both sides, or (along y, along x)."""


def same_padding(kernel_size: Sides, *, stride: Sides = 1, dilation: Sides = 1) -> tuple[int, int] | Literal["same"]:
    """The padding by which a map of side n comes out with `ceil(n / stride)` cells.

    Where the kernel reaches an even number of cells and the stride is above 1, no padding that is the same before and
    after does so for every n: there `ceil((n - 1) / stride)` come out, one fewer for some n.

    Args:
        kernel_size, stride, dilation: of the convolution.

    Returns:
        What `torch.nn.Conv2d` takes as `padding`. "same" where an even reach needs one cell more after than before.

    Raises:
        ValueError: for sizes below 1, and for even reaches where only one of the sides has a stride.

    Example:
        >>> same_padding(3, dilation=2), same_padding(4, stride=2), same_padding(4)
        ((2, 2), (1, 1), 'same')
    """
    sizes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    for name, value in sizes.items():
        if min(pair(value)) < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    reaches = [spread * (side - 1) + 1 for side, spread in zip(pair(kernel_size), pair(dilation), strict=True)]
    uneven = [reach % 2 == 0 and step == 1 for reach, step in zip(reaches, pair(stride), strict=True)]
    if not any(uneven):
        return (reaches[0] - 1) // 2, (reaches[1] - 1) // 2
    if pair(stride) != (1, 1):
        raise ValueError(
            f"a kernel of {kernel_size} with dilation {dilation} reaches an even number of cells where the stride "
            f"{stride} is 1, and no padding keeps a map's size there; choose an odd kernel_size"
        )
    return "same"


def require_multiple(of: int, name: str, **channels: int) -> None:
    """Refuses numbers of channels that are no multiples of what they are to be divided into.

    Raises:
        ValueError: naming both, and which divisors fit.
    """
    if of < 1:
        raise ValueError(f"{name} is {of}; expected at least 1")
    for which, many in channels.items():
        if many < 1 or many % of:
            fit = [part for part in range(1, many + 1) if not many % part]
            hint = f"{many} is divisible by {', '.join(map(str, fit))}" if fit else "expected at least 1"
            raise ValueError(f"{which} is {many}, which {name} {of} does not divide; {hint}")
