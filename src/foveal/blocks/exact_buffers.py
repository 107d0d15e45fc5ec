"""Numbers that are given and not learned, kept in double precision however a module is cast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose given numbers follow it to its device, but not to its dtype: who reads them casts what it needs.

    Rounded to the dtype of the moment they would stay so when the module, or what it is given, is more precise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def keep(self, name: str, values: Tensor) -> None:
        """Keeps numbers under a name, in float64; they are no part of state dicts."""
        self._exact[name] = values.detach().double()
        self.register_buffer(name, self._exact[name], persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExactBuffers:
        for name in self._exact:
            del self._buffers[name]
        super()._apply(fn, recurse)
        device = fn(torch.empty(0)).device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which has no more
        for name, values in self._exact.items():
            self._buffers[name] = values.to(dtype).to(device)
        return self
