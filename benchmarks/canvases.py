"""Canvases of clutter with one object each, anywhere: what the ways of looking are compared on."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HELD_OUT, SIDES, TESTED = 60, (32, 56), (32, 44, 56)


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
