"""What a network is shown to be analysed: one picture of a size that it takes, and whatever else its file asks for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from foveal.analysis.from_onnx.network import OnnxNetwork

USUAL = 224
"""Pixels along a side where neither the network nor anybody says."""

CHANNELS = (1, 3, 4)
"""Of a picture: by them a file's (B, H, W, C) is told from (B, C, H, W)."""

Shape = tuple[int | None, ...]


def example_inputs(network: nn.Module, size: int | Sequence[int] | None = None) -> list[Tensor]:
    """Zeros of the shapes and types that a network takes.

    A network of PyTorch gets one picture (1, C, H, W), with as many channels as the convolution takes that runs first;
    3 where none does. An ONNX file says itself what it takes: the size only fills the sides that it leaves open.

    Args:
        network: any.
        size: height and width of the picture, or one number for both; by default the file's, else 224.

    Raises:
        ValueError: for an impossible size, one that contradicts the file, or a network that takes no picture, or more.

    Example:
        >>> [tuple(x.shape) for x in example_inputs(nn.Conv2d(1, 8, 3), 32)]
        [(1, 1, 32, 32)]
    """
    sides = _sides(size)
    if isinstance(network, OnnxNetwork):
        return _of_file(network, sides)
    _refuse_more(network)
    height, width = sides or (USUAL, USUAL)
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    picture = torch.zeros(1, 3, height, width, dtype=weight.dtype, device=weight.device)
    channels = _channels(network, picture)
    return [picture if channels == 3 else picture[:, :1].expand(-1, channels, -1, -1).contiguous()]


def example_picture(network: nn.Module, size: int | Sequence[int] | None = None) -> Tensor:
    """The first of the example inputs."""
    return example_inputs(network, size)[0]


def is_channels_last(network: nn.Module) -> bool:
    """Whether a file takes its picture as (B, H, W, C), whose fields are not followed."""
    shape = network.input_shape if isinstance(network, OnnxNetwork) else None
    return shape is not None and len(shape) == 4 and _space(shape) == (1, 2)


def refuse_channels_last(network: nn.Module) -> None:
    """Raises: ValueError: for a file of which no unit's field can be told."""
    if is_channels_last(network):
        raise ValueError("the network takes pictures (B, H, W, C), in which fields are not followed")


def _sides(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size is {size!r}; expected a height and a width of at least 1, or one number for both")
    return sides[0], sides[1]


def _of_file(network: OnnxNetwork, sides: tuple[int, int] | None) -> list[Tensor]:
    weight = next(network.parameters(), torch.empty(0))
    if sides is not None:
        _refuse_contradiction(network, sides)
    made: list[Tensor] = []
    for name, told in network.inputs.items():
        shape: Shape = told if told is not None else (None,) * (0 if made else 4)
        if told is None and made:
            raise ValueError(f"{network.path} does not say what shape its input {name!r} has; {_GIVE}")
        places = _space(shape)
        fill = dict(zip(places, sides or (USUAL, USUAL), strict=False))
        fill |= {1: 3} if len(shape) == 4 and places == (2, 3) else {}
        fill |= {} if 0 in places else {0: 1}
        filled = [fill.get(place, 0) if side is None else side for place, side in enumerate(shape)]
        if 0 in filled:
            raise ValueError(f"{network.path} leaves sides of its input {name!r} open: {_said(shape)}; {_GIVE}")
        made.append(torch.zeros(filled, dtype=network.input_dtypes[name], device=weight.device))
    return made


def _refuse_contradiction(network: OnnxNetwork, sides: tuple[int, int]) -> None:
    fixed = [network.input_shape[place] for place in _space(network.input_shape)] if network.input_shape else []
    if any(side not in (None, wanted) for side, wanted in zip(fixed, sides, strict=False)):
        raise ValueError(
            f"{network.path} takes pictures of {_said(fixed)}; a size of {_said(sides)} contradicts it, give none or "
            "export the network with open sizes"
        )


def _said(sides: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in sides)


_GIVE = "export it with fixed sizes, or give them in Python: analyze(network, inputs=[...])"


def _space(shape: Shape | None) -> tuple[int, ...]:
    """Where the height and the width of a picture stand in a shape; nothing for what is no picture."""
    if shape is None or len(shape) not in (3, 4):
        return ()
    first = len(shape) - 3
    if shape[first] in CHANNELS or (len(shape) == 4 and shape[3] not in CHANNELS):
        return first + 1, first + 2
    return (first, first + 1) if shape[first + 2] in CHANNELS else ()


def _refuse_more(network: nn.Module) -> None:
    """A network that asks for more than a picture is not shown zeros of a made-up shape instead."""
    try:
        asked = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # of a function that is not Python's
        return
    needed = [one.name for one in asked if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if len(needed) > 1:
        raise ValueError(
            f"{type(network).__name__} takes {len(needed)} inputs ({', '.join(needed)}), and a size says only what one "
            "picture is; give them in Python: analyze(network, inputs=[...])"
        )


class _Met(Exception):
    """The first convolution of a run: what comes after it need not run.

    Args:
        name: of its function.
        x: shape of what it takes.
        channels: that its kernel takes.
    """

    def __init__(self, name: str, x: tuple[int, ...], channels: int) -> None:
        super().__init__(name)
        self.name, self.x, self.channels = name, x, channels


class _UntilConvolution(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            x, weight = (args[at] if len(args) > at else kwargs[name] for at, name in enumerate(("input", "weight")))
            groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
            transposed = "transpose" in func.__name__
            channels = weight.shape[0] if transposed else weight.shape[1] * groups
            raise _Met(func.__name__, tuple(x.shape), channels)
        return func(*args, **kwargs)


_CONVOLUTIONS = frozenset(
    {*(torch.conv1d, torch.conv2d, torch.conv3d), *(torch.conv_transpose1d, torch.conv_transpose2d)}
)


def _channels(network: nn.Module, picture: Tensor) -> int:
    """How many channels of the picture end up as those that the first convolution takes.

    It is run no further than to that convolution. One that fails before, on 3 channels, is tried on as many as its
    registered convolutions take, and on one; where nothing fits, the record of its run says why.
    """
    if any(is_lazy(value) for value in (*network.parameters(), *network.buffers())):
        return 3  # which takes what it is given
    kinds = [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    registered = [module.in_channels for module in kinds if isinstance(module, nn.Conv2d)]
    for channels in dict.fromkeys([3, *registered, 1]):
        met = _first_convolution(network, picture[:, :1].expand(-1, channels, -1, -1))
        if isinstance(met, _Met):
            if (met.name == "conv3d" and len(met.x) < 5) or (met.name == "conv1d" and len(met.x) > 3):
                raise _no_picture(network, met.name)
            wanted, rest = divmod(channels * met.channels, met.x[1])
            if not rest and wanted:
                return wanted
        elif met is None:
            return channels
    if kinds and not isinstance(kinds[0], nn.Conv2d):
        raise _no_picture(network, "conv3d" if isinstance(kinds[0], nn.Conv3d) else "conv1d")
    return registered[0] if registered else 3


def _no_picture(network: nn.Module, convolution: str) -> ValueError:
    takes = {"conv3d": "videos or volumes (B, C, T, H, W)", "conv1d": "sequences (B, C, L)"}[convolution]
    return ValueError(
        f"{type(network).__name__} takes no picture (B, C, H, W): its first convolution is a {convolution}, of {takes}"
        "; give its inputs in Python: analyze(network, inputs=[...])"
    )


def _first_convolution(network: nn.Module, picture: Tensor) -> Exception | None:
    """The first convolution, the error that came before it, or None for a run without either; nothing is changed."""
    modes = [(module, module.training) for module in network.modules()]
    copies = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.eval()
    try:
        with torch.no_grad(), _UntilConvolution():
            torch.func.functional_call(network, copies, (picture.contiguous(),))
    except Exception as error:
        return error
    finally:
        for module, mode in modes:
            module.training = mode
    return None
