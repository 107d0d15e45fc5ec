"""Looking in the right place: one object anywhere on a cluttered canvas, and the ways of finding it.

    python benchmarks/right_place.py ../shared/data/tiny_imagenet --out runs/right_place [--ways dense]

Objects of 20 classes (60 of each 500 held out), 32 to 56 pixels, are pasted anywhere onto other photographs. The same
small ResNet is trained for each way of looking, for the same steps and seed; results are kept, a way that is there is
not trained again. Told are the accuracy at 32, 44 and 56 pixels, the cells that were seen, and how much of the way from
a fovea that always looks at the centre to one that is told the place each policy closes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from canvases import TESTED, Canvases
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from ways_of_looking import Way, chain, ways

from foveal import Layout, Retina, foveate, unfoveate
from foveal.models.saliency import SaliencyHead
from foveal.policy.learned import draw_places, mixture_loss
from foveal.retina import Glimpse
from foveal.whole_file import whole_file

SURVEYED, LOOKS = 0.2, 2
"""What is learned first from surveys alone, of all steps; and the looks at each canvas after that."""


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


def train(
    name: str, way: Way, data: Canvases, *, steps: int, batch: int, seed: int, rate: float, pool: Any, kept: Path
) -> dict[str, Any]:
    torch.manual_seed(seed)
    network: nn.Module = SmallResNet()
    model = foveate(network, halo=way.halo, pool=pool).train() if way.foveated else network.train()
    model.to(memory_format=torch.channels_last)  # in which all ways are fastest
    learns = way.head is not None and way.heir_of is None
    if way.head is not None and not learns:
        teach(way, data, steps=steps // 2, batch=batch, seed=seed, rate=rate, pool=pool, kept=kept, name=name)
    whole = nn.ModuleList([model, way.head if learns else nn.Identity()])
    optimiser, schedule = _optimiser(whole, rate, steps)
    order = np.random.default_rng(seed)
    begun, spent, losses = 0, 0.0, []
    if kept.with_suffix(".part").exists():
        state = torch.load(kept.with_suffix(".part"), weights_only=True)
        for thing, held in zip((whole, optimiser, schedule), state["states"], strict=True):
            thing.load_state_dict(held)
        begun, spent, losses = state["step"], state["spent"], state["losses"]
    began = time.perf_counter() - spent
    for step in range(steps):
        rows = [data.taught[row] for row in order.integers(len(data.taught), size=batch)]
        if step < begun:
            continue
        torch.manual_seed(seed * 1_000_003 + step)  # a run that is taken up again draws as one that was not left
        x, labels, centres = data.draw(rows, seed * 1_000_003 + step, None)
        with torch.autocast("cpu", torch.bfloat16):
            if not learns:
                loss = F.cross_entropy(model(_shown(way, x, centres)).float(), labels, label_smoothing=0.1)
            else:
                loss = _learn(model, way, x, labels, looks=0 if step < SURVEYED * steps else LOOKS)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        spent = time.perf_counter() - began
        if step % 50 == 49:
            print(f"{name}: step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.3f}, {spent:.0f} s", flush=True)
        if step % 250 == 249:
            states = [thing.state_dict() for thing in (whole, optimiser, schedule)]
            with whole_file(kept.with_suffix(".part"), "wb") as file:
                torch.save({"states": states, "step": step + 1, "spent": spent, "losses": losses[-50:]}, file)
    seconds = spent
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, kept)
    kept.with_suffix(".part").unlink(missing_ok=True)
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
            near += _found(shown, centres) if way.foveated else 0.0
        accuracy[side] = right / len(data.tested)
    return {
        "way": name,
        "cells": way.cells,
        "accuracy": accuracy,
        "near": near / len(data.tested) / len(TESTED),
        "seconds": seconds,
        "loss": float(np.mean(losses[-50:])),
    }


def teach(
    way: Way, data: Canvases, *, steps: int, batch: int, seed: int, rate: float, pool: Any, kept: Path, name: str
) -> None:
    """Teaches a head on, by where a network and a head that have learned before, told the label, say it has to be."""
    assert way.retina is not None
    assert way.head is not None
    before = kept.with_name(kept.name.replace(name, str(way.heir_of)))
    finished = before.with_name(f"{before.stem}-head.safetensors")
    if not before.is_file():
        raise SystemExit(f"{before}: not there; train {way.heir_of} before, in the same folder")
    if not finished.is_file():
        pair = nn.ModuleList([foveate(SmallResNet(), halo=way.halo, pool=pool), SaliencyHead(64)])
        pair.load_state_dict(load_file(before))
        pair.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        way.head.load_state_dict(pair[1].state_dict())
        optimiser, schedule = _optimiser(way.head, rate, steps)
        losses, order = [], np.random.default_rng(seed)
        for step in range(steps):
            rows = [data.taught[row] for row in order.integers(len(data.taught), size=batch)]
            x, labels, _ = data.draw(rows, 3_000_000 + seed * 1_000_003 + step, None)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    widest, scores, said = _surveyed(pair[0], pair[1], way.retina, x, labels)
                    where = (scores.flatten(1).log_softmax(1) + said.flatten(1)).softmax(1)
                scores = way.head.train()(way.retina(x, layout=widest)).float()
            loss = -(where * scores.flatten(1).log_softmax(1)).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if step % 50 == 49:
                print(f"{way.heir_of}, head: step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.3f}", flush=True)
        save_file({key: value.contiguous() for key, value in way.head.state_dict().items()}, finished)
    way.head.load_state_dict(load_file(finished))
    way.head.requires_grad_(False)


def _optimiser(module: nn.Module, rate: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Up within a fiftieth of the steps, held, and down to nothing over the last two fifths: places are found late."""
    optimiser = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.05)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.02 * steps), (steps - step) / (0.4 * steps))
    )


def _shown(way: Way, x: Tensor, centres: Tensor) -> Any:
    if way.head is not None:
        way.head.eval()
    shown = way.look(x, centres)
    return shown.contiguous(memory_format=torch.channels_last) if isinstance(shown, Tensor) else shown


def _found(shown: Glimpse, centres: Tensor) -> int:
    """How many pictures have a finest window whose middle is at most 24 pixels from the object's, along y and x."""
    layout = shown.layout
    away = (layout.origins + layout.size / 2 - centres[:, None] * layout.pictures[:, None]).abs().amax(-1)
    return int(((away <= 24) & (layout.levels == 0)).any(1).sum())


def _learn(model: nn.Module, way: Way, x: Tensor, labels: Tensor, *, looks: int) -> Tensor:
    """The task's loss of a look, and of a survey that teaches where to look: no boxes, only the labels.

    The survey shows the whole canvas half as finely. How likely each place of it says the label to be, and how likely
    the head finds the place, give together where the object has to be: looks go to places drawn from that.
    """
    assert way.retina is not None
    assert way.head is not None
    widest, scores, said = _surveyed(model, way.head, way.retina, x, labels)
    loss = mixture_loss(scores, widest, said)
    if not looks:
        return loss
    likely = (scores.flatten(1).log_softmax(1) + said.flatten(1)).detach().view_as(scores)
    index, fixations = draw_places(likely, widest, count=looks)
    layout = chain(way.retina, x.shape[-1], fixations.flatten(0, 1))
    logits = model(way.retina(x.repeat_interleave(looks, 0), layout=layout)).float()
    wrong = F.cross_entropy(logits, labels.repeat_interleave(looks), label_smoothing=0.1, reduction="none")
    chosen = scores.flatten(1).gather(1, index).log_softmax(1)  # of the drawn ones: a mixture over looks as well
    return loss - (chosen - wrong.view(-1, looks)).logsumexp(1).mean()


def _surveyed(
    model: nn.Module, head: SaliencyHead, retina: Retina, x: Tensor, labels: Tensor
) -> tuple[Layout, Tensor, Tensor]:
    """The widest window of each canvas; how much the head prefers its places; how likely each says the label to be."""
    canvas = x.shape[-1]
    widest = chain(retina, canvas, torch.full((len(x), 2), 0.5)).widest()
    scores = head(retina(x, layout=widest)).float()
    survey = Layout.stack([Layout.tiling(picture=(canvas, canvas), size=retina.size, level=1)] * len(x))
    with _statistics_kept(model):  # they are to be those of looks, which are what is evaluated
        maps = unfoveate(model.forward_features(retina(x, layout=survey)), survey, scores.shape[-1])
    around = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)  # a look's answer is a mean of cells too
    said = model.head(around.movedim(1, -1)).float().log_softmax(-1)  # (B, n, n, classes)
    return widest, scores, said.gather(-1, labels.view(-1, 1, 1, 1).expand(*said.shape[:3], 1))[..., 0]


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def show(results: list[dict[str, Any]]) -> None:
    by = {result["way"]: result for result in results}
    print(f"\n{'way':24} {'cells':>7} " + " ".join(f"{side:>5} px" for side in TESTED) + "    mean  near  closes")
    for name, result in by.items():
        values = [result["accuracy"][str(side)] for side in TESTED]
        mean = sum(values) / len(values)
        family = next((f for f in ("fovea-padded", "fovea", "pair-padded", "pair") if name.startswith(f"{f}-")), None)
        ends = [by.get(f"{family}-{end}") for end in ("centre", "oracle")]
        closes = ""
        if family and all(ends):
            low, high = (sum(end["accuracy"].values()) / len(TESTED) for end in ends)  # type: ignore[index]
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
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", choices=["cell", "area"], default="cell", help="what the fovea's cells weigh by")
    parser.add_argument("--ways", help="names, separated by commas; all by default")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"canvas{arguments.canvas}-{arguments.pool}-seed{arguments.seed}-steps{arguments.steps}.jsonl"
    file = arguments.out / name
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    possible = ways(arguments.canvas, arguments.size, arguments.levels)
    wanted = arguments.ways.split(",") if arguments.ways else list(possible)
    data = Canvases(arguments.folder, arguments.canvas)
    for name in wanted:
        if any(result["way"] == name for result in results):
            continue
        options = {"steps": arguments.steps, "batch": arguments.batch, "seed": arguments.seed, "rate": arguments.rate}
        options["pool"] = arguments.pool
        options["kept"] = file.with_name(f"{file.stem}-{name}.safetensors")
        result = train(name, possible[name], data, **options)
        with file.open("a") as out:
            out.write(json.dumps(result) + "\n")
        results.append(json.loads(json.dumps(result)))
    show(results)


if __name__ == "__main__":
    main()
