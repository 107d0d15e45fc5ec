"""Teaching a saliency head by human eye movements, and measuring it as the field does: NSS and AUC-Judd."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.models.saliency import SaliencyHead
from foveal.picture import open_picture
from foveal.retina import Glimpse, Retina

COLUMNS = ("image", "x_800x600", "y_800x600")


@dataclass(frozen=True)
class Gazes:
    """A picture and where people looked.

    Args:
        file: the picture.
        places: (N, 2) float64, (y, x) in [0, 1].
    """

    file: Path
    places: Tensor


def read_gazes(folder: str | os.PathLike[str]) -> list[Gazes]:
    """The fixations of OSIE: `fixations/*.tsv`, of pictures shown at 800 x 600, in `images`; the first of each viewer
    and those beside the picture left out, since a gaze begins where the experiment put it.

    Raises:
        ValueError: if the folder holds no such files, or a line cannot be read.
    """
    folder = Path(folder)
    tables = sorted(folder.glob("fixations/*.tsv"))
    if not tables:
        raise ValueError(f"{folder}: no fixations/*.tsv there; give the folder of OSIE")
    found: dict[str, list[tuple[float, float]]] = {}
    for table in tables:
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t"), 2):
                try:
                    y, x = float(row["y_800x600"]) / 600, float(row["x_800x600"]) / 800
                    first = row["order"] == "0"
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{table}:{number}: expected columns {', '.join(COLUMNS)} with numbers") from error
                if not first and 0 <= y < 1 and 0 <= x < 1:
                    found.setdefault(row["image"], []).append((y, x))
    files = {file.name: file for file in folder.glob("images/**/*") if file.is_file()}
    return [
        Gazes(files[name], torch.tensor(places, dtype=torch.float64))
        for name, places in sorted(found.items())
        if name in files
    ]


def gaze_map(places: Tensor, height: int, width: int, *, spread: float = 0.0) -> Tensor:
    """(height, width) float64, how often each cell was looked at, adding up to 1.

    Args:
        places: (N, 2), (y, x) in [0, 1].
        spread: standard deviation of a Gaussian that it is blurred by, in cells; 0 for none.
    """
    rows = (places[:, 0] * height).long().clamp(0, height - 1)
    columns = (places[:, 1] * width).long().clamp(0, width - 1)
    counts = torch.bincount(rows * width + columns, minlength=height * width).double().view(height, width)
    if spread:
        for dim, side in ((0, height), (1, width)):
            apart = torch.arange(side, dtype=torch.float64)
            blur = torch.exp(-(apart[:, None] - apart).square() / (2 * spread**2))
            blur = blur / blur.sum(0)
            counts = blur @ counts if dim == 0 else counts @ blur.T
    return counts / counts.sum()


def nss(saliency: Tensor, places: Tensor) -> float:
    """Normalised scanpath saliency (Peters et al. 2005): the z-score of the map at the places looked at; chance is 0.

    Args:
        saliency: (H, W).
        places: (N, 2), (y, x) in [0, 1].
    """
    scaled = (saliency - saliency.mean()) / saliency.std(correction=0).clamp(min=1e-12)
    return float(_at(scaled, places).mean())


def auc_judd(saliency: Tensor, places: Tensor) -> float:
    """Area under the ROC curve of places looked at against all others (Judd et al. 2009); chance is 0.5.

    That is how often a place that was looked at has the higher value, equal ones counted half.

    Args:
        saliency: (H, W).
        places: (N, 2), (y, x) in [0, 1]; cells that were looked at count once.
    """
    height, width = saliency.shape
    looked = gaze_map(places, height, width) > 0
    hits, others = saliency[looked].contiguous(), saliency[~looked].sort().values
    if not len(hits) or not len(others):
        return float("nan")
    below = torch.searchsorted(others, hits)
    equal = torch.searchsorted(others, hits, right=True) - below
    return float((below + equal / 2).double().mean() / len(others))


def _at(values: Tensor, places: Tensor) -> Tensor:
    height, width = values.shape
    return values[
        (places[:, 0] * height).long().clamp(max=height - 1), (places[:, 1] * width).long().clamp(max=width - 1)
    ]


def train_saliency(
    gazes: Sequence[Gazes],
    *,
    size: int = 64,
    epochs: int = 40,
    batch: int = 16,
    rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, float], object] | None = None,
) -> SaliencyHead:
    """Trains a head to give the places that people looked at the likelihood that they had.

    The loss is the cross-entropy between the blurred map of fixations and the head's softmax over the picture's cells.
    Pictures are seen mirrored half of the time.

    Args:
        gazes: pictures with their fixations.
        size: cells along the window's side.
        epochs: passes over all pictures.
        batch: pictures at a time.
        rate: of AdamW, falling along a cosine.
        seed: of weights and order.
        progress: called after each epoch with its number and mean loss.

    Raises:
        ValueError: for no pictures.
    """
    if not gazes:
        raise ValueError("no pictures with fixations were given")
    torch.manual_seed(seed)
    glimpses = [look(gaze.file, size) for gaze in gazes]
    targets = torch.stack([_target(gaze, glimpse, size) for gaze, glimpse in zip(gazes, glimpses, strict=True)])
    pixels = torch.cat([glimpse.pixels for glimpse in glimpses])
    layouts = [glimpse.layout for glimpse in glimpses]
    head = SaliencyHead().train()
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=0.02)
    steps = epochs * -(-len(gazes) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(gazes)).split(batch):
            flip = bool(torch.rand(()) < 0.5)
            layout = type(layouts[0]).stack([layouts[row] for row in rows])
            seen, wanted = pixels[rows], targets[rows]
            if flip:
                seen, wanted = _mirrored(seen, layout.pictures, size), _mirrored(wanted, layout.pictures, size)
            logits = head(Glimpse(seen, layout))
            inside = layout.inside(size // 4)[:, 0]
            shares = logits.masked_fill(~inside, float("-inf")).flatten(1).log_softmax(1)
            loss = -torch.where(inside.flatten(1), wanted.flatten(1) * shares, 0.0).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        if progress is not None:
            progress(epoch + 1, sum(losses) / len(losses))
    return head.eval()


def look(file: Path, size: int) -> Glimpse:
    """One window that the picture just fits into."""
    return Retina(size, levels=1, enlarge=True)([open_picture(file)])


@torch.inference_mode()
def saliency_map(head: SaliencyHead, file: Path, *, size: int, height: int, width: int) -> Tensor:
    """(height, width): the head's likelihoods, smoothly enlarged to the whole picture."""
    glimpse = look(file, size)
    tall, wide = (side / (size / (size // 4)) for side in glimpse.layout.pictures[0].tolist())
    logits = head(glimpse)[0]
    cells = logits[: max(1, round(tall)), : max(1, round(wide))]
    shares = cells.flatten().softmax(0).view(cells.shape)
    return F.interpolate(shares[None, None], (height, width), mode="bicubic", align_corners=False)[0, 0].double()


def _target(gaze: Gazes, glimpse: Glimpse, size: int) -> Tensor:
    """(1, n, n): the blurred fixations in the cells of the window; the picture lies in its top left."""
    n = size // 4
    sides = [max(1, round(side / 4)) for side in glimpse.layout.pictures[0].tolist()]
    target = torch.zeros(1, n, n)
    target[0, : sides[0], : sides[1]] = gaze_map(gaze.places, *sides, spread=0.8).float()
    return target


def _mirrored(x: Tensor, pictures: Tensor, size: int) -> Tensor:
    """(B, ..., n) with the part that the picture fills turned left to right."""
    result = x.clone()
    for row, width in enumerate(pictures[:, 1].tolist()):
        columns = max(1, round(width * x.shape[-1] / size))
        result[row, ..., :columns] = x[row, ..., :columns].flip(-1)
    return result
