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
import csv
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from foveal import Layout, Retina, foveate, unfoveate
from foveal.models.saliency import SaliencyHead, load_saliency
from foveal.policy.learned import draw_places, mixture_loss
from foveal.policy.scores import contrast, places
from foveal.retina import Glimpse
from foveal.whole_file import whole_file

HELD_OUT, SIDES, TESTED = 60, (32, 56), (32, 44, 56)


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


class Canvases:
    """Pictures with one object each, drawn by a seed; nothing but the seed tells two of them apart."""

    def __init__(self, folder: Path, canvas: int) -> None:
        self.canvas = canvas
        with (folder / "objects_boxes.tsv").open(encoding="utf-8") as file:
            kinds = sorted({row["wnid"] for row in csv.DictReader(file, delimiter="\t")})
        self.objects = {kind: [] for kind in kinds}  # type: ignore[var-annotated]
        with zipfile.ZipFile(folder / "objects.zip") as archive:
            for name in sorted(archive.namelist()):
                kind = name.split("/")[0]
                if kind in self.objects:
                    self.objects[kind].append(_pixels(archive.read(name)))
        with zipfile.ZipFile(folder / "clutter.zip") as archive:
            self.clutter = [_pixels(archive.read(name)) for name in sorted(archive.namelist()) if name.endswith("JPEG")]
        self.taught = [(k, i) for k, kind in enumerate(kinds) for i in range(len(self.objects[kind]) - HELD_OUT)]
        self.tested = [
            (k, i)
            for k, kind in enumerate(kinds)
            for i in range(len(self.objects[kind]) - HELD_OUT, len(self.objects[kind]))
        ]
        self.kinds = kinds

    def draw(self, which: Sequence[tuple[int, int]], seed: int, side: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Canvases (B, 3, H, H) around 0, labels (B,), and the objects' centres (B, 2), relative."""
        rng = np.random.default_rng(seed)
        pictures, centres = [], []
        for kind, number in which:
            picture = np.empty((self.canvas, self.canvas, 3), np.uint8)
            for y in range(0, self.canvas, 64):
                for x in range(0, self.canvas, 64):
                    part = self.clutter[rng.integers(len(self.clutter))]
                    picture[y : y + 64, x : x + 64] = part[: self.canvas - y, : self.canvas - x]
            wide = side or int(rng.integers(SIDES[0], SIDES[1] + 1))
            thing = np.asarray(Image.fromarray(self.objects[self.kinds[kind]][number]).resize((wide, wide), Image.BOX))
            thing = thing[:, ::-1] if rng.random() < 0.5 else thing
            y, x = rng.integers(0, self.canvas - wide + 1, 2)
            picture[y : y + wide, x : x + wide] = thing
            pictures.append(picture)
            centres.append(((y + wide / 2) / self.canvas, (x + wide / 2) / self.canvas))
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255).sub_(0.45).div_(0.27)
        labels = torch.tensor([kind for kind, _ in which])
        return x, labels, torch.tensor(centres, dtype=torch.float64)


def _pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@dataclass
class Way:
    """One way of looking: what a network is shown of canvases.

    Args:
        look: (canvases, centres, layouts wanted) -> what the network takes.
        cells: seen of each canvas, what the policy looks at included.
        foveated: whether the network takes glimpses; likewise `halo`.
        head: a policy's own, learned with the task.
    """

    look: Callable[[Tensor, Tensor], Any]
    cells: int
    foveated: bool = True
    halo: bool = True
    head: SaliencyHead | None = None
    retina: Retina | None = None


def chain(retina: Retina, canvas: int, fixations: Tensor) -> Layout:
    return Layout.foveal(
        picture=[(canvas, canvas)] * len(fixations), size=retina.size, levels=retina.levels, fixation=fixations
    )


def scans(retina: Retina, canvas: int, fixations: Tensor) -> Layout:
    """(B, F, 2): several fixations on each canvas as one layout."""
    one = [
        Layout.scan(picture=(canvas, canvas), size=retina.size, levels=retina.levels, fixations=rows)
        for rows in fixations
    ]
    return Layout.stack(one)


def ways(canvas: int, size: int, levels: int) -> dict[str, Way]:
    """Every way that can be trained, by name."""
    found: dict[str, Way] = {}
    torch.manual_seed(0)
    seen = load_saliency()

    def of(retina: Retina, name: str, halo: bool) -> None:
        cells = retina.levels * retina.size**2  # type: ignore[operator]

        def widest(x: Tensor) -> Layout:
            return chain(retina, canvas, torch.full((len(x), 2), 0.5)).widest()

        def by_score(score: Callable[[Glimpse], Tensor], count: int, how: str) -> Callable[[Tensor, Tensor], Any]:
            def look(x: Tensor, centres: Tensor) -> Any:
                whole = widest(x)
                with torch.no_grad():
                    scores = score(retina(x, layout=whole))
                chosen = places(scores, whole, count=count, how=how)  # type: ignore[arg-type]
                layout = chain(retina, canvas, chosen[:, 0]) if count == 1 else scans(retina, canvas, chosen)
                return retina(x, layout=layout)

            return look

        extra = size**2  # what a policy looks at
        found[f"{name}-centre"] = Way(lambda x, c: retina(x, "center"), cells, halo=halo)
        found[f"{name}-oracle"] = Way(lambda x, c: retina(x, c), cells, halo=halo)
        found[f"{name}-energy"] = Way(by_score(contrast, 1, "mass"), cells + extra, halo=halo)
        found[f"{name}-saliency"] = Way(by_score(seen, 1, "peak"), cells + extra, halo=halo)
        learned = Way(lambda x, c: None, cells + extra, halo=halo, head=SaliencyHead(64), retina=retina)
        learned.look = by_score(lambda glimpse: learned.head(glimpse), 1, "peak")  # type: ignore[misc]
        found[f"{name}-learned"] = learned
        twice = Way(lambda x, c: None, 2 * cells - size**2 + extra, halo=halo, head=SaliencyHead(64), retina=retina)
        twice.look = by_score(lambda glimpse: twice.head(glimpse), 2, "peak")  # type: ignore[misc]
        found[f"{name}-learned-twice"] = twice

    fovea = Retina(size, levels)
    of(fovea, "fovea", True)
    of(fovea, "fovea-padded", False)
    equal = round((levels * size**2) ** 0.5 / 8) * 8
    start = (canvas - equal) // 2
    found["dense"] = Way(lambda x, c: x, canvas**2, foveated=False)
    found["resize"] = Way(
        lambda x, c: F.interpolate(x, (equal, equal), mode="bilinear", antialias=True), equal**2, foveated=False
    )
    found["crop"] = Way(lambda x, c: x[:, :, start : start + equal, start : start + equal], equal**2, foveated=False)
    pair_size = 40 if canvas == 128 else 64
    for halo in (True, False):
        two = "pair" if halo else "pair-padded"
        for name, told in (("centre", False), ("oracle", True)):
            found[f"{two}-{name}"] = Way(
                lambda x, c, told=told: _pair(x, c if told else torch.full_like(c, 0.5), pair_size),  # type: ignore[misc]
                2 * pair_size**2,
                halo=halo,
            )
    return found


def _pair(x: Tensor, centres: Tensor, size: int) -> Glimpse:
    """Two windows: the whole canvas, and native pixels at the fixation."""
    canvas = x.shape[-1]
    level = max(0, (canvas - 1) // size).bit_length()
    layouts = []
    step = size // 2
    for y, x_ in (centres * canvas).tolist():
        origin = [min(max(0, round((at - size / 2) / step) * step), canvas - size) for at in (y, x_)]
        layouts.append(Layout.windows(picture=(canvas, canvas), size=size, windows=[(level, 0, 0), (0, *origin)]))
    return Retina(size)(x, layout=Layout.stack(layouts))


def train(
    name: str, way: Way, data: Canvases, *, steps: int, batch: int, seed: int, rate: float, pool: Any, kept: Path
) -> dict[str, Any]:
    torch.manual_seed(seed)
    network: nn.Module = SmallResNet()
    model = foveate(network, halo=way.halo, pool=pool).train() if way.foveated else network.train()
    model.to(memory_format=torch.channels_last)  # in which all ways are fastest
    whole = nn.ModuleList([model, way.head or nn.Identity()])
    optimiser = torch.optim.AdamW(whole.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
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
            if way.head is None:
                loss = F.cross_entropy(model(_shown(way, x, centres)).float(), labels, label_smoothing=0.1)
            else:
                loss = _learn(model, way, x, labels)
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
    if way.head is not None:
        way.head.eval()
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


def _shown(way: Way, x: Tensor, centres: Tensor) -> Any:
    shown = way.look(x, centres)
    return shown.contiguous(memory_format=torch.channels_last) if isinstance(shown, Tensor) else shown


def _found(shown: Glimpse, centres: Tensor) -> int:
    """How many pictures have a finest window whose middle is at most 24 pixels from the object's, along y and x."""
    layout = shown.layout
    away = (layout.origins + layout.size / 2 - centres[:, None] * layout.pictures[:, None]).abs().amax(-1)
    return int(((away <= 24) & (layout.levels == 0)).any(1).sum())


def _learn(model: nn.Module, way: Way, x: Tensor, labels: Tensor) -> Tensor:
    """The task's loss of a look, and of a survey that teaches where to look: no boxes, only the labels.

    The survey shows the whole canvas half as finely. How likely each place of it says the label to be, and how likely
    the head finds the place, give together where the object has to be: the look goes to a place drawn from that.
    """
    assert way.retina is not None
    assert way.head is not None
    canvas = x.shape[-1]
    widest = chain(way.retina, canvas, torch.full((len(x), 2), 0.5)).widest()
    scores = way.head(way.retina(x, layout=widest)).float()
    survey = Layout.stack([Layout.tiling(picture=(canvas, canvas), size=way.retina.size, level=1)] * len(x))
    with _statistics_kept(model):  # they are to be those of looks, which are what is evaluated
        maps = unfoveate(model.forward_features(way.retina(x, layout=survey)), survey, scores.shape[-1])
    around = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)  # a look's answer is a mean of cells too
    said = model.head(around.movedim(1, -1)).float().log_softmax(-1)  # (B, n, n, classes)
    said = said.gather(-1, labels.view(-1, 1, 1, 1).expand(*said.shape[:3], 1))[..., 0]
    likely = (scores.flatten(1).log_softmax(1) + said.flatten(1)).detach().view_as(scores)
    _, fixations = draw_places(likely, widest)
    logits = model(way.retina(x, layout=chain(way.retina, canvas, fixations[:, 0]))).float()
    return F.cross_entropy(logits, labels, label_smoothing=0.1) + mixture_loss(scores, widest, said)


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
    parser.add_argument("--rate", type=float, default=3e-3)
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
