"""A model together with its loss, as `Trainer` runs and saves it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Task(nn.Module):
    """A module whose state dict holds tied weights once, as a safetensors file must, and reads such a one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_keep_tied_once)
        self.register_load_state_dict_pre_hook(_name_tied_again)


def _keep_tied_once(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Drops later names of tied weights: a safetensors file holds each tensor once."""
    seen: set[int] = set()
    for name, value in list(state.items()):
        if value.data_ptr() in seen and value.numel():
            del state[name]
        seen.add(value.data_ptr())


def _name_tied_again(module: nn.Module, state: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    """Undoes `_keep_tied_once`, so that a checkpoint is read without names that it lacks."""
    names: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(prefix + name)
    for group in names.values():
        kept = next((state[name] for name in group if name in state), None)
        if kept is not None:
            state.update(dict.fromkeys(group, kept))
