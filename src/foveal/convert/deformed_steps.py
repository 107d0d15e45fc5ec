"""Deformable convolutions: every window takes as wide a rim as its offsets reach.

Where offsets are bounded by construction the rim is known; elsewhere they are measured. Beyond the picture the operator
itself reads zeros, so no rim is wider than the picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.blocks.deformable import deform_within, mean_of_pictures, working_dtype
from foveal.convert.extent import Step, after_step, reaches
from foveal.convert.sliding import sealed
from foveal.convert.window_maps import (
    OPERATORS,
    Kind,
    Refused,
    Unfit,
    WindowMaps,
    bare,
    name_of,
    plainly,
    rule,
    wrap,
)
from foveal.halo import halo_pad


def _deform_conv2d(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, reach: float | None = None) -> Any:
    """torchvision's operator: x, weight, offset, mask, bias, stride, padding, dilation (two each), groups, ..."""
    x, weight, offset, mask, bias = args[:5]
    stride, padding, dilation, rest = args[5:7], args[7:9], args[9:11], args[11:]
    masked = rest[-1]
    movers = [offset, mask] if masked else [offset]
    if not all(isinstance(part, WindowMaps) and part._kind.space == (2, 3) for part in (x, *movers)):
        raise Refused(f"{name_of(func)}: maps, offsets and masks must all be maps of windows, (B, C, H, W)")
    if any(any(part._kind.rim) for part in (x, *movers)) or isinstance(weight, WindowMaps):
        raise Refused(f"{name_of(func)} of maps that are padded, or with a kernel made from maps of windows")
    look, mask = x._look, bare(mask) if masked else mask
    if look.layout.num_windows == 1:
        plain = plainly(func, bare(x), weight, bare(offset), mask, bias, *args[5:])
        return wrap(plain, look, Kind((2, 3)))
    n = x.shape[-1]
    if any(n % step for step in stride):
        raise Unfit(f"{name_of(func)}: a map of {n} x {n} cells meets a stride of {stride}, which does not divide it")
    sides = [apart * (side - 1) + 1 for side, apart in zip(weight.shape[2:], dilation, strict=True)]
    step = Step((sides[0], sides[1]), stride, padding, padding)
    cut = after_step(x._kind.cut, step, n)
    if cut:
        reaches(look, cut)
    reach = _measured(func, bare(offset)) if reach is None else reach
    widest = look.layout.remembered(("widest", n), lambda: _widest(x))
    along = [_along(n, *axis, reach, widest) for axis in zip(sides, stride, padding, strict=True)]
    (top, bottom), (left, right) = along
    rim, maps = (left, right, top, bottom), sealed(x, 0.0)
    maps = halo_pad(maps, look.layout, rim) if look.halo else F.pad(maps, rim)
    # The operator wants as many outputs as its maps have room for: it strides as wide as they are, and offsets take
    # that back.
    outputs = offset.shape[2:]
    wide, short = zip(*(_stride(*axis) for axis in zip(maps.shape[2:], sides, outputs, strict=True)), strict=True)
    maps = F.pad(maps, (0, short[1], 0, short[0]))
    backs = [
        torch.arange(many, device=offset.device) * (step - far) + (before - pad)
        for many, step, far, before, pad in zip(outputs, stride, wide, (top, left), padding, strict=True)
    ]
    back = torch.stack(torch.meshgrid(*backs, indexing="ij")).to(offset.dtype)  # (2, n, n)
    moved = (bare(offset).unflatten(1, (-1, 2)) + back).flatten(1, 2)
    result = plainly(func, maps, weight, moved, mask, bias, *wide, 0, 0, *dilation, *rest)
    return wrap(result, look, Kind((2, 3), cut=cut))


OPERATORS["torchvision.deform_conv2d"] = _deform_conv2d


@rule(deform_within)
def _deform_within(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, offset, mask, conv, reach = args
    if x._look.layout.num_windows == 1:
        maps, moved, weighed = (bare(part) if isinstance(part, WindowMaps) else part for part in (x, offset, mask))
        return wrap(deform_within(maps, moved, weighed, conv, reach), x._look, Kind((2, 3)))
    operator, dtype = torch.ops.torchvision.deform_conv2d, working_dtype(conv.weight)
    weight = conv.weight.to(dtype)
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.to(dtype)
    filler = weight.new_zeros(x.shape[0], 1) if mask is None else mask.to(dtype)
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    sizes = (*conv.stride, *conv.padding, *conv.dilation, conv.groups, offset.shape[1] // (2 * taps), mask is not None)
    given = (x.to(dtype), weight, offset.to(dtype), filler, bias)
    return _deform_conv2d(operator, (*given, *sizes), {}, reach=reach).to(x.dtype)


@rule(mean_of_pictures)
def _mean_of_pictures(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    (x,) = args
    return x._look.by_picture(bare(x)).mean()


def _measured(func: Any, offset: Tensor) -> float:
    """The farthest that any tap goes, in cells."""
    if torch.compiler.is_compiling():
        raise Refused(
            f"{name_of(func)} in a traced graph, which cannot know how far offsets go; center_deformable_conv bounds "
            f"its own"
        )
    if offset.device.type == "meta" or not offset.numel():
        return 0.0
    farthest = float(offset.detach().abs().amax())
    return farthest if math.isfinite(farthest) else math.inf


def _widest(x: WindowMaps) -> int:
    """The longest side of a picture, in cells of the finest level."""
    layout = x._look.layout
    cells = layout.pictures.amax(1, keepdim=True) / layout.cell_pixels(x.shape[-1])
    return math.ceil(float(cells.amax()))


def _along(n: int, side: int, stride: int, padding: int, reach: float, widest: int) -> tuple[int, int]:
    """The rim before and after along one axis, where taps go `reach` cells beyond the kernel's own square."""
    early = padding + reach
    late = n - stride - padding + side - 1 + reach - (n - 1)
    return min(widest, max(0, _up(early))), min(widest, max(0, _up(late)))


def _up(cells: float) -> int:
    """Whole cells that a bilinear reading needs."""
    return 1 << 30 if math.isinf(cells) else math.ceil(cells)


def _stride(cells: int, side: int, outputs: int) -> tuple[int, int]:
    """A stride by which a kernel gives so many outputs, and the cells that the map lacks for it."""
    room = cells - side
    if outputs == 1:
        return max(1, room + 1), 0
    stride = max(1, -(-room // (outputs - 1)))
    return stride, max(0, stride * (outputs - 1) - room)
