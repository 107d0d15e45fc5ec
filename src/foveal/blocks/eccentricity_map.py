"""How far from the fixation every cell lies: the one step by which a block tells the centre from the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.blocks.across_windows import across_windows
from foveal.layout import Layout


@across_windows
def squared_eccentricity(x: Tensor, place: Tensor | None = None) -> Tensor:
    """Squared distance of every cell from a place, in units of half the picture's longer side; never in half precision.

    Args:
        x: (B, C, H, W), of which only the shape, the device and the dtype count.
        place: (2,) or (B, 2), (y, x) relative to the picture; None for the fixation, which is the middle of maps that
            know of none. Glimpses count from the nearest fixation of their layout.

    Returns:
        (B, 1, H, W), or (1, 1, H, W) where all pictures have the same.

    Raises:
        ValueError: for a place of another shape.
    """
    height, width = x.shape[-2:]
    half, dtype = max(height, width) / 2, torch.promote_types(x.dtype, torch.float32)
    place = torch.full((1, 2), 0.5, dtype=dtype, device=x.device) if place is None else place_of(place, x, x.shape[0])
    axes = [
        ((torch.arange(side, device=x.device, dtype=place.dtype) + 0.5 - place[:, axis, None] * side) / half).square()
        for axis, side in enumerate((height, width))
    ]
    return (axes[0][:, :, None] + axes[1][:, None])[:, None]


@across_windows
def squared_eccentricity_around(x: Tensor, fixation: Tensor) -> Tensor:
    """`squared_eccentricity` from a fixation that a caller names; glimpses refuse it, as they have their own."""
    return squared_eccentricity(x, fixation)


def place_of(place: Tensor, x: Tensor, batch: int) -> Tensor:
    """(1 or B, 2) in single precision or better, whatever holds it.

    Raises:
        ValueError: for another shape.
    """
    place = torch.as_tensor(place, device=x.device)
    place = place.to(torch.promote_types(place.dtype, torch.float32))
    # One place for all is not compared with the batch, which an exported graph would then fix.
    if place.shape not in ((2,), (1, 2)) and place.shape != (batch, 2):
        raise ValueError(f"fixation has shape {tuple(place.shape)}; expected (2,) or ({batch}, 2), y and x each")
    return place.view(-1, 2)


def eccentricity_map(x: Tensor, fixation: Tensor | None = None) -> Tensor:
    """Eccentricity of every cell over half the picture's longer side, so that it is alike for all picture sizes.

    Glimpses know where they look: there it is the distance from the nearest fixation of their layout.

    Args:
        x: (B, C, H, W), of which only the shape, the device and the dtype count.
        fixation: (B, 2) or (2,), (y, x) relative to the picture; its centre by default. Not for glimpses.

    Returns:
        (B, 1, H, W) in the dtype of x, or (1, 1, H, W) where all pictures have the same.

    Raises:
        ValueError: for a fixation of another shape.

    Example:
        >>> eccentricity_map(torch.zeros(1, 3, 3, 4))[0, 0, 1].tolist()
        [0.75, 0.25, 0.25, 0.75]
    """
    return _squares(x, fixation).sqrt().to(x.dtype)


def center_weights(x: Tensor, sigma: float, floor: float, fixation: Tensor | None = None) -> Tensor:
    """`floor + (1 - floor) * exp(-e**2 / (2 * sigma**2))` for every cell: 1 at the fixation, `floor` far from it.

    Args:
        x: (B, C, H, W), of which only the shape, the device and the dtype count.
        sigma: the width, in units of half the picture's longer side.
        floor: the weight infinitely far away.
        fixation: as of `eccentricity_map`.

    Returns:
        as of `eccentricity_map`.

    Raises:
        ValueError: for a fixation of another shape.
    """
    return weights_at(_squares(x, fixation), sigma, floor).to(x.dtype)


def weights_at(squares: Tensor, sigma: float | Tensor, floor: float) -> Tensor:
    """The weights of `center_weights` at squared eccentricities."""
    return floor + (1 - floor) * torch.exp(squares / (-2 * sigma * sigma))


def _squares(x: Tensor, fixation: Tensor | None) -> Tensor:
    return squared_eccentricity(x) if fixation is None else squared_eccentricity_around(x, fixation)


def layout_eccentricity(layout: Layout, n: int, place: Tensor | None) -> Tensor:
    """(B, K, n, n): `squared_eccentricity` of the cells of windows, float32 or the dtype of `place`.

    Args:
        layout: of the glimpses.
        n: cells along a window's side.
        place: (1 or B, 2), (y, x) relative to the picture; None for the nearest fixation.
    """
    half = layout.pictures.amax(1).float() / 2
    if place is None:
        return (layout.eccentricity(n) / half[:, None, None, None]).square()
    # Both before the subtraction in units of half the longer side: far places in pixels pass what a float32 holds.
    half = half.double()[:, None, None, None, None]
    places, sides = layout.cell_places(n) / half, layout.pictures[:, None, None, None] / half
    return (places.to(place) - place[:, None, None, None] * sides.to(place)).square().sum(-1)


def refuse_impossible_weights(sigma: float, floor: float) -> None:
    """Raises ValueError where `center_weights` would be none."""
    if not sigma > 0 or not 0 <= floor < 1:
        raise ValueError(f"sigma is {sigma!r} and floor {floor!r}; expected sigma above 0 and floor in [0, 1)")
