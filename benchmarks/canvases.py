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

PHOTO = 64
"""Pixels along the side of a photograph, of an object or of clutter."""


class Canvases:
    """Pictures with one object each, drawn by a seed; nothing but the seed tells two of them apart.

    Args:
        folder: shared/data/tiny_imagenet.
        canvas: pixels along a picture's side.
        device: where the photographs are kept and the pictures are made; the same on all, up to rounding.
    """

    def __init__(self, folder: Path, canvas: int, device: torch.device | str = "cpu") -> None:
        self.canvas, self.device = canvas, torch.device(device)
        with (folder / "objects_boxes.tsv").open(encoding="utf-8") as file:
            kinds = sorted({row["wnid"] for row in csv.DictReader(file, delimiter="\t")})
        photos: list[np.ndarray] = []
        self.taught: list[tuple[int, int]] = []  # (class, which photograph)
        self.tested: list[tuple[int, int]] = []
        with zipfile.ZipFile(folder / "objects.zip") as archive:
            names = sorted(archive.namelist())
            for kind, wnid in enumerate(kinds):
                own = [name for name in names if name.split("/")[0] == wnid and name.endswith("JPEG")]
                rows = [(kind, len(photos) + place) for place in range(len(own))]
                photos += [_pixels(archive.read(name)) for name in own]
                self.taught += rows[:-HELD_OUT]
                self.tested += rows[-HELD_OUT:]
        self.objects = self._kept(photos)
        with zipfile.ZipFile(folder / "clutter.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith("JPEG"))
            self.clutter = self._kept([_pixels(archive.read(name)) for name in names])
        self.shrinks = _shrinks().to(self.device)

    def _kept(self, photos: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous().to(self.device)

    def draw(self, which: Sequence[tuple[int, int]], seed: int, side: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Canvases (B, 3, H, H) around 0, labels (B,), and the objects' centres (B, 2), relative, on the CPU.

        Args:
            which: (class, photograph) of each object.
            seed: of all that is drawn.
            side: of the objects, in pixels; drawn for each where it is None.
        """
        rng, many, across = np.random.default_rng(seed), len(which), -(-self.canvas // PHOTO)
        parts = torch.from_numpy(rng.integers(len(self.clutter), size=(many, across, across))).to(self.device)
        wide = rng.integers(SIDES[0], SIDES[1] + 1, size=many) if side is None else np.full(many, side)
        mirrored = torch.from_numpy(rng.random(many) < 0.5).to(self.device)
        corner = rng.integers(0, (self.canvas - wide + 1)[:, None], size=(many, 2))

        ground = self.clutter[parts].permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        ground = ground[:, :, : self.canvas, : self.canvas].float()
        things = self.objects[torch.tensor([photo for _, photo in which], device=self.device)].float()
        things = torch.where(mirrored[:, None, None, None], things.flip(3), things)
        shrink = self.shrinks[torch.from_numpy(wide - SIDES[0]).to(self.device)]  # (B, 56, 64)
        things = shrink[:, None] @ things @ shrink[:, None].mT  # (B, 3, 56, 56), of which `wide` cells count

        sides = torch.from_numpy(wide).to(self.device)[:, None]
        place = torch.arange(self.canvas, device=self.device) - torch.from_numpy(corner).to(self.device)[..., None]
        held = (place >= 0) & (place < sides[:, None])  # (B, 2, H)
        rows, columns = place.clamp(0, SIDES[1] - 1).unbind(1)
        things = things.gather(2, rows[:, None, :, None].expand(-1, 3, -1, SIDES[1]))
        things = things.gather(3, columns[:, None, None].expand(-1, 3, self.canvas, -1))
        x = torch.where((held[:, 0, :, None] & held[:, 1, None])[:, None], things, ground)
        labels = torch.tensor([kind for kind, _ in which], device=self.device)
        return x.div_(255).sub_(0.45).div_(0.27), labels, torch.from_numpy((corner + wide[:, None] / 2) / self.canvas)


def _shrinks() -> Tensor:
    """(25, 56, 64) float32: for each side an object may have, how its rows average those of a photograph."""
    found = torch.zeros(SIDES[1] - SIDES[0] + 1, SIDES[1], PHOTO, dtype=torch.float64)
    pixel = torch.arange(PHOTO, dtype=torch.float64)
    for wide in range(SIDES[0], SIDES[1] + 1):
        low = torch.arange(wide, dtype=torch.float64)[:, None] * PHOTO / wide
        share = torch.minimum(low + PHOTO / wide, pixel + 1) - torch.maximum(low, pixel)
        found[wide - SIDES[0], :wide] = share.clamp(min=0) * wide / PHOTO
    return found.float()


def _pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
