"""A fovea for a network that knows of none: its own code and weights, run on the windows of a glimpse."""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.blocks.slim import narrow_channels
from foveal.blocks.without_numbers import run_without_numbers, throwaway
from foveal.convert import (  # noqa: F401 - their rules register
    attention_steps,
    channels,
    deformed_steps,
    fusion_steps,
    graph_steps,
    norms,
    pointwise,
    pooling,
    resampling,
    shapes,
    sliding,
    tile_steps,
    transposed_steps,
)
from foveal.convert.narrow import SplitMaps, merged, split_maps
from foveal.convert.timm_transformer import (
    is_timm_features,
    is_timm_transformer,
    refuse_unknown_parts,
    timm_features,
    timm_head,
    timm_intermediates,
    timm_maps,
)
from foveal.convert.torchvision_transformer import (
    is_torchvision_transformer,
    refuse_unknown_torchvision_parts,
    torchvision_features,
    torchvision_head,
)
from foveal.convert.transformer import Tokens, refuse_skipped_hooks
from foveal.convert.window_maps import Kind, Look, Refused, Unfit, UnsupportedModule, WindowMaps, bare, wrap
from foveal.layout import Layout
from foveal.retina import Glimpse


class Foveated(nn.Module):
    """A network that takes glimpses; made by `foveate`.

    It shares parameters, buffers and modules with the network inside, under the same names, so state dicts go either
    way unchanged. Attributes of the network (`num_classes`, `feature_info`, ...) can be read from it.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        halo: bool,
        pool: Literal["area", "cell"],
        periphery_channels: float = 1.0,
        periphery_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        object.__setattr__(self, "network", network)  # not as a module, whose name would stand before every key
        # Before the network's own modules, of which one may have such a name.
        self.halo, self.pool = halo, pool
        self.periphery_channels, self.periphery_dtype = periphery_channels, periphery_dtype
        self._modules, self._parameters, self._buffers = network._modules, network._parameters, network._buffers
        self._non_persistent_buffers_set = network._non_persistent_buffers_set
        self.training = network.training

    def forward(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """What the network returns for a picture, from a glimpse of it.

        Args:
            glimpse: of any layout.
            args: passed on, likewise kwargs.

        Returns:
            What the network gives: (B, ...) for each picture; maps as (B, K, C, n, n).

        Raises:
            UnsupportedModule: at the first step that cannot be treated across windows.
            ValueError: for anything but a glimpse.
        """
        return self._through(self.network, glimpse, *args, **kwargs)

    def forward_features(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """The network's own `forward_features`: maps of the last stage, (B, K, C, n, n)."""
        return self._through(self.network.forward_features, glimpse, *args, **kwargs)

    def forward_intermediates(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """The network's own `forward_intermediates`: maps of several stages, each (B, K, C, n, n)."""
        return self._through(self.network.forward_intermediates, glimpse, *args, **kwargs)

    def train(self, mode: bool = True) -> Foveated:
        """Training or evaluation mode, of the network inside too."""
        self.network.train(mode)  # its own way, which may leave some modules as they are
        self.training = mode
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "network" not in self.__dict__:
                raise
            return getattr(self.network, name)

    def extra_repr(self) -> str:
        """What stands in the first line of its printed form."""
        rest = f"periphery_channels={self.periphery_channels}, periphery_dtype={self.periphery_dtype}"
        return f"{type(self.network).__name__}, halo={self.halo}, pool={self.pool!r}, {rest}"

    def _maps(self, pixels: Tensor, layout: Layout) -> WindowMaps:
        look = Look(layout, self.halo, self.pool)
        if layout.num_windows > 1:  # every rim is gathered by rows of channels
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        if self.periphery_channels < 1 or self.periphery_dtype is not None:
            return split_maps(pixels, look, self.periphery_channels, self.periphery_dtype)
        return wrap(pixels, look, Kind((2, 3)))

    def _through(self, step: Any, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        _refuse_unseen(glimpse)
        try:
            result = step(self._maps(glimpse.pixels.flatten(0, 1), glimpse.layout), *args, **kwargs)
        except Refused as error:
            if torch.compiler.is_compiling():  # which has no frames to find the module in
                raise
            raise _unsupported(self.network, error) from error
        return _unfolded(result)


class FoveatedTransformer(Foveated):
    """A vision transformer that takes glimpses; made by `foveate`."""

    def forward(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """What the network returns for a picture, from a glimpse of it: (B, ...), or a list of maps (B, K, C, n, n)."""
        _refuse_unseen(glimpse)
        _refuse_arguments(args, kwargs)
        refuse_skipped_hooks("the network itself", self.network)
        if is_timm_features(self.network):
            return timm_maps(self.network, glimpse.pixels.flatten(0, 1), glimpse.layout)
        tokens = self._tokens(glimpse)
        return (timm_head if is_timm_transformer(self.network) else torchvision_head)(self.network, tokens)

    def forward_features(self, glimpse: Glimpse, *args: Any, **kwargs: Any) -> Any:
        """(B, P + N, D): the prefix tokens, once a picture, then those of `glimpse.layout.tokens(S / patch)`."""
        _refuse_unseen(glimpse)
        _refuse_arguments(args, kwargs)
        return self._tokens(glimpse).values

    def forward_intermediates(self, glimpse: Glimpse, indices: Any = None, **kwargs: Any) -> Any:
        """Of timm's transformers: (B, P + N, D) of the end, and a list of maps (B, K, D, n, n), 0 where no token is.

        Args:
            glimpse: of any layout.
            indices: of the blocks; the last n for a number, all for None.
            kwargs: `norm`, to normalise the maps as the end is; `intermediates_only`, to return the list alone.
        """
        if not is_timm_transformer(self.network):
            raise UnsupportedModule(f"the network itself ({type(self.network).__name__}): has no forward_intermediates")
        _refuse_unseen(glimpse)
        norm, alone = kwargs.pop("norm", False), kwargs.pop("intermediates_only", False)
        _refuse_arguments((), kwargs)
        pixels, layout = glimpse.pixels.flatten(0, 1), glimpse.layout
        end, maps = timm_intermediates(self.network, pixels, layout, indices, norm=norm, stop_early=alone)
        return maps if alone else (end, maps)

    def _tokens(self, glimpse: Glimpse) -> Tokens:
        features = timm_features if is_timm_transformer(self.network) else torchvision_features
        return features(self.network, glimpse.pixels.flatten(0, 1), glimpse.layout, self.pool)


def _refuse_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if args or kwargs:
        raise TypeError(f"a foveated transformer takes a glimpse alone; got {len(args) + len(kwargs)} arguments more")


def foveate(
    model: nn.Module,
    *,
    halo: bool = True,
    pool: Literal["area", "cell"] = "area",
    periphery_channels: float = 1.0,
    periphery_dtype: torch.dtype | None = None,
) -> Foveated:
    """Gives a network a fovea: the same weights, run on the windows of a glimpse instead of a whole picture.

    The given model stays untouched. Every step over space is treated across windows, those that the network calls as
    functions too; a step that cannot be is refused by name. Within a network `x.shape` is that of one window: what is
    divided by its cells must not be the whole picture's, so sums over space are refused but for a single window that
    holds the picture, and norms over space are the whole picture's.

    Args:
        model: a convolutional network, of timm, torchvision or your own; or a vision transformer of timm or
            torchvision (ViT, DeiT, with class, distillation and register tokens; timm's with features_only too).
        halo: fill every window's rim from the windows around; False leaves each to the network's own padding.
        pool: global pools weigh each cell by the picture "area" that it alone stands for, which is what the dense
            network means, or all seen cells alike ("cell"), so that the fovea counts more.
        periphery_channels: leading fraction of every layer's channels that windows coarser than level 0 compute, in
            (0, 1]; the work is really left out. A network has to be trained so, or sorted, to be good at it.
        periphery_dtype: in which those windows are computed, for example `torch.bfloat16`; the fovea stays as it is.

    Returns:
        A network with the same `state_dict` keys that takes a `Glimpse` of any layout.

    Raises:
        UnsupportedModule: if a step cannot be treated across windows.
        ValueError: if the model is no network; for an unknown `pool`, a `halo` that is not True or False, a fraction
            out of range, or a dtype that is none of floats.

    Example:
        >>> network = foveate(torchvision.models.resnet18())
        >>> network(Retina(size=64, levels=3)(torch.rand(3, 256, 256))).shape
        torch.Size([1, 1000])
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is {_told(model)}; expected a network, an nn.Module")
    if not isinstance(halo, bool):
        raise ValueError(f"halo is {halo!r}; expected True or False")
    if periphery_dtype is not None and periphery_dtype not in _FLOATS:
        raise ValueError(f"periphery_dtype is {periphery_dtype!r}; expected one of {', '.join(map(str, _FLOATS))}")
    if pool not in ("area", "cell"):
        raise ValueError(f"pool is {pool!r}; expected 'area' or 'cell'")
    if isinstance(model, Foveated):
        raise ValueError("the model has a fovea already; give the network that it was made from")
    if is_timm_transformer(model) or is_timm_features(model):
        refuse_unknown_parts(model)
    if is_torchvision_transformer(model):
        refuse_unknown_torchvision_parts(model)
    attends = is_timm_transformer(model) or is_timm_features(model) or is_torchvision_transformer(model)
    made = FoveatedTransformer if attends else Foveated
    inside, modes = copy.deepcopy(model), {path: module.training for path, module in model.named_modules()}
    for path, module in inside.named_modules():
        module.training = modes.get(path, model.training)  # a traced graph forgets it when it is copied
    if any(type(module).__module__.startswith("torchvision.") for module in inside.modules()):
        from foveal.convert.torchvision_parts import by_pictures

        by_pictures(inside)
    narrow_channels(1, periphery_channels)  # refuses what is no fraction
    if attends and (periphery_channels < 1 or periphery_dtype is not None):
        raise UnsupportedModule(
            f"the network itself ({type(model).__name__}): attention takes all tokens together; a periphery of its own "
            f"width or dtype is for convolutional networks"
        )
    network = made(inside, halo=halo, pool=pool, periphery_channels=periphery_channels, periphery_dtype=periphery_dtype)
    if not attends:
        _refuse_unsupported(network)
    return network


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _told(value: Any) -> str:
    """How a wrong argument is called in messages."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _refuse_unseen(glimpse: Any) -> None:
    if not isinstance(glimpse, Glimpse):
        raise ValueError(
            f"a foveated network was given {_told(glimpse)}; expected a Glimpse, such as Retina(size)(picture) gives"
        )


def _refuse_unsupported(made: Foveated) -> None:
    """Runs the network once without numbers, on four windows, so that what it cannot do is told at once."""
    planes = next((m.in_channels for m in made.network.modules() if isinstance(m, nn.Conv2d)), 3)
    for size in _PROBE:
        layout = Layout.windows(picture=(2 * size, 2 * size), size=size, windows=_PROBE[size])
        pixels = torch.empty(layout.num_windows, planes, size, size, device="meta")
        probe = throwaway(made.network)
        try:
            run_without_numbers(probe, made._maps(pixels, layout))
        except Unfit:
            continue
        except Refused as error:
            raise _unsupported(probe, error) from error
        except Exception:
            continue
        return


# Cells a side: what networks of a fixed size mostly want, and smaller.
_PROBE = {size: [(0, 0, 0), (0, 0, size), (0, size, 0), (1, 0, 0)] for size in (64, 224, 256, 96)}


def _unsupported(network: nn.Module, error: Refused) -> UnsupportedModule:
    return UnsupportedModule(f"{_place(network, error.__traceback__)}: {error}")


def _unfolded(result: Any) -> Any:
    """What the network returned, by pictures: (B, ...) of whole ones, (B, K, ...) of windows."""
    if isinstance(result, WindowMaps):
        look = result._look
        if not result._kind.space:
            return look.by_picture(bare(result))
        maps = merged(result) if isinstance(result, SplitMaps) else bare(result)
        return maps.unflatten(0, (-1, look.layout.num_windows))
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(_unfolded(part) for part in result))
    if isinstance(result, list | tuple):
        return type(result)(_unfolded(part) for part in result)
    if isinstance(result, dict):
        return type(result)((name, _unfolded(part)) for name, part in result.items())
    if isinstance(result, Tensor):
        raise UnsupportedModule("the network returned a tensor that does not come from its windows")
    return result


def _place(network: nn.Module, trace: TracebackType | None) -> str:
    """The path and type of the innermost module that was running."""
    paths = {id(module): path for path, module in network.named_modules()}
    found: tuple[str, Any] = ("", network)
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        if id(running) in paths:
            found = (paths[id(running)], running)
        trace = trace.tb_next
    path, module = found
    return f"{path or 'the network itself'} ({type(module).__name__})"
