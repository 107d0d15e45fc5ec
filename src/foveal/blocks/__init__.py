"""The building blocks of convolutional networks, by name: `create_block`, `list_blocks`, `insert_block`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveal.blocks.insert import insert_block
    from foveal.blocks.registry import create_block, list_blocks

__all__ = ["create_block", "insert_block", "list_blocks"]

_HOMES = {
    "create_block": "foveal.blocks.registry",
    "insert_block": "foveal.blocks.insert",
    "list_blocks": "foveal.blocks.registry",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foveal.blocks' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
