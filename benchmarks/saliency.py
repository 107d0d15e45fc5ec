"""Teaches the saliency head by OSIE's eye movements and measures it on pictures that it has not seen.

    python benchmarks/saliency.py ../shared/data/osie [--out src/foveal/models/saliency.safetensors]
    python benchmarks/saliency.py ../shared/data/osie --weights default

Every fifth picture is held out. Beside the head: the mean gaze of the other pictures (the centre bias, which any
method has to stand above), the contrast that `auto` follows, and what other viewers' gazes would score.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from foveal.models.saliency import load_saliency
from foveal.policy.scores import contrast
from foveal.training.saliency import Gazes, auc_judd, gaze_map, look, nss, read_gazes, saliency_map, train_saliency

HEIGHT, WIDTH, SIZE = 96, 128, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="where the weights are written, in half precision")
    parser.add_argument("--weights", help="measure these, or 'default', and teach none")
    arguments = parser.parse_args()
    gazes = read_gazes(arguments.folder)
    held_out, taught = gazes[::5], [gaze for number, gaze in enumerate(gazes) if number % 5]
    head = load_saliency(None if arguments.weights == "default" else arguments.weights) if arguments.weights else None
    head = head or train_saliency(
        taught,
        size=SIZE,
        epochs=arguments.epochs,
        seed=arguments.seed,
        progress=lambda n, loss: print(n, f"{loss:.4f}"),
    )
    bias = gaze_map(torch.cat([gaze.places for gaze in taught]), HEIGHT, WIDTH, spread=4.0)

    def by_contrast(gaze: Gazes) -> Tensor:
        glimpse = look(gaze.file, SIZE)
        tall, wide = glimpse.layout.pictures[0].tolist()
        scores = contrast(glimpse)[0, :tall, :wide]
        return F.interpolate(scores[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0].double()

    def by_others(gaze: Gazes) -> Tensor:
        return gaze_map(gaze.places[::2], HEIGHT, WIDTH, spread=4.0)

    ways: dict[str, Callable[[Gazes], Tensor]] = {
        "saliency head": lambda gaze: saliency_map(head, gaze.file, size=SIZE, height=HEIGHT, width=WIDTH),
        "centre bias (mean gaze)": lambda gaze: bias,
        "contrast": by_contrast,
        "half of the gazes for the other half": by_others,
    }
    print(f"{len(taught)} pictures to learn from, {len(held_out)} held out")
    print(f"{'':38} {'NSS':>6} {'AUC-Judd':>9}")
    for name, way in ways.items():
        scores = []
        for gaze in held_out:
            places = gaze.places[1::2] if "half" in name else gaze.places
            shown = way(gaze)
            scores.append((nss(shown, places), auc_judd(shown, places)))
        print(f"{name:38} {statistics.mean(s[0] for s in scores):>6.3f} {statistics.mean(s[1] for s in scores):>9.3f}")
    if arguments.out:
        state = head.half().state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, arguments.out)


if __name__ == "__main__":
    main()
