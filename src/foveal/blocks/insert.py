"""Plugs a block into a network that is there already, without moving its weights or changing what it does at first.

The block becomes a child called `inserted` of the module that it follows, so every old key of the state dict stays. It
starts as the identity: by its own `start_as_identity()` where it has one, else behind a weight that starts at zero
(ReZero, Bachlechner et al. 2021).
"""

from __future__ import annotations

import copy
import difflib
import fnmatch
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.blocks.registry import create_block, find_block
from foveal.blocks.without_numbers import run_without_numbers, throwaway

_NAME = "inserted"


class Blended(nn.Module):
    """`x + weight * (block(x) - x)`, the weight learned and 0 at first: the identity, to the last bit."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x."""
        return x + self.weight * (self.block(x) - x)


def insert_block(
    model: nn.Module,
    block: str | Callable[..., nn.Module],
    *,
    after: str | Sequence[str],
    start: Literal["identity", "as_made"] = "identity",
    example: Tensor | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Plugs a block into a network after every module that a pattern names.

    Args:
        model: stays as it is; a changed copy is returned.
        block: its name, one of `list_blocks()`, or what makes one when called with `channels` and the options.
        after: a module's path, where each part may be a pattern, or several of them: "layer*.*" names "layer1.0", and
            not what is inside it.
        start: "identity": what the network computes stays the same to the last bit until it is trained, wherever the
            block's own result is finite (0 times what is not is not 0). A block with a method `start_as_identity()`
            arranges that itself; others are blended in by a learned weight that starts at 0. "as_made": the block as
            it is.
        example: a picture for the network, (B, C, H, W), or its shape; by default (1, C, 224, 224). It is run once to
            learn how many channels there are at each place.
        options: of the block, but for `channels`, which are filled in.

    Returns:
        The copy. Each block is the child `inserted` of the module that it follows, so all keys of the old state dict
        are there as they were: `load_state_dict(old, strict=False)` misses those of the blocks alone. An
        `nn.Sequential` has it as its last step.

    Raises:
        ValueError: where the pattern names nothing, the network does not run, or the block cannot be made with the
            options or does not fit, with shapes.

    Example:
        >>> stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        >>> network = insert_block(torch.nn.Sequential(stem, torch.nn.ReLU()), "pointwise_conv", after="1")
        >>> list(network.state_dict())
        ['0.weight', '0.bias', '1.inserted.weight', '1.inserted.block.weight', '1.inserted.block.bias']
    """
    if start not in ("identity", "as_made"):
        raise ValueError(f"start is {start!r}; expected 'identity' or 'as_made'")
    if "channels" in options:
        raise ValueError("channels are filled in from the network; leave them out")
    patterns = [after] if isinstance(after, str) else list(after)
    if not patterns:
        raise ValueError("after is empty; expected the path of a module, or a pattern of paths, at least one")
    changed, training = copy.deepcopy(model), {path: module.training for path, module in model.named_modules()}
    for path, module in changed.named_modules():
        module.training = training.get(path, model.training)  # a traced graph forgets it when it is copied
    places = _named(changed, patterns)
    for path, module in places.items():
        _refuse_unfit(path, module)
    shapes = _shapes(changed, places, example)
    for path, module in places.items():
        made = _fitting(block, path, shapes[path], module, changed, start, options)
        _attach(module, made)
    return changed


def _named(model: nn.Module, patterns: list[str]) -> dict[str, nn.Module]:
    """The modules that the patterns name, each once."""
    every = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    found: dict[int, tuple[str, nn.Module]] = {}
    for pattern in patterns:
        fits = [path for path in every if _fits(path, pattern)]
        if not fits:
            near = difflib.get_close_matches(pattern, every, 5, 0.4) or list(dict(model.named_children()))[:8]
            raise ValueError(f"{pattern!r} names no module of the network; near it are {', '.join(near) or 'none'}")
        for path in fits:
            found.setdefault(id(every[path]), (path, every[path]))
    return dict(found.values())


def _fits(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _refuse_unfit(path: str, module: nn.Module) -> None:
    if hasattr(module, _NAME):
        raise ValueError(f"{path} has a block inserted already; name {path}.{_NAME} to put another after it")
    if isinstance(module, torch.jit.ScriptModule):  # first: it has not even the attributes asked for below
        raise ValueError(f"{path} ({type(module).__name__}) is compiled, so that no block can follow it")
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    plain = type(module).forward is nn.Sequential.forward
    if isinstance(module, containers) and not plain:
        kind = type(module).__name__
        raise ValueError(f"{path} is a {kind}, which runs its children its own way; name a module inside or after it")
    if "forward" in vars(module):
        raise ValueError(f"{path} ({type(module).__name__}) has a forward of its own that no block can follow")


def _shapes(
    model: nn.Module, places: dict[str, nn.Module], example: Tensor | Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """(B, C, H, W) that comes out of each place."""
    planes = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    shape = tuple(example.shape) if isinstance(example, Tensor) else tuple(example or (1, planes, 224, 224))
    seen: dict[str, list[Any]] = {}

    def note(path: str) -> Any:
        return lambda module, args, result: seen.setdefault(path, []).append(result)

    def watch(probe: nn.Module) -> None:
        seen.clear()
        for path in places:
            probe.get_submodule(path).register_forward_hook(note(path))

    try:
        _run(model, shape, watch, example if isinstance(example, Tensor) else None)
    except Exception as error:
        raise ValueError(
            f"the network does not run on a picture of shape {shape}: {error}; give one that it takes as example="
        ) from error
    found = {}
    for path, module in places.items():
        results = seen.get(path, [])
        kinds = {tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__ for result in results}
        what = f"{path} ({type(module).__name__})"
        if not results:
            raise ValueError(f"{what} is never called by the network, so nothing can follow it")
        if any(isinstance(kind, str) or len(kind) != 4 for kind in kinds):
            raise ValueError(f"{what} gives {kinds.pop()}; a block follows maps, (B, C, H, W)")
        if len({kind[1] for kind in kinds}) > 1:
            raise ValueError(f"{what} is called several times and gives {sorted(kinds)}; a block has one width")
        if _channels_last(shape, results[0].shape):
            raise ValueError(f"{what} gives {tuple(results[0].shape)}, channels last; a block follows (B, C, H, W)")
        found[path] = results[0].shape
    return {path: tuple(shape) for path, shape in found.items()}


def _channels_last(picture: Sequence[int], maps: Sequence[int]) -> bool:
    """Whether it is the two dimensions after the batch, and not the last two, that have the picture's proportions."""

    def proportioned(height: int, width: int) -> bool:
        return height * picture[-1] == width * picture[-2]

    return proportioned(*maps[1:3]) and not proportioned(*maps[2:4])


def _run(
    module: nn.Module,
    shape: Sequence[int],
    watch: Callable[[nn.Module], Any] = lambda probe: None,
    picture: Tensor | None = None,
) -> Any:
    """Runs a module once in evaluation, without numbers where it can do without; `watch` gets the copy that runs."""
    # Weights say in what a module computes; buffers may be finer, as those that are kept exact.
    held = next((value for value in module.parameters() if value.is_floating_point()), torch.empty(0))
    try:
        watch(probe := throwaway(module))
        return run_without_numbers(probe, torch.empty(*shape, dtype=held.dtype, device="meta"))
    except Exception:
        watch(probe := throwaway(module))  # the first may have kept something without numbers
    if picture is None:
        picture = torch.zeros(*shape, dtype=held.dtype, device=held.device)
    with torch.no_grad():
        return probe(picture)


def _fitting(
    block: str | Callable[..., nn.Module],
    path: str,
    shape: tuple[int, ...],
    module: nn.Module,
    model: nn.Module,
    start: str,
    options: dict[str, Any],
) -> nn.Module:
    """The block for a place, which starts as it is to."""
    make = find_block(block).make if isinstance(block, str) else block
    name = block if isinstance(block, str) else getattr(block, "__name__", type(block).__name__)
    where = f"{name} does not fit after {path} ({type(module).__name__}), which gives {shape}"
    filled = {"channels": shape[1], **options} if "channels" in inspect.signature(make).parameters else options
    try:
        made = create_block(block, **filled) if isinstance(block, str) else make(**filled)
        gives = _shape_from(made, shape)
    except Exception as error:
        raise ValueError(f"{where}: {error}") from error
    if gives != shape:
        raise ValueError(f"{where}: it makes {gives} of it; expected the same shape")
    larger = (*shape[:2], 2 * shape[2], 2 * shape[3])
    try:
        gives = _shape_from(made, larger)
    except Exception:  # made for maps of one size alone, and says so
        gives = larger
    if gives != larger:
        raise ValueError(f"{where}: it makes {gives} of {larger}; expected the same shape at every size")
    if start == "identity":
        arrange = getattr(made, "start_as_identity", None)
        if arrange is None:
            made = Blended(made)
        else:
            arrange()
    near = [*module.parameters(), *model.parameters()]
    like = next((value for value in near if value.is_floating_point()), torch.empty(0))
    return made.to(like.device, like.dtype).train(module.training)


def _shape_from(block: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | str:
    """What a block makes of maps: its shape, or its type where it is no tensor."""
    result = _run(block, shape)
    return tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__


def _attach(module: nn.Module, block: nn.Module) -> None:
    module.add_module(_NAME, block)
    if not isinstance(module, nn.Sequential):
        kind: Any = type(module)
        module.__class__ = _followed(kind)


@functools.cache
def _followed(kind: Any) -> Any:
    """A class whose modules let their child `inserted` follow. It keeps its name, by which others may know it."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.inserted(kind.forward(self, *args, **kwargs))

    def __reduce__(self: Any) -> Any:
        return _bare, (kind,), self.__dict__

    names = {
        "forward": forward,
        "__reduce__": __reduce__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    return type(kind)(kind.__name__, (kind,), names)


def _bare(kind: Any) -> Any:
    """A module that is still to get its state, when it is copied or loaded."""
    made = _followed(kind)
    return made.__new__(made)
