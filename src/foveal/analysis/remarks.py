"""What is worth a second look in a network, in plain words, each with the number behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import fx

from foveal.analysis.boxes import Reach
from foveal.analysis.count import cost_of, moved_bytes
from foveal.analysis.kernel_steps import KernelStep, kernel_step, padding_before
from foveal.analysis.trace import operation

if TYPE_CHECKING:
    from foveal.analysis.analyze import Analysis, Layer

HOLDS_MOST = 0.5
"""Of all parameters: a layer with more of them is told."""

FEW_FLOPS = 4.0
"""A byte: convolutions and linear layers that do fewer wait for memory on about every machine."""

POOLS = {"adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "max", "sum"}
"""What makes one number of a whole map."""


def remarks_on(
    analysis: Analysis,
    groups: Sequence[Sequence[fx.Node]],
    found: Mapping[fx.Node, Reach],
) -> Iterator[str]:
    """Sentences about a network; none where there is nothing to say.

    They are made of what the network's run did, so that a function, or a node of an ONNX file, is told as a module is.

    Args:
        analysis: of the network, without remarks.
        groups: the operations of each of its layers.
        found: the boxes of those that depend on the picture.
    """
    steps = [_steps(layer, group) for layer, group in zip(analysis.layers, groups, strict=True)]
    yield from _field(analysis, groups, found)
    seen: set[fx.Node] = set()
    told: dict[str, None] = {}  # in order; a pool that runs again says the same
    for name, step in (pair for row in steps for pair in row):
        if step.weight is not None and step.weight in seen:
            continue  # a layer that is called again
        if step.weight is not None:
            seen.add(step.weight)
        remarks = (*_large_kernel(name, step), *_lost_pixels(name, step), *_checkerboard(name, step))
        told |= dict.fromkeys(remarks)
    yield from told
    yield from _memory_bound(analysis, steps)
    yield from _most_parameters(analysis)
    if analysis.unused:
        many = sum(analysis.unused.values())
        first = next(iter(analysis.unused))
        what = "parameter is" if len(analysis.unused) == 1 else "parameters are"
        yield f"{len(analysis.unused)} {what} not used in evaluation: {first} first, {many:,} numbers in all."


def _steps(layer: Layer, group: Sequence[fx.Node]) -> list[tuple[str, KernelStep]]:
    """The kernels of a layer with what they are called: of several in one layer, by their nodes too."""
    steps = [step for node in group if (step := kernel_step(node)) is not None]
    name = layer.name or "(network)"
    return [(name if len(steps) == 1 else f"{name}, {step.node.name}", step) for step in steps]


def last_local(analysis: Analysis, *, maps: bool = False) -> int | None:
    """The place of the last layer that is not global; None where a later one has a field that nobody can say.

    Args:
        analysis: of a network.
        maps: whether only layers that give maps (B, C, H, W) are looked at.
    """
    layers = list(enumerate(analysis.layers))
    local = [at for at, one in layers if one.field and not one.field.whole and (len(one.output) == 4 or not maps)]
    if not local or any(layer.name in analysis.unknown for _, layer in layers[local[-1] + 1 :]):
        return None
    return local[-1]


def _field(analysis: Analysis, groups: Sequence[Sequence[fx.Node]], found: Mapping[fx.Node, Reach]) -> Iterator[str]:
    at = last_local(analysis, maps=True)
    if at is None or len(analysis.picture) != 4:
        return
    if any(layer.field is not None and layer.field.whole and _has_places(layer) for layer in analysis.layers):
        return  # attention, or a gate from the whole picture
    last, (height, width) = analysis.layers[at], analysis.picture[-2:]
    tall, wide = last.field.size if last.field is not None else (height, width)
    if tall < height or wide < width:
        later = [node for group in groups[at + 1 :] for node in group]
        pools = any(operation(node) in POOLS and node in found and found[node].whole for node in later)
        yield (
            f"{last.name or 'The last map'} sees {tall} x {wide} pixels, less than the picture's {height} x {width}: "
            f"nothing larger can be told as a whole{' before the global pool' if pools else ''}."
        )


def _has_places(layer: Layer) -> bool:
    """Whether a map has more than one place, and is not pooled: (B, C, H, W), or tokens (B, N, C)."""
    sides = layer.output[2:] if len(layer.output) == 4 else layer.output[1:-1]
    return any(side > 1 for side in sides)


def _large_kernel(name: str, step: KernelStep) -> Iterator[str]:
    tall, wide = step.kernel
    if step.kind != "conv" or tall != wide or tall < 5 or tall % 2 == 0 or step.groups > 1 or step.dilation != (1, 1):
        return
    many = (tall - 1) // 2
    here = step.channels * step.out_channels * tall * tall
    channels = [step.channels] + [step.out_channels] * many
    stacked = sum(9 * channels[at] * channels[at + 1] for at in range(many))
    if stacked < here:
        yield (
            f"{name}: one {tall} x {tall} kernel has {here:,} weights; {many} stacked 3 x 3 see as far with "
            f"{stacked:,}."
        )


def _lost_pixels(name: str, step: KernelStep) -> Iterator[str]:
    if step.kind == "transposed" or step.padding is None:
        return
    around = padding_before(step.node.args[0])  # which nobody misses
    for axis, word in enumerate(("rows", "columns")):
        side, stride, kernel, (front, behind) = step.input[2 + axis], step.stride[axis], step.kernel[axis], around[axis]
        reach = step.dilation[axis] * (kernel - 1) + 1
        seen = (step.output[2 + axis] - 1) * stride + reach - step.padding[axis]
        lost = side - seen - behind
        if kernel >= stride > 1 and lost > 0:
            yield (
                f"{name}: a kernel of {kernel} at stride {stride} on {side - front - behind} {word} never sees the "
                f"last {lost}; pad, or take a picture whose sides fit."
            )
            return


def _checkerboard(name: str, step: KernelStep) -> Iterator[str]:
    uneven = [(k, s) for k, s in zip(step.kernel, step.stride, strict=True) if s > 1 and k % s]
    if step.kind == "transposed" and uneven:
        kernel, stride = uneven[0]
        yield (
            f"{name}: a transposed kernel of {kernel} at stride {stride} overlaps unevenly "
            f"(by {kernel % stride}), which shows as a checkerboard; take a kernel that the stride divides, or "
            f"interpolate, then convolve."
        )


def _memory_bound(analysis: Analysis, steps: Sequence[Sequence[tuple[str, KernelStep]]]) -> Iterator[str]:
    bound, rows = [], set()
    for row, named in enumerate(steps):
        for name, step in named:
            cost = cost_of(step.node)
            intensity = cost.flops / max(1, moved_bytes(step.node))
            if step.kind == "conv" and cost.macs and intensity < FEW_FLOPS:
                bound.append((intensity, name, cost.macs))
                rows.add(row)
    if not bound or not analysis.macs:
        return
    share = sum(macs for _, _, macs in bound) / analysis.macs
    least, name, _ = min(bound, key=lambda one: one[0])
    what = "convolution does" if len(bound) == 1 else "convolutions do"
    text = (
        f"{len(bound)} {what} less than {FEW_FLOPS:.0f} FLOPs for a byte that is moved ({name}: "
        f"{least:.1f}): what waits for memory so has {share:.1%} of the MACs"
    )
    spent = [layer.milliseconds for layer in analysis.layers if layer.milliseconds is not None]
    if spent and all(len(steps[row]) == 1 for row in rows):  # else the time is that of others too
        text += f" and took {sum(analysis.layers[row].milliseconds or 0 for row in rows) / sum(spent):.1%} of the time"
    yield text + "."


def _most_parameters(analysis: Analysis) -> Iterator[str]:
    if len([layer for layer in analysis.layers if layer.parameters]) < 3:
        return
    most = max(analysis.layers, key=lambda layer: layer.parameters)
    if most.parameters > HOLDS_MOST * analysis.parameters:
        share = most.parameters / analysis.parameters
        name = most.name or "(network)"
        yield f"{name} holds {share:.0%} of all parameters ({most.parameters:,} of {analysis.parameters:,})."
