"""What a foveated network costs and sees at each level, beside the dense one: centre against periphery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import nn

from foveal.analysis.analyze import Analysis, Layer, analyze
from foveal.analysis.example_inputs import example_picture
from foveal.convert.foveate import FoveatedTransformer, foveate
from foveal.convert.planned import planned
from foveal.layout import Layout
from foveal.retina import Glimpse


@dataclass(frozen=True)
class Level:
    """The windows of one level.

    Args:
        level: 0 is full detail.
        windows: how many there are.
        tokens: cells of the last map, or tokens, that no finer window covers.
        macs: that these windows alone cost.
        field: height and width in pixels of what a cell of the last map over space sees; None where that is all.
    """

    level: int
    windows: int
    tokens: int
    macs: int
    field: tuple[int, int] | None


@dataclass(frozen=True)
class FoveatedCost:
    """A foveated network on one look.

    Args:
        dense: the network on the whole picture.
        size: cells along the side of a window.
        levels: finest first.
        once: MACs of what is done once a picture, whatever the windows: heads, gates.
        cells: pixels that are looked at, of `pixels`.
    """

    dense: Analysis
    size: int
    levels: tuple[Level, ...]
    once: int
    cells: int
    pixels: int

    @property
    def macs(self) -> int:
        """Of one look."""
        return self.once + sum(level.macs for level in self.levels)

    @property
    def ratio(self) -> float:
        """The dense network's MACs over those of a look."""
        return self.dense.macs / max(1, self.macs)

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {**asdict(self), "dense": self.dense.macs, "macs": self.macs, "ratio": self.ratio}


def foveated_cost(
    network: nn.Module,
    picture: int | Sequence[int] = 256,
    *,
    size: int = 64,
    levels: int = 3,
    dense: Analysis | None = None,
) -> FoveatedCost:
    """Counts a foveated network level by level, for a look at a picture's centre.

    Steps over space cost as much for every window; what comes after a global pool is done once a picture. A
    transformer's tokens are those that no finer window covers, and each attends to all of them.

    Args:
        network: that `foveate` can convert.
        picture: height and width, or one number for both.
        size: cells along a window's side.
        levels: how many windows.
        dense: the network's analysis on that picture, if there is one already.

    Raises:
        UnsupportedModule: if the network cannot be foveated.
        ValueError: for windows that do not fit.

    Example:
        >>> cost = foveated_cost(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), 64, size=16, levels=3)
        >>> cost.ratio, [level.windows for level in cost.levels]
        (5.333333333333333, [1, 1, 1])
    """
    dense = dense or analyze(network, picture)
    if size > 2 * max(dense.picture[-2:]):
        sides = " x ".join(map(str, dense.picture[-2:]))
        raise ValueError(f"a window of {size} cells is far larger than the picture, {sides}; give a smaller window")
    layout = Layout.foveal(picture=dense.picture[-2:], size=size, levels=levels)
    made = foveate(network)
    counted = (
        _transformer(made, layout)
        if isinstance(made, FoveatedTransformer)
        else _windows(analyze(network, size), layout)
    )
    per_window, per_token, once, kept, field = counted
    rows = []
    for level, count in Counter(layout.levels[0].tolist()).items():
        macs = per_window * count + round(per_token * kept[level] / max(1, sum(kept.values())))
        seen = None if field is None else (field[0] << level, field[1] << level)
        rows.append(Level(level, count, kept[level], macs, seen))
    height, width = dense.picture[-2:]
    return FoveatedCost(dense, size, tuple(rows), once, layout.num_windows * size * size, height * width)


def times(ratio: float) -> str:
    """A saving in words, or the loss that it is.

    Example:
        >>> times(5.333), times(0.25)
        ('5.33 times fewer', '4.00 times MORE')
    """
    return f"{ratio:.2f} times fewer" if ratio >= 1 else f"{1 / ratio:.2f} times MORE"


class _Counted(NamedTuple):
    """MACs of a window, of all tokens together, and once a picture; tokens by level; the field in a window's cells."""

    per_window: int
    per_token: int
    once: int
    tokens: dict[int, int]
    field: tuple[int, int] | None


def _windows(window: Analysis, layout: Layout) -> _Counted:
    """Of a convolutional network, from its run on one window."""
    maps = [layer for layer in window.layers if layer.field is not None and len(layer.output) == 4 and not _once(layer)]
    once = sum(layer.macs for layer in window.layers if _once(layer))
    kept = _tokens_by_level(layout, maps[-1].output[-1] if maps else 1)
    last = maps[-1].field if maps else None
    field = None if last is None or last.whole else last.size
    return _Counted(window.macs - once, 0, once, kept, field)


def _transformer(made: FoveatedTransformer, layout: Layout) -> _Counted:
    """Of a vision transformer, from its run on the tokens that there are; each of them attends to all."""
    pixels = example_picture(made, layout.size).expand(layout.num_windows, -1, -1, -1)[None]
    run = analyze(planned(made, Glimpse(pixels, layout)), inputs=[pixels])
    patches = next(layer for layer in run.layers if "conv2d" in layer.operations)
    kept = _tokens_by_level(layout, patches.output[-1])
    fewest, joint = sum(kept.values()), 0
    for layer in run.layers:  # class, distillation and register tokens come before those of the picture
        joint += layer.macs * (layer is not patches and any(fewest <= side < fewest + 8 for side in layer.output[:-1]))
    return _Counted(patches.macs // layout.num_windows, joint, run.macs - patches.macs - joint, kept, None)


def _once(layer: Layer) -> bool:
    """Whether a layer works on what a whole picture has, and not on its windows."""
    return layer.field is not None and layer.field.whole and all(side == 1 for side in layer.output[2:])


def _tokens_by_level(layout: Layout, n: int) -> dict[int, int]:
    """Cells of maps of n x n that no finer window, nor an earlier one of their level, covers."""
    seen = (layout.areas(n)[0] > 0).sum((1, 2))
    found: dict[int, int] = {}
    for level, many in zip(layout.levels[0].tolist(), seen.tolist(), strict=True):
        found[level] = found.get(level, 0) + many
    return found
