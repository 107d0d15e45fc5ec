"""A network run on shapes alone: on a copy that is thrown away, for modules keep things while they run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def throwaway(module: nn.Module) -> Any:
    """A copy in evaluation that shares only the tensors: whatever its modules keep when it runs is lost with it."""
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    shared = {id(value): value for value in (*module.parameters(), *module.buffers(), *held)}
    return copy.deepcopy(module, shared).eval()


def run_without_numbers(module: nn.Module, *args: Any) -> Any:
    """What a module returns for arguments on the device "meta", its own tensors taken there for the call."""
    shadow = {name: torch.empty_like(value, device="meta") for name, value in named_tensors(module)}
    with torch.no_grad():
        return functional_call(module, shadow, args, tie_weights=False)


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each under one name for every module that holds it: under two it would be swapped twice, and not come back."""
    for path, part in module.named_modules():
        for name, value in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            yield f"{path}.{name}" if path else name, value
