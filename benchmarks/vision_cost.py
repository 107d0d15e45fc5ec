"""What the vision side costs: the default look against its dense twin, from picture to tokens, in one run.

    python benchmarks/vision_cost.py [--repeats 21] [--threads 2]

Prints MACs (multiply-accumulates of convolutions, linear layers and attention, counted on the running code) and wall
time, the two interleaved, medians with the middle half of the measurements. Where the fovea loses, it says so.
"""

from __future__ import annotations

import statistics

import torch
from side_by_side import arguments, macs

from foveal import Retina
from foveal.bench import interleaved, quartiles
from foveal.models import MultiModalTransformer, MultiModalTransformerConfig
from foveal.models.processing import MEAN, STD
from foveal.retina import Glimpse


def main() -> None:
    given = arguments(__doc__, backbone={"default": "small"})
    model = MultiModalTransformer(MultiModalTransformerConfig(backbone=given.backbone)).eval()
    with torch.inference_mode():
        measure(model, given.repeats)


def measure(model: MultiModalTransformer, repeats: int) -> None:
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
            seconds = interleaved({name: lambda name=name, run=run: run(name) for name in looks}, repeats)  # type: ignore[misc]
            middle = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
            spread = {name: quartiles(values) for name, values in seconds.items()}
            ratio = middle["fovea"] / middle["dense"]
            print(
                f"{batch:>5} {part:24} {middle['fovea']:>10.1f} {middle['dense']:>10.1f} {ratio:>12.3f}"
                + ("  the fovea is SLOWER" if ratio > 1 else "")
            )
            quarters = "   ".join(f"{name} {q[0] * 1e3:.1f} to {q[2] * 1e3:.1f}" for name, q in spread.items())
            print(f"{'':5} {'  middle half':24} {quarters}")


if __name__ == "__main__":
    main()
