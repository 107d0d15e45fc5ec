"""In what means and norms over a whole picture are computed: not in half precision, whose squares and shares of large
pictures are out of range. PyTorch's own operations sum up in float32 as well.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from foveal.convert.window_maps import Refused


def summed(x: Tensor, dtype: torch.dtype | None = None, *, name: str) -> Tensor:
    """The maps in the dtype in which they are to be summed up: float32 for all that is shorter.

    Args:
        x: maps.
        dtype: that the network asks for, instead of the maps' own.
        name: of the step, for the message.

    Raises:
        Refused: for maps of whole numbers, of which no part can be taken.
    """
    wanted = dtype or x.dtype
    if not wanted.is_floating_point:
        raise Refused(f"{name} over space of maps of {wanted}; across windows only floats can be weighed")
    return x.to(torch.float32 if wanted in (torch.float16, torch.bfloat16) else wanted)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """In it products are computed in the dtype of their factors."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def given_back(x: Tensor) -> torch.dtype:
    """In what a norm over space gives its result: on a GPU autocast has norms give float32."""
    return torch.float32 if x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype.itemsize == 2 else x.dtype
