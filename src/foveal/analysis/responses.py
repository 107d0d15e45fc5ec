"""What a unit of a network responds to, as a signal in the picture: gradient, guided backpropagation, deconvolution.

All three send the unit's activation back to the pixels and differ only in how it passes a rectifier (ReLU):
`gradient` (Simonyan, Vedaldi and Zisserman 2014) where the rectifier let the signal through on the way forward;
`deconv` (Zeiler and Fergus 2014) where the signal itself is positive, whatever happened on the way forward; `guided`
(Springenberg et al. 2015) where both hold. Max pools send it to where the maximum was, as the switches of a
deconvolutional network do. Rectifiers other than ReLU are treated likewise, with their own derivative in `guided`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from foveal.analysis.layer_maps import maps_of, watched

View = Literal["gradient", "guided", "deconv"]
VIEWS: tuple[View, ...] = get_args(View)

_RECTIFIERS: frozenset[Callable[..., Tensor]] = frozenset(
    {
        *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.hardtanh_),
        *(F.leaky_relu, F.leaky_relu_, F.prelu, torch.prelu, F.elu, F.elu_, F.selu, F.celu, F.gelu, F.silu, F.mish),
        F.hardswish,
    }
)
_IN_PLACE = frozenset({F.relu_, torch.relu_, Tensor.relu_, F.hardtanh_, F.leaky_relu_, F.elu_})


def unit_responses(
    network: nn.Module,
    layer: str,
    x: Tensor,
    unit: int,
    *,
    views: Sequence[View] = VIEWS,
    place: tuple[int, int] | None = None,
) -> tuple[dict[View, Tensor], tuple[int, int]]:
    """Sends one cell of one channel of a layer back to the picture.

    Args:
        network: run in evaluation mode and left as it was.
        layer: name of a module whose output is a map.
        x: (1, C, H, W), as the network takes it.
        unit: the channel.
        views: any of "gradient", "guided", "deconv".
        place: row and column of the cell; where the channel is strongest by default.

    Returns:
        For each view a signal (C, H, W) in the picture, the derivative of the cell by the pixels or its stand-in; and
        the place.

    Raises:
        ValueError: for an unknown layer, view, channel or place; or a layer that has no maps.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> signals, place = unit_responses(network, "1", torch.rand(1, 3, 8, 8), 2, views=["deconv"])
        >>> signals["deconv"].shape
        torch.Size([3, 8, 8])
    """
    if unknown := [view for view in views if view not in VIEWS]:
        raise ValueError(f"view {unknown[0]!r}; expected some of {', '.join(VIEWS)}")
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected one picture, (1, C, H, W)")
    signals: dict[View, Tensor] = {}
    for view in views:
        pixels = x.detach().clone().requires_grad_()
        with torch.enable_grad(), _Rectifiers(view):
            # A network may change its input in place, which it could not do to a leaf.
            maps = maps_of(watched(network, layer, pixels * 1), layer, (x.shape[-2], x.shape[-1]))[0]
            place = _checked(maps, layer, unit, place)
            (signal,) = torch.autograd.grad(maps[unit][place], pixels, allow_unused=True)
        signals[view] = torch.zeros_like(x[0]) if signal is None else signal[0]
    return signals, place or (0, 0)


def _checked(maps: Tensor, layer: str, unit: int, place: tuple[int, int] | None) -> tuple[int, int]:
    """The place, the strongest by default."""
    channels, height, width = maps.shape
    if not 0 <= unit < channels:
        raise ValueError(f"unit {unit}: {layer} has {channels} channels, 0 to {channels - 1}")
    if place is None:
        strongest = int(maps[unit].argmax())
        return strongest // width, strongest % width
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise ValueError(f"place {place} lies outside the map of {layer}, {height} x {width} cells")
    return place


class _Rectifiers(TorchFunctionMode):
    """Gives every rectifier that runs under it the way back of a view."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.view == "gradient" or func not in _RECTIFIERS:
            return func(*args, **kwargs)
        x: Tensor = args[0] if args else kwargs.pop("input")
        in_place = func in _IN_PLACE or kwargs.pop("inplace", False)
        kwargs.pop("inplace", None)
        function = _OUT_OF_PLACE.get(func, func)
        source = x.clone() if in_place else x  # some rectifiers keep it for the way back
        if self.view == "guided":
            out: Tensor = _OnlyPositive.apply(function(source, *args[1:], **kwargs))
        else:
            with torch.no_grad():
                forward = function(source, *args[1:], **kwargs)
            out = _Passed.apply(source, forward)
        return x.copy_(out) if in_place else out


_OUT_OF_PLACE: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.relu_: F.relu,
    torch.relu_: F.relu,
    Tensor.relu_: F.relu,
    F.hardtanh_: F.hardtanh,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
}


class _OnlyPositive(torch.autograd.Function):
    """Itself; of the gradient the positive part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


class _Passed(torch.autograd.Function):
    """The rectifier's answer; of the gradient the positive part, wherever the rectifier was shut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(min=0), None
