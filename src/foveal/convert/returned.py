"""What a network returned, by pictures: windows become a dimension of their own, whatever the maps are held in."""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from foveal.convert.narrow import SplitMaps, merged
from foveal.convert.window_maps import Refused, WindowMaps, bare

_VALUES: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None), enum.Enum)
_VALUES += (torch.dtype, torch.device, torch.Size, torch.SymInt, torch.SymFloat, torch.SymBool)


def returned(result: Any) -> Any:
    """The same with plain tensors: (B, ...) of whole pictures, (B, K, ...) of windows.

    Args:
        result: maps of windows; lists, tuples, sets, dictionaries and dataclasses of them, within each other; values
            that are no tensors.

    Raises:
        Refused: for a tensor that does not come from windows, and for any other object, which could hold maps unseen.
    """
    if isinstance(result, WindowMaps):
        look = result._look
        if not result._kind.space:
            return look.by_picture(bare(result))
        maps = merged(result) if isinstance(result, SplitMaps) else bare(result)
        return maps.unflatten(0, (-1, look.layout.num_windows))
    if isinstance(result, Tensor):
        raise Refused("the network returned a tensor that does not come from its windows")
    if isinstance(result, _VALUES):
        return result
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(returned(part) for part in result))
    if type(result) in (list, tuple, set, frozenset) or (isinstance(result, tuple) and hasattr(result, "n_fields")):
        return type(result)([returned(part) for part in result])
    if type(result) in (dict, OrderedDict):
        return type(result)((_key(name), returned(part)) for name, part in result.items())
    if isinstance(result, dict | list) or (dataclasses.is_dataclass(result) and not isinstance(result, type)):
        return _copied(result)
    raise Refused(
        f"the network returned a {type(result).__name__}, in which maps of windows would not be found; return tensors, "
        f"or lists, tuples, dictionaries or dataclasses of them"
    )


def _key(name: Any) -> Any:
    if isinstance(name, Tensor):
        raise Refused("the network returned a dictionary whose keys are tensors")
    return name


def _copied(result: Any) -> Any:
    """A copy of its own type: of dictionaries and lists of other types, and of dataclasses."""
    made = copy.copy(result)
    if isinstance(made, dict):
        for name in list(made):
            made[_key(name)] = returned(result[name])
    if isinstance(made, list):
        made[:] = [returned(part) for part in result]
    fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
    for name in {*getattr(result, "__dict__", ()), *(field.name for field in fields)}:
        if hasattr(result, name):
            object.__setattr__(made, name, returned(getattr(result, name)))  # of frozen ones, too
    return made
