"""Memory that is written to again and again: buffers which live only from one step to the next.

Large buffers that are taken and given back at every layer cost more in fresh pages than what is computed into them.
Each thread has its own; nothing that is handed out here may be kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import torch

BUFFERS = 64
"""How many each thread keeps, the latest; a network has a few for each of its stages."""

LARGEST = 1 << 26
"""Bytes of a buffer that is still kept; larger ones are made anew."""

_own = threading.local()


class Buffer(Protocol):
    """A tensor, or what holds one."""

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        ...


B = TypeVar("B", bound=Buffer)


def scratch(owner: object, key: Hashable, make: Callable[[], B]) -> B:
    """The buffer of this name, as it was left; made where there is none.

    Args:
        owner: what the buffer belongs to, known by identity; it lives as long as the buffer.
        key: which of its buffers.
        make: makes it.

    Example:
        >>> owner = object()
        >>> scratch(owner, "a", lambda: torch.zeros(3)).add_(1)
        tensor([1., 1., 1.])
        >>> scratch(owner, "a", lambda: torch.zeros(3))
        tensor([1., 1., 1.])
    """
    kept: OrderedDict[Hashable, tuple[Any, object]] | None = getattr(_own, "kept", None)
    if kept is None:
        kept = _own.kept = OrderedDict()
    name = (id(owner), key)
    if name in kept:
        kept.move_to_end(name)
        known: B = kept[name][0]
        return known
    with torch.inference_mode(False):  # ordinary tensors, which any later call may write to
        found = make()
    if found.nbytes <= LARGEST:
        kept[name] = (found, owner)
        if len(kept) > BUFFERS:
            kept.popitem(last=False)
    return found
