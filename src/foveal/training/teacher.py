"""What a pretrained vision transformer sees in each picture, worked out once and kept on disk for distillation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from foveal.data.picture_set import PictureSet

BATCH = 32


class TeacherFeatures:
    """Patch features of a teacher for every picture of a `PictureSet`, in the order of the set.

    Args:
        patches: (N, G, G, D) float16, the grid of the whole picture.
        summary: (N, D) float16, the class token; the mean of the patches for a teacher that has none.
    """

    def __init__(self, patches: np.ndarray, summary: np.ndarray) -> None:
        self.patches, self.summary = patches, summary

    def __len__(self) -> int:
        return len(self.patches)


def teacher_features(
    pictures: PictureSet, weights: str | os.PathLike[str], folder: str | os.PathLike[str], *, name: str
) -> TeacherFeatures:
    """Runs a timm vision transformer over all pictures once; a later call with the same pictures reads the files.

    Another teacher, other weights and pictures that were added, replaced or taken away make it run anew.

    Args:
        pictures: N pictures of any size; each is shown whole, at the teacher's own size.
        weights: a safetensors file that loads strictly into timm's model `name`.
        folder: where the features are kept.
        name: of the timm model, for example "vit_tiny_patch16_224".

    Raises:
        ImportError: if timm is missing.
        FileNotFoundError: if the weights are.
        ValueError: if the weights are not those of the model, or it is no vision transformer.
    """
    folder, weights = Path(folder), Path(weights)
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: the teacher's weights are not there")
    known = weights.stat()
    stamp = json.dumps(
        {"teacher": name, "weights": [str(weights), known.st_size, known.st_mtime_ns], "pictures": pictures.stamps()}
    )
    done = folder / "done.json"
    files = folder / "patches.npy", folder / "summary.npy"
    if not (done.exists() and done.read_text(encoding="utf-8") == stamp and all(file.exists() for file in files)):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        _compute(pictures, weights, files, name)
        done.write_text(stamp, encoding="utf-8")
    patches, summary = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    return TeacherFeatures(patches, summary)


@torch.inference_mode()
def _compute(pictures: PictureSet, weights: Path, files: Sequence[Path], name: str) -> None:
    # Weights in half precision once, and not cast anew for every batch: twice as fast as autocast here.
    model = _teacher(name, weights).bfloat16()
    config = model.pretrained_cfg
    size = config["input_size"][-1]
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    grid, width = model.patch_embed.grid_size[0], model.embed_dim
    shapes = (len(pictures), grid, grid, width), (len(pictures), width)
    outputs = [
        np.lib.format.open_memmap(file, "w+", np.float16, shape) for file, shape in zip(files, shapes, strict=True)
    ]
    first: dict[Any, int] = {}  # a picture that is there twice is looked at once
    source = [first.setdefault(place, row) for row, place in enumerate(pictures.places)]
    fresh = list(first.values())
    for start in track(range(0, len(fresh), BATCH), description="teacher"):
        rows = fresh[start : start + BATCH]
        batch = torch.stack([(_fitted(pictures[row], size) - mean) / std for row in rows])
        tokens = model.forward_features(batch.bfloat16()).float()
        patches = tokens[:, model.num_prefix_tokens :].unflatten(1, (grid, grid))
        outputs[0][rows] = patches.numpy().astype(np.float16)
        summary = tokens[:, 0] if model.num_prefix_tokens else patches.mean((1, 2))
        outputs[1][rows] = summary.numpy().astype(np.float16)
    for output in outputs:
        for row, place in enumerate(source):
            if row != place:
                output[row] = output[place]
        output.flush()


def _teacher(name: str, weights: Path) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError("distillation needs timm; run: pip install 'foveal[train]'") from error
    try:
        model: Any = timm.create_model(name, num_classes=1000)
        model.load_state_dict(load_file(weights), strict=True)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{weights}: cannot be the weights of timm's model {name!r}: {reason}") from error
    if not hasattr(model, "patch_embed") or not hasattr(model, "num_prefix_tokens"):
        raise ValueError(f"{name}: a teacher must be one of timm's vision transformers, such as vit_tiny_patch16_224")
    return model.eval()


def _fitted(picture: Tensor, size: int) -> Tensor:
    x = picture[None].float() / 255
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
