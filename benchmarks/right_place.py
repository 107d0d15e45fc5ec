"""Looking in the right place: one object anywhere on a cluttered canvas, and the ways of finding it.

    python benchmarks/right_place.py ../shared/data/tiny_imagenet --out runs/right_place [--ways dense] [--device cuda]

Objects of 20 classes (60 of each 500 held out), 32 to 56 pixels, are pasted anywhere onto other photographs. The same
small ResNet is trained for each way of looking, for the same steps and seed; results are kept, a way that is there is
not trained again, one that was interrupted goes on. Told are the accuracy at 32, 44 and 56 pixels, the cells that were
seen, and how much of the way from a fovea that always looks at the centre to one that is told the place each policy
closes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from canvases import TESTED, Canvases
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from ways_of_looking import Way, ways

from foveal import Layout, Retina, foveate, unfoveate
from foveal.policy.learned import mixture_loss
from foveal.policy.scores import places
from foveal.retina import Glimpse
from foveal.whole_file import whole_file


class SmallResNet(nn.Module):
    """Stride 8, widths 32, 64, 128, two basic blocks a stage: a ResNet (He et al. 2016) for small pictures."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        widths = (32, 32, 64, 128)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Block(widths[n], widths[n + 1], 1 if n == 0 else 2), Block(widths[n + 1], widths[n + 1], 1)
                )
                for n in range(3)
            )
        )
        self.head = nn.Linear(128, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.short = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if stride > 1 or before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.short(x)).relu()


@dataclass(frozen=True)
class Run:
    """What all ways share: steps of how many canvases, the seed, the peak rate, how cells are pooled, and how finely a
    head's teacher surveys the canvas (the level of its windows).
    """

    steps: int
    batch: int
    seed: int
    rate: float
    pool: Literal["area", "cell"]
    survey: int


def train(name: str, way: Way, data: Canvases, run: Run, kept: Path) -> dict[str, Any]:
    """Trains and tests one way; the weights go to `kept`, and beside it, every 250 steps, the state to go on from."""
    torch.manual_seed(run.seed)
    network, device = SmallResNet(), data.device
    model: nn.Module = foveate(network, halo=way.halo, pool=run.pool) if way.windows else network
    parts = {"network": model}
    if way.head is not None:  # and a second network, which teaches it and is left behind
        parts |= {"head": way.head, "teacher": foveate(SmallResNet())}
    whole = nn.ModuleDict(parts).to(device)
    whole.train().to(memory_format=torch.channels_last)  # in which all ways are fastest
    optimiser, schedule = _optimiser(whole, run)
    order = np.random.default_rng(run.seed)
    begun, spent, losses, state = 0, 0.0, [], kept.with_suffix(".part")
    if state.exists():
        held = torch.load(state, weights_only=True, map_location=device)
        for thing, numbers in zip((whole, optimiser, schedule), held["states"], strict=True):
            thing.load_state_dict(numbers)
        begun, spent, losses = held["step"], held["spent"], held["losses"]
    began = time.perf_counter() - spent
    for step in range(run.steps):
        rows = [data.taught[row] for row in order.integers(len(data.taught), size=run.batch)]
        if step < begun:
            continue
        torch.manual_seed(run.seed * 1_000_003 + step)  # a run that is taken up again draws as one that was not left
        x, labels, centres = data.draw(rows, run.seed * 1_000_003 + step, None)
        with torch.autocast(device.type, torch.bfloat16):
            if way.head is None:
                loss = F.cross_entropy(model(_shown(way, x, centres)).float(), labels, label_smoothing=0.1)
            else:
                loss = _learn(way, whole, x, labels, run.survey)
        optimiser.zero_grad()
        loss.backward()
        for part in whole.values():
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
        if step % 50 == 49:
            losses = [float(value) for value in losses[-50:]]
            spent = time.perf_counter() - began
            print(f"{name}: step {step + 1} of {run.steps}, loss {np.mean(losses):.3f}, {spent:.0f} s", flush=True)
        if step % 250 == 249:
            states = [thing.state_dict() for thing in (whole, optimiser, schedule)]
            with whole_file(state, "wb") as file:
                torch.save({"states": states, "step": step + 1, "spent": spent, "losses": losses}, file)
    spent = time.perf_counter() - began
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, kept)
    state.unlink(missing_ok=True)
    found = {
        "way": name,
        "cells": way.cells,
        "seconds": spent,
        "loss": float(np.mean([float(v) for v in losses[-50:]])),
    }
    return found | test(model, way, data)


def test(model: nn.Module, way: Way, data: Canvases) -> dict[str, Any]:
    """The accuracy at each size of the objects, and how many canvases have a fovea near theirs."""
    for part in (model, way.head):
        if part is not None:
            part.eval()
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


def _optimiser(module: nn.Module, run: Run) -> tuple[torch.optim.Optimizer, Any]:
    """Up within a fiftieth of the steps, held, and down to nothing over the last two fifths: places are found late."""
    optimiser = torch.optim.AdamW(module.parameters(), run.rate, weight_decay=0.05)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.02 * run.steps), (run.steps - step) / (0.4 * run.steps))
    )


def _shown(way: Way, x: Tensor, centres: Tensor) -> Any:
    shown = way.look(x, centres)
    return shown.contiguous(memory_format=torch.channels_last) if isinstance(shown, Tensor) else shown


def _found(shown: Glimpse, centres: Tensor) -> int:
    """How many pictures have a finest window whose middle is at most 24 pixels from the object's, along y and x."""
    layout = shown.layout.to("cpu")
    away = (layout.origins + layout.size / 2 - centres[:, None] * layout.pictures[:, None]).abs().amax(-1)
    return int(((away <= 24) & (layout.levels == 0)).any(1).sum())


def _learn(way: Way, parts: nn.ModuleDict, x: Tensor, labels: Tensor, level: int) -> Tensor:
    """The loss of a look, and that of a survey which teaches the head where to look: no boxes, only the labels.

    A second network surveys the whole canvas. How likely each place of it says the label to be, and how
    likely the head finds the place, give together where the object has to be (a mixture over places). Half of the
    canvases are looked at there, the others where the head alone would look: as they will be, with no label.
    """
    assert way.widest is not None
    assert way.windows is not None
    glimpse = way.widest(x)
    scores = parts["head"](glimpse).float()
    said = _surveyed(parts["teacher"], x, labels, scores.shape[-1], glimpse.layout.size, level)
    chances = torch.stack([scores + said, scores]).detach().flatten(2).softmax(2).view(2, *scores.shape)
    told, own = (places(each, glimpse.layout, count=way.fixations, how="local") for each in chances)
    fixations = torch.cat([told[: len(x) // 2], own[len(x) // 2 :]])
    logits = parts["network"](way.windows.look(x, fixations)).float()
    return mixture_loss(scores, glimpse.layout, said) + F.cross_entropy(logits, labels, label_smoothing=0.1)


def _surveyed(teacher: nn.Module, x: Tensor, labels: Tensor, cells: int, size: int, level: int) -> Tensor:
    """(B, cells, cells): the logarithm of how likely each place of the canvas says the label to be."""
    survey = _tiling(x.shape[-1], size, level, len(x))
    features = teacher.forward_features(Retina(size)(x, layout=survey))
    finer = max(1, features.shape[-1] * round(survey.num_windows**0.5) // cells)  # than the head's places
    maps = unfoveate(features, survey, cells * finer)
    # A look's answer is a mean of cells, too: of as many as a fovea has, and a little more.
    around = F.avg_pool2d(maps, 3 * finer, finer, finer, count_include_pad=False)
    said = teacher.head(around.movedim(1, -1)).float().log_softmax(-1)  # (B, cells, cells, classes)
    return said.gather(-1, labels.view(-1, 1, 1, 1).expand(*said.shape[:3], 1))[..., 0]


@lru_cache(maxsize=2)
def _tiling(canvas: int, size: int, level: int, batch: int) -> Layout:
    """The whole canvas at one level: the same for every step, so its tables are worked out once."""
    return Layout.stack([Layout.tiling(picture=(canvas, canvas), size=size, level=level)] * batch)


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
            result = train(name, possible[name], data, run, file.with_name(f"{file.stem}-{name}.safetensors"))
            with file.open("a") as out:
                out.write(json.dumps(result) + "\n")
    show(_results(file))


def _results(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
