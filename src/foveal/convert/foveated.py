"""A network that takes glimpses: around the network itself, whose state it shares."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.convert.narrow import split_maps
from foveal.convert.returned import returned
from foveal.convert.window_maps import Kind, Look, Refused, UnsupportedModule, WindowMaps, wrap
from foveal.layout import Layout
from foveal.retina import Glimpse

_SHARED = """
_modules _parameters _buffers _non_persistent_buffers_set _state_dict_hooks _state_dict_pre_hooks
_load_state_dict_pre_hooks _load_state_dict_post_hooks
"""


class Foveated(nn.Module):
    """A network that takes glimpses; made by `foveate`.

    It shares parameters, buffers and modules with the network inside, under the same names, and its mode; state dicts
    are the network's own. Attributes of the network (`num_classes`, `feature_info`, ...) are read and set through it.
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
        # Past `__setattr__`: the network is no module of this one, whose name would stand before every key, and it may
        # have modules of such names.
        self.__dict__.update(
            network=network,
            halo=halo,
            pool=pool,
            periphery_channels=periphery_channels,
            periphery_dtype=periphery_dtype,
            **{name: vars(network)[name] for name in _SHARED.split()},
        )

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
        """Training or evaluation mode: the network's own way, which may leave some modules as they are."""
        self.network.train(mode)
        return self

    @property
    def training(self) -> bool:
        """The mode, which is the network's."""
        mode: bool = self.network.training
        return mode

    @training.setter
    def training(self, mode: bool) -> None:
        if "network" in self.__dict__:  # not while nn.Module sets its own up
            self.network.training = mode

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own, with its hooks and what more it keeps."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own."""
        return self.network.load_state_dict(*args, **kwargs)

    def _save_to_state_dict(self, *args: Any) -> None:
        self.network._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.network._load_from_state_dict(*args)  # as part of another network, too

    def __getattr__(self, name: str) -> Any:
        if "network" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.network, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_the_network_s(name, value):
            setattr(self.network, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_the_network_s(name):
            delattr(self.network, name)
        else:
            super().__delattr__(name)

    def _is_the_network_s(self, name: str, value: Any = None) -> bool:
        """Whether an attribute is set there: what it has, and all that is registered."""
        if "network" not in self.__dict__ or name in self.__dict__ or hasattr(type(self), name):
            return False
        return isinstance(value, nn.Module | nn.Parameter) or hasattr(self.network, name)

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
        refuse_unseen(glimpse)
        try:
            return returned(step(self._maps(glimpse.pixels.flatten(0, 1), glimpse.layout), *args, **kwargs))
        except Refused as error:
            if torch.compiler.is_compiling():  # which has no frames to find the module in
                raise
            raise unsupported(self.network, error) from error


class FoveatedSequential(Foveated):
    """An `nn.Sequential` that takes glimpses; its modules are counted and taken as the network's."""

    def __len__(self) -> int:
        return len(self.network)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.network)

    def __getitem__(self, place: int | slice) -> nn.Module:
        part: nn.Module = self.network[place]
        return part


def told(value: Any) -> str:
    """How a wrong argument is called in messages."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def refuse_unseen(glimpse: Any) -> None:
    """Raises ValueError for anything but a glimpse."""
    if not isinstance(glimpse, Glimpse):
        raise ValueError(
            f"a foveated network was given {told(glimpse)}; expected a Glimpse, such as Retina(size)(picture) gives"
        )


def unsupported(network: nn.Module, error: Refused) -> UnsupportedModule:
    """The error that names the module which took the step."""
    return UnsupportedModule(f"{_place(network, error.__traceback__)}: {error.args[0]}")


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
