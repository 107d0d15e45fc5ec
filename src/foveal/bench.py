"""A network with and without a fovea, measured side by side: time, cells, and where the fovea loses.

Every way of looking takes the same pictures from memory to the network's output. The runs are interleaved, so that
whatever else the machine does falls on all of them; what is told are ratios of medians, with the spread.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.models.vision_side import VisionSide
from foveal.retina import Retina

WARMUP = 2
"""Rounds that are run and not counted."""


@dataclass(frozen=True)
class Measured:
    """One way of looking at pictures of one side.

    Args:
        way: "dense", "resize" (the whole picture at as many cells), "crop" (its centre, as many cells), "fovea", or
            "fovea without halo".
        side: of the pictures, in pixels.
        cells: that the network sees of each.
        milliseconds: median for a batch; `low` and `high` hold the middle half.
        faster: how many times the dense network's median this one fits into; 0 where the dense one could not run.
        ideal: the same by cells alone.
        error: why it could not run, in one line; the figures are then 0.
    """

    way: str
    side: int
    cells: int
    milliseconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    faster: float = 0.0
    ideal: float = 0.0
    error: str | None = None

    @property
    def verdict(self) -> str:
        """In words, where the fovea loses against the dense network; else empty."""
        lost = self.way.startswith("fovea") and not self.error and 0 < self.faster < 1
        return f"SLOWER than dense: {1 / self.faster:.2f} times its time" if lost else ""


@dataclass(frozen=True)
class Setting:
    """What a comparison is made with.

    Args:
        batch: pictures at a time.
        size: cells along a window's side.
        levels: windows of the look, or "auto".
        repeats: rounds that are counted.
        prepared: leave resizing, cropping and the retina out of the time.
        seed: of the pictures, which are noise.
        fixation: as a retina takes it.
    """

    batch: int = 1
    size: int = 64
    levels: int | Literal["auto"] = "auto"
    repeats: int = 15
    prepared: bool = False
    seed: int = 0
    fixation: Any = "center"


@torch.inference_mode()
def compare(
    network: nn.Module,
    sides: Sequence[int],
    setting: Setting | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> list[Measured]:
    """Measures a network at pictures of several sides.

    Args:
        network: takes pictures (B, 3, H, W), or is a `VisionSide`; it is left in evaluation mode and channels-last
            memory.
        sides: of the pictures, in pixels.
        setting: the rest.
        progress: called with (sides done, sides in all).

    Returns:
        For each side the dense network, plain resize, centre crop, and the fovea with and without halo. What a
        network cannot do, such as pictures of a size that it does not take, has an `error`.

    Raises:
        UnsupportedModule: if the network cannot be foveated.
        ValueError: for impossible sizes.

    Example:
        >>> rows = compare(torchvision.models.resnet18(), [256], Setting(batch=8, levels=3))
        >>> [row.way for row in rows]
        ['dense', 'resize', 'crop', 'fovea', 'fovea without halo']
    """
    setting = setting or Setting()
    network = network.eval().to(memory_format=torch.channels_last)
    halo, bare = _foveated(network)
    rows: list[Measured] = []
    for done, side in enumerate(sides):
        rows += _at(network, halo, bare, side, setting)
        if progress is not None:
            progress(done + 1, len(sides))
    return rows


def _foveated(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """With halo and without; a network of ours takes glimpses as it is."""
    if isinstance(network, VisionSide):
        return network, network.without_halo()
    return foveate(network), foveate(network, halo=False)


def _at(network: nn.Module, halo: nn.Module, bare: nn.Module, side: int, setting: Setting) -> list[Measured]:
    torch.manual_seed(setting.seed)
    pictures = torch.rand(setting.batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    retina = Retina(setting.size, setting.levels)
    glimpse = retina(pictures, setting.fixation)
    windows = glimpse.layout.num_windows
    cells = windows * setting.size**2
    small = min(side, max(32, round(cells**0.5 / 32) * 32))
    start = (side - small) // 2

    def resized() -> Tensor:
        return F.interpolate(pictures, (small, small), mode="bilinear", antialias=True)

    def cropped() -> Tensor:
        return pictures[:, :, start : start + small, start : start + small]

    def looked() -> Any:
        return retina(pictures, setting.fixation)

    ways: dict[str, tuple[int, nn.Module, Callable[[], Any]]] = {
        "dense": (side * side, network, lambda: pictures),
        "resize": (small * small, network, resized),
        "crop": (small * small, network, cropped),
        "fovea": (cells, halo, looked),
        "fovea without halo": (cells, bare, looked),
    }
    runs: dict[str, Callable[[], Any]] = {}
    errors: dict[str, str] = {}
    for way, (_, made, prepare) in ways.items():
        run = _run(made, prepare, ready=prepare() if setting.prepared else None)
        try:
            run()
            runs[way] = run
        except Exception as error:
            errors[way] = _why(error)
    times = interleaved(runs, setting.repeats)
    dense = statistics.median(times["dense"]) if "dense" in times else 0.0
    rows = []
    for way, (seen, _, _) in ways.items():
        if way in errors:
            rows.append(Measured(way, side, seen, error=errors[way]))
            continue
        low, middle, high = quartiles(times[way])
        rows.append(Measured(way, side, seen, middle * 1e3, low * 1e3, high * 1e3, dense / middle, side * side / seen))
    return rows


def _why(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _run(made: nn.Module, prepare: Callable[[], Any], *, ready: Any) -> Callable[[], Any]:
    return (lambda: made(prepare())) if ready is None else (lambda: made(ready))


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, one after the other in each round, the first rounds not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names, order = list(runs), random.Random(0)
    for repeat in range(max(2, repeats) + WARMUP):
        order.shuffle(names)  # a run that always followed the largest would always find its caches cold
        for name in names:
            began = time.perf_counter()
            runs[name]()
            if repeat >= WARMUP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Where the middle half begins, the median, and where it ends: never outside what was measured."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return low, middle, high


@dataclass(frozen=True)
class Fit:
    """A window size and a number of levels, what they cost, and whether that is within a budget.

    Tokens are None where they cannot be counted; such windows fit no budget of tokens.
    """

    size: int
    levels: int
    cells: int
    milliseconds: float
    tokens: int | None
    fits: bool


@torch.inference_mode()
def fit_budget(
    network: nn.Module,
    side: int,
    *,
    milliseconds: float | None = None,
    tokens: int | None = None,
    batch: int = 1,
    repeats: int = 7,
) -> list[Fit]:
    """Which sizes of windows fit a budget, for pictures of one side seen with native pixels in the fovea.

    Args:
        network: takes pictures (B, 3, H, W), or is a `VisionSide`.
        side: of the pictures, in pixels.
        milliseconds: for a batch, from picture to output.
        tokens: cells of the last feature map that alone stand for something, of one picture.
        batch: pictures at a time.
        repeats: rounds that are counted.

    Returns:
        Every size that was tried, the smallest first; the last that fits is the choice.

    Raises:
        ValueError: without a budget, or if the network takes windows of none of the sizes.
        UnsupportedModule: if the network cannot be foveated.
    """
    if milliseconds is None and tokens is None:
        raise ValueError("no budget was given; give milliseconds, tokens, or both")
    foveated, _ = _foveated(network.eval())
    pictures = torch.rand(batch, 3, side, side)
    found: list[Fit] = []
    reason: Exception | None = None
    for size in (32, 64, 96, 128, 192, 256, 384, 512):
        if size > side and found:
            break
        retina = Retina(size)
        glimpse = retina(pictures)
        try:
            many = _tokens(foveated, glimpse.layout, glimpse)
        except Exception as error:
            reason = error
            continue
        run = _run(foveated, lambda retina=retina: retina(pictures), ready=None)  # type: ignore[misc]
        spent = statistics.median(interleaved({"fovea": run}, repeats)["fovea"]) * 1e3
        within = (milliseconds is None or spent <= milliseconds) and (
            tokens is None or (many is not None and many <= tokens)
        )
        windows = glimpse.layout.num_windows
        found.append(Fit(size, windows, windows * size * size, spent, many, within))
    if not found:
        raise ValueError(f"{side} pixels: the network takes windows of none of the sizes tried: {_why(reason)}")
    return found


def _tokens(network: Any, layout: Layout, glimpse: Any) -> int | None:
    """How many cells of the last map become tokens; None for a network that only gives one vector a picture."""
    told = network(glimpse)  # whether it takes such windows at all
    if isinstance(network, VisionSide):
        return int(told.shape[1])
    if not hasattr(network.network, "forward_features"):
        return None
    maps = network.forward_features(glimpse)
    if isinstance(maps, Tensor) and maps.ndim == 5:
        return int(layout.tokens(maps.shape[-1])[1][0].sum())
    return int(maps.shape[1]) if isinstance(maps, Tensor) and maps.ndim == 3 else None
