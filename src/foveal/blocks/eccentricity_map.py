"""How far from the fixation every cell lies: the one step by which a block tells the centre from the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.blocks.across_windows import across_windows


@across_windows
def eccentricity_map(x: Tensor, fixation: Tensor | None = None) -> Tensor:
    """Eccentricity of every cell over half the picture's longer side, so that it is alike for all picture sizes.

    Glimpses know where they look: there it is the distance from the nearest fixation of their layout.

    Args:
        x: (B, C, H, W), of which only the shape counts.
        fixation: (B, 2) or (2,), (y, x) relative to the picture; its centre by default. Not for glimpses.

    Returns:
        (B, 1, H, W) in the dtype of x, or (1, 1, H, W) where all pictures have the same.

    Raises:
        ValueError: for a fixation of another shape.

    Example:
        >>> eccentricity_map(torch.zeros(1, 3, 3, 4))[0, 0, 1].tolist()
        [0.75, 0.25, 0.25, 0.75]
    """
    height, width = x.shape[-2:]
    if fixation is None:
        places = torch.full((1, 2), 0.5, dtype=torch.float64, device=x.device)
    else:
        places = torch.as_tensor(fixation, dtype=torch.float64, device=x.device)
        places = places[None] if places.ndim == 1 else places
        if places.shape not in ((1, 2), (len(x), 2)):
            raise ValueError(f"fixation has shape {tuple(places.shape)}; expected (2,) or ({len(x)}, 2), y and x each")
    apart = [
        (torch.arange(side, dtype=torch.float64, device=x.device) + 0.5 - places[:, axis, None] * side).square()
        for axis, side in enumerate((height, width))
    ]
    distance = (apart[0][:, :, None] + apart[1][:, None]).sqrt().float()  # rounded where a layout rounds
    return (distance / (max(height, width) / 2))[:, None].to(x.dtype)


def center_weights(x: Tensor, sigma: float, floor: float, fixation: Tensor | None = None) -> Tensor:
    """`floor + (1 - floor) * exp(-e**2 / (2 * sigma**2))` for every cell: 1 at the fixation, `floor` far from it.

    Args:
        x: (B, C, H, W), of which only the shape counts.
        sigma: the width, in units of half the picture's longer side.
        floor: the weight infinitely far away.
        fixation: as of `eccentricity_map`.

    Returns:
        as of `eccentricity_map`.
    """
    eccentricity = eccentricity_map(x, fixation)
    return floor + (1 - floor) * torch.exp(eccentricity.square() / (-2 * sigma * sigma))


def refuse_impossible_weights(sigma: float, floor: float) -> None:
    """Raises ValueError where `center_weights` would be none."""
    if not sigma > 0 or not 0 <= floor < 1:
        raise ValueError(f"sigma is {sigma!r} and floor {floor!r}; expected sigma above 0 and floor in [0, 1)")
