"""What a unit really looks at: the effective receptive field, measured by gradients (Luo et al. 2016)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from foveal.analysis.analyze import groups_of, sees_all
from foveal.analysis.asleep import woken
from foveal.analysis.boxes import EMPTY, Reach
from foveal.analysis.example_inputs import example_inputs, refuse_channels_last
from foveal.analysis.reach import reaches
from foveal.analysis.replay import replay
from foveal.analysis.trace import Trace, layer_of, shape_of, trace, value_of

FAINT = 0.0455
"""Of the largest gradient: what is weaker is outside, two standard deviations of a Gaussian."""


@dataclass(frozen=True)
class UnitField:
    """The field of one place of a layer's map, all channels together.

    Args:
        layer: path of the layer.
        unit: the place, (y, x).
        grid: height and width of the map.
        box: first and last row, first and last column of the pixels that it can depend on, inside the picture; (0, -1,
            0, -1) where it sees none, since it lies in the padding.
        nominal: the same, going on beyond the picture.
        heat: (H, W) float32, how strongly each pixel moves it: the mean size of the gradient, at most 1.
        whole: whether it depends on the whole picture through attention or a pool over space.
        woken: gains that all still start at the same value near 0, and were counted as 1 for the heat.
        untaught: whether the weights are known to be random, so that the heat is what the architecture starts with.
    """

    layer: str
    unit: tuple[int, int]
    grid: tuple[int, int]
    box: tuple[int, int, int, int]
    nominal: tuple[int, int, int, int]
    heat: Tensor
    whole: bool
    woken: int = 0
    untaught: bool = False

    @property
    def sees_nothing(self) -> bool:
        """Whether it depends on no pixel."""
        return self.box == EMPTY

    @property
    def effective(self) -> float:
        """Side of a square of as many pixels as move the unit at least 4.55 % as much as the strongest does."""
        return float((self.heat >= FAINT).sum()) ** 0.5


def unit_field(
    network: nn.Module,
    layer: str,
    size: int | Sequence[int] | None = None,
    *,
    unit: tuple[int, int] | None = None,
    samples: int = 8,
    seed: int = 0,
) -> UnitField:
    """The theoretical and the effective receptive field of a unit.

    Gains that have not been taught and start near 0 would hide whole branches: they count as 1 (`woken`).

    Args:
        network: any that `analyze` takes.
        layer: path of one of its layers, whose map is (B, C, H, W).
        size: height and width of the picture, or one number for both.
        unit: (y, x) in the layer's map; its middle by default.
        samples: random pictures over which gradients are averaged.
        seed: of these.

    Raises:
        ValueError: for a layer that is not there, whose output is no map, or a unit outside it.

    Example:
        >>> found = unit_field(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2)), "0", 32)
        >>> found.box, round(found.effective)
        ((14, 18, 14, 18), 5)
    """
    refuse_channels_last(network)
    recorded = trace(network, example_inputs(network, size))
    return unit_field_in(recorded, layer, unit=unit, samples=samples, seed=seed)


def unit_field_in(
    recorded: Trace,
    layer: str,
    *,
    unit: tuple[int, int] | None = None,
    samples: int = 8,
    seed: int = 0,
    untaught: bool = False,
) -> UnitField:
    """The same, in a run that is recorded already."""
    ends: dict[str, fx.Node] = {}
    for group in groups_of(recorded):  # a path names what runs last in it, so a stage its last block
        path = layer_of(group[-1])[0]
        for end in [path, *(path[:at] for at, letter in enumerate(path) if letter == ".")]:
            ends[end] = group[-1]
    if layer not in ends:
        near = difflib.get_close_matches(layer, ends, 1, 0.3)
        raise ValueError(f"no layer is called {layer!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    node, nominal = ends[layer], reaches(recorded)
    shape = shape_of(node)
    if node not in nominal or nominal[node].places() != (2, 3):
        raise ValueError(f"{layer} gives {tuple(shape)}; expected a map (B, C, H, W) that depends on the picture")
    y, x = unit or (shape[2] // 2, shape[3] // 2)
    if not (0 <= y < shape[2] and 0 <= x < shape[3]):
        raise ValueError(f"unit is ({y}, {x}); {layer} has a map of {shape[2]} x {shape[3]}")
    inside: Reach = reaches(recorded, beyond=False)[node]
    generator, given = torch.Generator().manual_seed(seed), value_of(recorded.inputs[0])
    if not given.is_floating_point():
        raise ValueError(f"the network takes pictures of {given.dtype}, whole numbers, which have no gradient")
    heat, gains = torch.zeros(given.shape[-2:]), woken(recorded)
    rest = [torch.zeros(shape_of(other), dtype=value_of(other).dtype) for other in recorded.inputs[1:]]
    for _ in range(samples):
        picture = torch.randn(given.shape, generator=generator).to(given.dtype).requires_grad_()
        with torch.enable_grad():
            map_ = replay(recorded, [picture, *rest], [node], gains)[node]
            spread = torch.randn(shape[1], generator=generator).to(map_)
            (gradient,) = torch.autograd.grad((map_[0, :, y, x] * spread).sum(), picture)
        heat += gradient[0].float().abs().sum(0)
    heat /= heat.max().clamp(min=1e-30)
    whole = sees_all(nominal[node], shape_of(recorded.inputs[0]))
    boxes = inside.unit(y, x), nominal[node].unit(y, x)
    return UnitField(layer, (y, x), (shape[2], shape[3]), *boxes, heat, whole, len(gains), untaught)
