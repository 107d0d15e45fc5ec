"""What the benchmarks of time share: runs interleaved in one process, told as ratios of medians with their spread."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import foveal.winograd
from foveal.bench import interleaved, quartiles


def arguments(doc: str | None, **more: dict[str, Any]) -> argparse.Namespace:
    """Reads --repeats, --threads and what else a benchmark takes, and sets the threads."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="rounds that are counted")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    for name, options in more.items():
        parser.add_argument(name if options.pop("place", False) else f"--{name}", **options)
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    torch.manual_seed(0)
    return found


def chosen(given: argparse.Namespace, parts: dict[str, Callable[[], None]]) -> None:
    """Runs the parts that --only names."""
    names = given.only.split(",")
    for name in names:
        if name not in parts:
            raise SystemExit(f"--only: there is no {name!r}; choose from {', '.join(parts)}")
    for name in names:
        parts[name]()


def macs(run: Callable[[], Any]) -> float:
    """Multiply-accumulates of convolutions, linear layers and attention, counted on the running code.

    All convolutions count in full, those that are computed with fewer multiplications too.
    """
    fewest, foveal.winograd.FEWEST_TILES = foveal.winograd.FEWEST_TILES, 1 << 62
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        foveal.winograd.FEWEST_TILES = fewest
    return counter.get_total_flops() / 2  # the counter counts two for each


def compare(
    title: str, runs: dict[str, Callable[[], Any]], repeats: int, ideal: dict[str, float] | None = None
) -> dict[str, float]:
    """Runs everything, prints a row each, and gives the medians in seconds.

    Args:
        title: of the table.
        runs: by name; the first is what the others are compared with.
        repeats: rounds that are counted.
        ideal: how many times faster than the first each would be by its cells or multiplications alone.
    """
    times = interleaved(runs, repeats)
    middle = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(runs))
    print(f"\n{title}\n  {'':34} {'ms':>9} {'middle half':>19} {'times faster':>13} {'ideal':>7}")
    for name, values in times.items():
        low, _, high = (1e3 * value for value in quartiles(values))
        best = f"{ideal[name]:>7.2f}" if ideal and name in ideal else ""
        ratio = middle[first] / middle[name]
        lost = "  SLOWER" if ratio < 1 and name != first else ""
        print(f"  {name:34} {middle[name] * 1e3:>9.2f} {f'{low:.2f} to {high:.2f}':>19} {ratio:>13.2f} {best}{lost}")
    return middle
