"""What is worth a second look in a network, in plain words, each with the number behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from foveal.analysis.slide import sides_of

if TYPE_CHECKING:
    from foveal.analysis.analyze import Analysis, Layer

HOLDS_MOST = 0.5
"""Of all parameters: a layer with more of them is told."""

FEW_FLOPS = 4.0
"""A byte: convolutions and linear layers that do fewer wait for memory on about every machine."""


def remarks_on(analysis: Analysis, network: nn.Module) -> Iterator[str]:
    """Sentences about a network; none where there is nothing to say.

    Args:
        analysis: of the network, without remarks.
        network: itself, for what its modules were told.
    """
    modules = dict(network.named_modules())
    yield from _field(analysis)
    seen = set()
    for layer in analysis.layers:
        module = modules.get(layer.name)
        if module is None or layer.name in seen:
            continue
        seen.add(layer.name)
        if isinstance(module, nn.Conv2d):
            yield from _large_kernel(layer, module)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            yield from _lost_pixels(layer, module)
        if isinstance(module, nn.ConvTranspose2d):
            yield from _checkerboard(layer, module)
    yield from _memory_bound(analysis, modules)
    yield from _most_parameters(analysis)
    if analysis.unused:
        many = sum(analysis.unused.values())
        first = next(iter(analysis.unused))
        what = "parameter is" if len(analysis.unused) == 1 else "parameters are"
        yield f"{len(analysis.unused)} {what} not used in evaluation: {first} first, {many:,} numbers in all."


def _field(analysis: Analysis) -> Iterator[str]:
    if len(analysis.picture) != 4:
        return
    height, width = analysis.picture[-2:]
    local = [layer for layer in analysis.layers if layer.field is not None and len(layer.output) == 4]
    if any(layer.field is not None and layer.field.whole and _has_places(layer) for layer in analysis.layers):
        return  # attention, or a gate from the whole picture
    local = [layer for layer in local if layer.field is not None and not layer.field.whole]
    if local and local[-1].field is not None:
        tall, wide = local[-1].field.size
        if tall < height or wide < width:
            yield (
                f"{local[-1].name or 'The last map'} sees {tall} x {wide} pixels, less than the picture's {height} x "
                f"{width}: nothing larger can be told as a whole before the global pool."
            )


def _has_places(layer: Layer) -> bool:
    """Whether a map has more than one place, and is not pooled: (B, C, H, W), or tokens (B, N, C)."""
    sides = layer.output[2:] if len(layer.output) == 4 else layer.output[1:-1]
    return any(side > 1 for side in sides)


def _large_kernel(layer: Layer, module: nn.Conv2d) -> Iterator[str]:
    tall, wide = module.kernel_size
    if tall != wide or tall < 5 or module.groups > 1 or module.dilation != (1, 1) or tall % 2 == 0:
        return
    many = (tall - 1) // 2
    here = module.in_channels * module.out_channels * tall * tall
    channels = [module.in_channels] + [module.out_channels] * many
    stacked = sum(9 * channels[at] * channels[at + 1] for at in range(many))
    if stacked < here:
        yield (
            f"{layer.name}: one {tall} x {tall} kernel has {here:,} weights; {many} stacked 3 x 3 see as far with "
            f"{stacked:,}."
        )


def _lost_pixels(layer: Layer, module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Iterator[str]:
    if isinstance(module.padding, str) or len(layer.input) != 4:
        return
    kernels, strides = sides_of(module.kernel_size, 2), sides_of(module.stride, 2)
    padding, dilation = sides_of(module.padding, 2), sides_of(getattr(module, "dilation", 1), 2)
    for axis, word in enumerate(("rows", "columns")):
        side, step, kernel = layer.input[2 + axis], strides[axis], kernels[axis]
        reach = dilation[axis] * (kernel - 1) + 1
        seen = (layer.output[2 + axis] - 1) * step + reach - padding[axis]
        if kernel >= step > 1 and seen < side:
            yield (
                f"{layer.name}: a kernel of {kernel} at stride {step} on {side} {word} never sees the last "
                f"{side - seen}; pad, or take a picture whose sides fit."
            )
            return


def _checkerboard(layer: Layer, module: nn.ConvTranspose2d) -> Iterator[str]:
    uneven = [(k, s) for k, s in zip(module.kernel_size, module.stride, strict=True) if s > 1 and k % s]
    if uneven:
        kernel, stride = uneven[0]
        yield (
            f"{layer.name}: a transposed kernel of {kernel} at stride {stride} overlaps unevenly "
            f"(by {kernel % stride}), which shows as a checkerboard; take a kernel that the stride divides, or "
            f"interpolate, then convolve."
        )


def _memory_bound(analysis: Analysis, modules: dict[str, nn.Module]) -> Iterator[str]:
    bound = [layer for layer in analysis.layers if layer.macs and layer.intensity < FEW_FLOPS]
    bound = [layer for layer in bound if isinstance(modules.get(layer.name), nn.Conv2d)]
    if not bound or not analysis.macs:
        return
    share = sum(layer.macs for layer in bound) / analysis.macs
    least = min(bound, key=lambda layer: layer.intensity)
    what = "convolution does" if len(bound) == 1 else "convolutions do"
    text = (
        f"{len(bound)} {what} less than {FEW_FLOPS:.0f} FLOPs for a byte that is moved ({least.name}: "
        f"{least.intensity:.1f}): what waits for memory so has {share:.1%} of the MACs"
    )
    spent = [layer.milliseconds for layer in analysis.layers if layer.milliseconds is not None]
    if spent:
        text += f" and took {sum(layer.milliseconds or 0 for layer in bound) / sum(spent):.1%} of the time"
    yield text + "."


def _most_parameters(analysis: Analysis) -> Iterator[str]:
    if len([layer for layer in analysis.layers if layer.parameters]) < 3:
        return
    most = max(analysis.layers, key=lambda layer: layer.parameters)
    if most.parameters > HOLDS_MOST * analysis.parameters:
        share = most.parameters / analysis.parameters
        yield f"{most.name} holds {share:.0%} of all parameters ({most.parameters:,} of {analysis.parameters:,})."
