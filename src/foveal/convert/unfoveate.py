"""Window maps back to one dense grid of the picture, so that any head for dense maps can follow a foveated network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foveal.arguments import whole_number
from foveal.layout import Layout
from foveal.retina import draw


def unfoveate(features: Tensor, layout: Layout, size: int | Sequence[int]) -> Tensor:
    """At each place of a dense grid the finest value that is there.

    The values are those of the cells, not interpolated: a coarse cell gives a block of equal ones.

    Args:
        features: (B, K, C, n, n) float, maps of the K windows.
        layout: of the windows, for the same B pictures or one layout for all of them.
        size: height and width of the grid, in cells, or one number for both; the whole picture is laid into it.

    Returns:
        (B, C, height, width), in the dtype and on the device of the features; 0 where no window lies. Differentiable
        with respect to the features.

    Raises:
        ValueError: if the features are not maps of the layout's windows, or for an impossible size.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> unfoveate(torch.rand(1, 3, 8, 4, 4), layout, 16).shape
        torch.Size([1, 8, 16, 16])
    """
    if not isinstance(features, Tensor):
        raise ValueError(f"features are a {type(features).__name__}; expected a tensor (B, K, C, n, n)")
    if not isinstance(layout, Layout):
        raise ValueError(f"layout is {layout!r}; expected the Layout of the windows that the features are maps of")
    sides = list(size) if isinstance(size, Sequence | Tensor) else [size, size]
    if len(sides) != 2:
        raise ValueError(f"size is {size!r}; expected a height and a width, or one number for both")
    height, width = (whole_number(side, name, 1) for side, name in zip(sides, ("height", "width"), strict=True))
    maps = features.ndim == 5 and features.shape[1] == layout.num_windows and features.shape[3] == features.shape[4] > 0
    if not maps or len(layout) not in (1, len(features)):
        raise ValueError(
            f"features have shape {tuple(features.shape)}; expected (B, {layout.num_windows}, C, n, n), a map for each "
            f"of the {layout.num_windows} windows of a layout for {len(layout)} picture(s)"
        )
    return draw(features, layout, height, width)
