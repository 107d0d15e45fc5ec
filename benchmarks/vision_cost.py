"""What the vision side costs: the default look against its dense twin, from picture to tokens, in one run.

    python benchmarks/vision_cost.py [--repeats 30] [--threads 2]

Prints MACs (multiply-accumulates of convolutions, linear layers and attention, counted on the running code) and wall
time, the two interleaved, medians with the middle half of the measurements. Where the fovea loses, it says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from foveal import Retina
from foveal.models import MultiModalTransformer, MultiModalTransformerConfig
from foveal.models.processing import MEAN, STD
from foveal.retina import Glimpse


def macs(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2  # the counter counts two for each multiply-accumulate


def measure(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, interleaved, the first three of each not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 3):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 3:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", default="small")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = MultiModalTransformer(MultiModalTransformerConfig(backbone=arguments.backbone)).eval()
    looks = {
        "fovea": Retina(64, 3, mean=MEAN, std=STD, enlarge=True),
        "dense": Retina(224, 1, mean=MEAN, std=STD, enlarge=True),
    }
    print(f"{'batch':>5} {'part':24} {'fovea':>10} {'dense':>10} {'fovea/dense':>12}")
    for batch in (1, 8):
        pictures = (torch.rand(batch, 3, 224, 224) * 255).byte()
        glimpses = {name: retina(pictures) for name, retina in looks.items()}
        if batch == 1:
            count = {name: macs(lambda g=g: model.encoder.look(g)) for name, g in glimpses.items()}  # type: ignore[misc]
            tokens = {name: model.encoder.look(g)[1].sum().item() for name, g in glimpses.items()}
            millions = {name: value / 1e6 for name, value in count.items()}
            for part, value in (("million MACs, to tokens", millions), ("tokens", tokens)):
                ratio = value["fovea"] / value["dense"]
                print(f"{batch:>5} {part:24} {value['fovea']:>10.1f} {value['dense']:>10.1f} {ratio:>12.3f}")

        def from_pictures(name: str, pictures: torch.Tensor = pictures) -> object:
            return model.encoder.look(looks[name](pictures))

        def from_glimpse(name: str, glimpses: dict[str, Glimpse] = glimpses) -> object:
            return model.encoder.look(glimpses[name])

        for part, run in (("ms, picture to tokens", from_pictures), ("ms, glimpse to tokens", from_glimpse)):
            seconds = measure({name: lambda name=name, run=run: run(name) for name in looks}, arguments.repeats)  # type: ignore[misc]
            middle = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
            spread = {name: statistics.quantiles(values, n=4) for name, values in seconds.items()}
            ratio = middle["fovea"] / middle["dense"]
            print(
                f"{batch:>5} {part:24} {middle['fovea']:>10.1f} {middle['dense']:>10.1f} {ratio:>12.3f}"
                + ("  the fovea is SLOWER" if ratio > 1 else "")
            )
            quarters = "   ".join(f"{name} {q[0] * 1e3:.1f} to {q[2] * 1e3:.1f}" for name, q in spread.items())
            print(f"{'':5} {'  middle half':24} {quarters}")


if __name__ == "__main__":
    main()
