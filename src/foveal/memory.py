"""Telling that memory ran out from other errors: PyTorch says it in the words of a RuntimeError."""

from __future__ import annotations

_WORDS = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
        True
    """
    return isinstance(error, MemoryError) or any(word in str(error) for word in _WORDS)
