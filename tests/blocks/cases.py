"""The cases in which every block is tested: each test module of blocks lists its own in `CASES`; test_five_checks.py
runs the five checks on all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from foveal.blocks.registry import create_block


@dataclass(frozen=True)
class Case:
    """A block with the options to test it with.

    Args:
        name: in the registry.
        options: for `create_block`.
        channels: of the maps that it takes.
        out: channels and side that come out of maps of (channels, side); the same by default; () for (B,) answers.
        sides: (height, width) of maps to try.
        glimpses: whether it works on glimpses through `foveate`; "one" where it is equal to the dense block for one
            window only (and says why in its docstring).
        exports: whether ONNX has all that it needs; if not, why not.
        gradients: whether one reaches every parameter; False where an option leaves nothing to learn to some.
        head: of its family: checked in the ordinary tests; all others under `-m full`.
        within: a network around the block, for one that takes something else than one map: it makes from one map what
            the block takes, and gives one tensor.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 4
    out: Callable[[int, int, int], tuple[int, ...]] = lambda channels, height, width: (channels, height, width)
    sides: tuple[tuple[int, int], ...] = ((16, 16), (8, 24))
    glimpses: bool | str = True
    exports: bool | str = True
    gradients: bool = True
    head: bool = False
    within: Callable[[nn.Module], nn.Module] | None = None

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        block = create_block(self.name, **self.options)
        block = block if self.within is None else self.within(block)
        for parameter in block.parameters():  # away from special starts, such as zeros that hide a branch
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.data += 0.05 * torch.randn_like(parameter)
        return block.eval()


def maps(case: Case, *, batch: int = 2, side: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, case.channels, *(side or case.sides[0]), generator=generator, dtype=dtype)


def modules_of_tests() -> list[ModuleType]:
    """All test modules of blocks."""
    return [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("test_*.py"))]


def gathered() -> dict[str, list[Case]]:
    """The cases of all test modules, by the name of the block."""
    found: dict[str, list[Case]] = {}
    for module in modules_of_tests():
        for case in getattr(module, "CASES", []):
            found.setdefault(case.name, []).append(case)
    return found
