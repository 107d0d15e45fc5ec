"""Windows that pass through a network which knows nothing of them.

`WindowMaps` is a tensor whose rows are windows. Whatever function a network calls on it, its own or a module's, comes
to a rule that treats the windows of a picture together, or is refused. So the network's code and weights stay as they
are, and no step over space slips through unseen.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from foveal.halo_table import Padding
from foveal.layout import Layout

Rule = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

NO_RIM: Padding = (0, 0, 0, 0)


class UnsupportedModule(ValueError):
    """A network takes a step that cannot be treated across windows; the message names the module, its type and why."""


class Refused(Exception):
    """A step that cannot be treated across windows. The message says which, and why.

    No TypeError: of one, raised within an operator, Python would make a sentence about operands. A call of a foveated
    network makes an UnsupportedModule of it, by its first argument.
    """

    def __str__(self) -> str:
        return (
            f"{self.args[0]}. The tensor holds windows of a foveated network while it runs: one that a hook keeps can "
            f"only be looked at within the call; let the network return it"
        )


class Unfit(Refused):
    """A step that windows of another size, or a single one, would allow."""


@dataclass(frozen=True, eq=False)
class Look:
    """What all maps of one call share.

    Args:
        layout: of the K windows of each picture.
        halo: whether rims are filled from the windows around.
        pool: what pooling weighs by: the picture "area" that a cell alone stands for, or every "cell" seen alike.
        picture_of: (rows,), which picture each row belongs to, where the rows are not K to a picture one after the
            other; likewise `first`, (B,), the first row of each picture.
        differentiated: whether gradients were kept when the call began.
    """

    layout: Layout
    halo: bool = True
    pool: Literal["area", "cell"] = "area"
    picture_of: Tensor | None = None
    first: Tensor | None = None
    differentiated: bool = field(default_factory=torch.is_grad_enabled)

    def by_picture(self, rows: Tensor) -> Tensor:
        """(rows, ...) that are alike for each picture -> (B, ...)."""
        return rows[:: self.layout.num_windows] if self.first is None else rows.index_select(0, self.first)

    def by_row(self, values: Tensor) -> Tensor:
        """(B, ...) -> (rows, ...), every row with its picture's."""
        if self.picture_of is not None:
            return values.index_select(0, self.picture_of)
        windows = self.layout.num_windows
        return values if windows == 1 else values.repeat_interleave(windows, 0)


class Kind(NamedTuple):
    """What the dimensions of a map are.

    Args:
        space: the dimensions over space, two or, flattened, one; none where every row holds its picture's value.
        rim: cells around the window that have been filled already, (left, right, top, bottom).
        cut: the steps since the dense map began to be smaller than the windows together; see `extent`.
    """

    space: tuple[int, ...]
    rim: Padding = NO_RIM
    cut: tuple[Any, ...] = ()


POOLED = Kind(())

WHOLE_POOL = "what a whole picture has is F.adaptive_avg_pool2d(x, 1) or x.mean((2, 3), keepdim=True)"
"""What to write instead of a pool over the cells of a window."""


class WindowMaps(Tensor):
    """A tensor whose first dimension counts the windows of all pictures, one picture after the other.

    Where `kind.space` is empty each row holds what its whole picture has (after a global pool), K times the same, so
    that a network that reshapes by the number of rows or scales its maps by such values works as it is.
    """

    _look: Look
    _kind: Kind
    _border: tuple[str, float, int | None] | None = None
    """Of maps that come straight from a padding: its mode and value, and what tells whether they were changed since."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return RULES.get(func, _refuse)(func, args, kwargs or {})


RULES: dict[Any, Rule] = {}

OPERATORS: dict[str, Rule] = {}
"""Rules for operators of libraries that need not be installed, by "library.name"."""


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Registers how these functions treat windows."""

    def register(how: Rule) -> Rule:
        for function in functions:
            RULES[function] = how
        return how

    return register


def named(names: str, *owners: Any) -> list[Any]:
    """The functions of these names, separated by spaces, that the owners have."""
    return [getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)]


def wrap(x: Tensor, look: Look, kind: Kind) -> WindowMaps:
    """Maps of windows, from an ordinary tensor."""
    refuse_own_gradients(look)
    maps = x.as_subclass(WindowMaps)
    maps._look, maps._kind = look, kind
    return maps


def refuse_own_gradients(look: Look) -> None:
    """Within a `torch.autograd.Function` steps are seen, but not those of its backward pass.

    It runs without gradients, as does much else: what tells is who called, a `forward` of a context or of maps alone.
    """
    if not look.differentiated or torch.is_grad_enabled():
        return
    frame = None if torch.compiler.is_compiling() else sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, BackwardCFunction | WindowMaps):
                name = code.co_qualname.removesuffix(".forward").rpartition(".")[2]
                raise Refused(
                    f"{name} is a torch.autograd.Function, whose backward pass is not known to keep windows apart or "
                    f"to treat them together; write it in PyTorch's operations"
                    + ("; give checkpoint() use_reentrant=False" if name == "CheckpointFunction" else "")
                )
        frame = frame.f_back


def bare(x: Tensor) -> Tensor:
    """The same as an ordinary tensor, to the last stride: of one row `view_as` would choose others."""
    with torch._C.DisableTorchFunctionSubclass():
        if torch.compiler.is_compiling():  # which cannot take the other, faster way
            alias: Tensor = torch.ops.aten.alias.default(x)
            return alias
        return x.as_subclass(Tensor)


def plainly(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a function as on ordinary tensors; what comes out is one."""
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def maps_in(values: Any) -> list[WindowMaps]:
    """All maps of windows among arguments, also in lists and tuples of them."""
    found: list[WindowMaps] = []
    for value in values:
        if isinstance(value, WindowMaps):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += maps_in(value)
    return found


def once_a_picture(func: Any, x: WindowMaps, *args: Any, **kwargs: Any) -> WindowMaps:
    """Calls a function on what whole pictures have: on one row of each, and not on every window's."""
    return repeat(plainly(func, x._look.by_picture(bare(x)), *args, **kwargs), x._look)


def repeat(x: Tensor, look: Look) -> WindowMaps:
    """(B, ...) of whole pictures -> (rows, ...), every row with its picture's."""
    return wrap(look.by_row(x), look, POOLED)


def side_of(x: WindowMaps) -> int:
    """n, the cells along a window's side, without a rim."""
    space, rim = x._kind.space, x._kind.rim
    return int(x.shape[space[0]]) - rim[2] - rim[3] if len(space) == 2 else math.isqrt(x.shape[space[0]])


def name_of(func: Any) -> str:
    """How a function is called in messages."""
    name = getattr(func, "__name__", str(func))
    owner = getattr(func, "__self__", None)
    return f"the property {owner.__name__}" if name == "__get__" and owner is not None else f"{name}()"


def parameters(names: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, as far as they were given."""
    return {**dict(zip(names.split(), args, strict=False)), **kwargs}


def _plain(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return plainly(func, *args, **kwargs)


def _refuse(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    how = OPERATORS.get(str(func))
    if how is not None:
        return how(func, args, kwargs)
    raise Refused(f"{name_of(func)} is not known to keep windows apart or to treat them together")


_PROPERTIES = """
shape dtype device ndim layout requires_grad is_cuda is_cpu is_meta is_mps is_quantized is_sparse is_leaf grad_fn
itemsize nbytes is_nested is_mkldnn is_xpu names _version
"""


rule(
    *(getattr(Tensor, name).__get__ for name in _PROPERTIES.split() if hasattr(Tensor, name)),
    *named(
        "size dim numel nelement ndimension __len__ is_floating_point is_complex is_contiguous stride element_size "
        "get_device __repr__ __format__ __hash__ storage_offset data_ptr is_inference",
        Tensor,
    ),
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
)(_plain)
