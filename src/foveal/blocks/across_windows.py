"""Steps that a block takes over a whole picture, and that windows of one have to take together.

PyTorch's own protocol: such a function asks its argument whether it would rather answer itself. Ordinary maps do not;
maps of windows (`foveal.convert`) do, by a rule of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

T = TypeVar("T", bound=Callable[..., Tensor])


def across_windows(function: T) -> T:
    """Lets maps of windows take a step their own way. The maps are the function's first argument.

    Example:
        >>> @across_windows
        ... def row_means(x):
        ...     return x.mean(3, keepdim=True)
        >>> row_means(torch.ones(1, 2, 4, 4)).shape
        torch.Size([1, 2, 4, 1])
    """

    @functools.wraps(function)
    def step(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if has_torch_function((x,)):
            taken: Tensor = handle_torch_function(step, (x,), x, *args, **kwargs)
            return taken
        return function(x, *args, **kwargs)

    return step  # type: ignore[return-value]
