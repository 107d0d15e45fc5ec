"""Looking in the right place: one object anywhere on a cluttered canvas, and the ways of finding it.

    python benchmarks/right_place.py ../shared/data/tiny_imagenet --out runs/right_place [--ways dense] [--device cuda]

Objects of 20 classes (60 of each 500 held out), 32 to 56 pixels, are pasted anywhere onto other photographs. The same
small ResNet is trained for each way of looking, for the same steps and seed; the head that the learned ways follow is
taught before, in as many steps on the same canvases. Results are kept, a way that is there is not trained again, one
that was interrupted goes on. Told are the accuracy at 32, 44 and 56 pixels, the cells that were read, and how much of
the way from a fovea that always looks at the centre to one that is told the place each policy closes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from canvas_steps import Run, take_steps
from canvases import TESTED, Canvases
from place_teacher import teach
from small_resnet import SmallResNet
from torch import Tensor, nn
from torch.nn import functional as F
from ways_of_looking import Way, ways, widest

from foveal import foveate
from foveal.retina import Glimpse


def train(name: str, way: Way, data: Canvases, run: Run, kept: Path) -> dict[str, Any]:
    """Trains and tests one way; a head has been taught. The weights go to `kept`."""
    torch.manual_seed(run.seed)
    network = SmallResNet()
    model: nn.Module = foveate(network, halo=way.halo, pool=run.pool) if way.windows else network

    def loss_of(x: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
        return F.cross_entropy(model(_shown(way, x, centres)).float(), labels, label_smoothing=0.1)

    spent, loss = take_steps(name, nn.ModuleDict({"network": model}), loss_of, data, run, kept)
    return {"way": name, "cells": way.cells, "seconds": spent, "loss": loss} | test(model, way, data)


def test(model: nn.Module, way: Way, data: Canvases) -> dict[str, Any]:
    """The accuracy at each size of the objects, and how many canvases have a fovea near theirs."""
    model.eval()
    accuracy, near = {}, 0.0
    for side in TESTED:
        right = 0
        for first in range(0, len(data.tested), 100):
            rows = data.tested[first : first + 100]
            x, labels, centres = data.draw(rows, 7_000_000 + side * 1000 + first, side)
            with torch.no_grad():
                shown = _shown(way, x, centres)
                right += int((model(shown).argmax(1) == labels).sum())
            near += _found(shown, centres) if way.windows else 0.0
        accuracy[str(side)] = right / len(data.tested)
    return {"accuracy": accuracy, "near": near / len(data.tested) / len(TESTED)}


def _shown(way: Way, x: Tensor, centres: Tensor) -> Any:
    shown = way.look(x, centres)
    return shown.contiguous(memory_format=torch.channels_last) if isinstance(shown, Tensor) else shown


def _found(shown: Glimpse, centres: Tensor) -> int:
    """How many pictures have a finest window whose middle is at most 24 pixels from the object's, along y and x."""
    layout = shown.layout.to("cpu")
    away = (layout.origins + layout.size / 2 - centres[:, None] * layout.pictures[:, None]).abs().amax(-1)
    return int(((away <= 24) & (layout.levels == 0)).any(1).sum())


def show(results: list[dict[str, Any]]) -> None:
    by = {result["way"]: result for result in results}
    print(f"\n{'way':24} {'cells':>7} " + " ".join(f"{side:>5} px" for side in TESTED) + "    mean  near  closes")
    for name, result in by.items():
        values = [result["accuracy"][str(side)] for side in TESTED]
        mean = sum(values) / len(values)
        family = next((f for f in ("fovea-padded", "fovea", "pair-padded", "pair") if name.startswith(f"{f}-")), None)
        ends = [by[f"{family}-{end}"] for end in ("centre", "oracle") if f"{family}-{end}" in by]
        closes = ""
        if len(ends) == 2:
            low, high = (sum(end["accuracy"].values()) / len(TESTED) for end in ends)
            closes = f"{(mean - low) / (high - low):>6.0%}"
        print(
            f"{name:24} {result['cells']:>7} "
            + " ".join(f"{v:>8.1%}" for v in values)
            + f" {mean:>7.1%} {result.get('near', 0.0):>5.0%}  {closes}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--canvas", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="cells along a chain's windows")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", choices=["cell", "area"], default="cell", help="what the fovea's cells weigh by")
    parser.add_argument("--survey", type=int, default=1, help="the level at which a head's teacher sees the canvas")
    parser.add_argument("--ways", help="names, separated by commas; all by default, none to show what is there")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(given.steps, given.batch, given.seed, given.rate, given.pool, given.survey)
    kind = f"canvas{given.canvas}-{run.pool}-survey{run.survey}-seed{run.seed}-steps{run.steps}x{run.batch}"
    file = given.out / f"{kind}.jsonl"
    possible = ways(given.canvas, given.size, torch.device(given.device))
    wanted = list(possible) if given.ways is None else [name for name in given.ways.split(",") if name]
    unknown = [name for name in wanted if name not in possible]
    if unknown:
        parser.error(f"--ways: there is no {unknown[0]!r}; choose from {', '.join(possible)}")
    if not (given.folder / "objects.zip").is_file():
        parser.error(f"{given.folder}: holds no objects.zip; give the folder of tiny_imagenet")
    data = Canvases(given.folder, given.canvas, given.device) if wanted else None
    for name in wanted:
        if data is not None and not any(result["way"] == name for result in _results(file)):
            way = possible[name]
            if way.head is not None:  # once for all ways that have it
                see = widest(given.canvas, given.size)
                teach(way.head, see, data, run, file.with_name(f"{file.stem}-head.safetensors"))
            result = train(name, way, data, run, file.with_name(f"{file.stem}-{name}.safetensors"))
            with file.open("a") as out:
                out.write(json.dumps(result) + "\n")
    show(_results(file))


def _results(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
