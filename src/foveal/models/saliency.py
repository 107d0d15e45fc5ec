"""Where people would look: a small network on the widest window, whose scores a policy can follow."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.arguments import whole_number
from foveal.policy.scores import places
from foveal.retina import Glimpse, Retina

SALIENCY = Path(__file__).with_name("saliency.safetensors")
"""The head that comes with the package, taught by the eye movements of OSIE (Xu et al. 2014)."""


class SaliencyHead(nn.Module):
    """A glimpse of one window a picture -> logits of where a gaze would fall, one for every 4 x 4 cells.

    Two strided convolutions and four dilated residual ones (rates 1, 2, 4, 8), which see the whole window; colours,
    and where in the picture a cell lies, go in. With 32 channels: 14 million multiply-accumulates for a window of 64,
    9 % of what a ResNet-18 spends on it; with 64 and 24 fine ones 126 million.

    Args:
        channels: width.
        fine: width of two more convolutions ahead of any stride, and one more residual one between the strides; 0 for
            none. What has to be found among things of its own kind shows in its cells, not in fours of them.

    Raises:
        ValueError: for widths that are no whole numbers, or too small.

    Example:
        >>> SaliencyHead()(Retina(64, levels=1)(torch.rand(2, 3, 64, 64))).shape
        torch.Size([2, 16, 16])
    """

    def __init__(self, channels: int = 32, *, fine: int = 0) -> None:
        super().__init__()
        whole_number(channels, "channels", 1)
        whole_number(fine, "fine", 0)

        def conv(before: int, after: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

        self.fine = nn.Sequential(*conv(6, fine, 1), _Residual(fine)) if fine else nn.Identity()
        self.stem = nn.Sequential(
            *conv(fine or 6, channels, 2), *([_Residual(channels)] if fine else []), *conv(channels, channels, 2)
        )
        self.around = nn.Sequential(*(_Residual(channels, rate) for rate in (1, 2, 4, 8)))
        self.last = nn.Conv2d(channels + 3, 1, 1)

    def forward(self, glimpse: Glimpse) -> Tensor:
        """(B, 1, 3, S, S) -> (B, S / 4, S / 4).

        Raises:
            ValueError: for more than one window a picture, or a size that 4 does not divide.
        """
        pixels, layout = glimpse.pixels, glimpse.layout
        if pixels.shape[1] != 1 or layout.size % 4:
            raise ValueError(
                f"{pixels.shape[1]} windows of {layout.size} cells; expected one window a picture (layout.widest()), "
                f"of a multiple of 4 cells"
            )
        x = torch.cat([_colours(glimpse), _places(glimpse, layout.size)], 1)
        x = self.around(self.stem(self.fine(x)))
        return self.last(torch.cat([x, _places(glimpse, x.shape[-1])], 1))[:, 0]


class _Residual(nn.Sequential):
    def __init__(self, channels: int, rate: int = 1) -> None:
        conv = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(super().forward(x))


def load_saliency(file: str | os.PathLike[str] | None = None) -> SaliencyHead:
    """A trained head, in evaluation mode; the one that comes with the package by default.

    Args:
        file: safetensors.

    Raises:
        ValueError: if the file is not there, or holds another network.

    Example:
        >>> policy = Scanpath(2, score=load_saliency())
    """
    place = SALIENCY if file is None else Path(file)
    try:
        state = load_file(place)
        fine = state["fine.0.weight"].shape[0] if "fine.0.weight" in state else 0
        head = SaliencyHead(state["last.weight"].shape[1] - 3, fine=fine)
        head.load_state_dict(state)  # copied into float32, whatever precision the file has
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise ValueError(
            f"{place}: cannot be loaded as a saliency head: {' '.join(str(error).split())[:200]}"
        ) from error
    return head.eval()


@functools.lru_cache(maxsize=1)
def _own_head() -> SaliencyHead:
    return load_saliency()


def salient_fixation(picture: Any, *, head: SaliencyHead | None = None, size: int = 64) -> tuple[float, float]:
    """Where a person would likely look.

    The picture is looked at once in a single window that just holds it; the centre of the 3 x 3 cells that most gazes
    would fall on is taken.

    Args:
        picture: anything that `open_picture` takes.
        head: the one that comes with the package by default.
        size: cells along the window's side, a multiple of 4; the head was taught at 64.

    Returns:
        (y, x), relative to the picture.

    Raises:
        PictureError: if the picture cannot be read.

    Example:
        >>> y, x = salient_fixation("photo.jpg")
    """
    head = _own_head() if head is None else head
    glimpse = Retina(size, levels=1, enlarge=True)(picture)
    with torch.inference_mode():
        logits = head(dataclasses.replace(glimpse, pixels=glimpse.pixels.cpu().float()))
        # Not the likeliest cell but the likeliest spot: a fovea is larger than a cell.
        likely = F.avg_pool2d(logits.exp()[:, None], 3, 1, 1)[:, 0]
    found = places(likely, glimpse.layout)
    y, x = found[0, 0].tolist()
    return y, x


def _colours(glimpse: Glimpse) -> Tensor:
    """(B, 3, S, S) around 0, whatever the retina made of them; 0 beside the picture."""
    pixels = glimpse.pixels[:, 0]
    if glimpse.mean is not None and glimpse.std is not None:
        pixels = pixels * glimpse.std.to(pixels).view(-1, 1, 1) + glimpse.mean.to(pixels).view(-1, 1, 1)
    inside = glimpse.layout.inside(glimpse.layout.size)[:, 0, None].to(pixels.device)
    return torch.where(inside, (pixels - 0.5) * 4, 0.0)


def _places(glimpse: Glimpse, n: int) -> Tensor:
    """(B, 3, n, n): y and x from -1 to 1 over the picture, and the square of the distance from its centre."""
    layout = glimpse.layout
    places = layout.cell_places(n)[:, 0] / layout.pictures[:, None, None] * 2 - 1
    spots = places.clamp(-1, 1).movedim(-1, 1)
    return torch.cat([spots, spots.square().sum(1, keepdim=True)], 1).to(glimpse.pixels)
