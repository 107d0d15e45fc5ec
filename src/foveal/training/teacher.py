"""What a pretrained vision transformer sees in each picture, worked out once and kept on disk for distillation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from foveal.data.picture_set import PictureSet

BATCH = 32


class TeacherFeatures:
    """Patch features of a teacher for every picture of a `PictureSet`, in the order of the set.

    Args:
        patches: (N, G, G, D) float16, the grid of the whole picture.
        summary: (N, D) float16, the class token.
    """

    def __init__(self, patches: np.ndarray, summary: np.ndarray) -> None:
        self.patches, self.summary = patches, summary

    def __len__(self) -> int:
        return len(self.patches)


def teacher_features(
    pictures: PictureSet, weights: str | os.PathLike[str], folder: str | os.PathLike[str], *, name: str
) -> TeacherFeatures:
    """Runs a timm vision transformer over all pictures once; a later call with the same pictures reads the files.

    Args:
        pictures: N pictures of any size; each is shown whole, at the teacher's own size.
        weights: a safetensors file that loads strictly into timm's model `name`.
        folder: where the features are kept.
        name: of the timm model, for example "vit_tiny_patch16_224".

    Raises:
        ImportError: if timm is missing.
        FileNotFoundError: if the weights are.
    """
    folder = Path(folder)
    stamp = json.dumps({"teacher": name, "pictures": [member for _, member in pictures.places]})
    done = folder / "done.json"
    files = folder / "patches.npy", folder / "summary.npy"
    if not (done.exists() and done.read_text() == stamp):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        _compute(pictures, weights, files, name)
        done.write_text(stamp)
    patches, summary = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    return TeacherFeatures(patches, summary)


@torch.inference_mode()
def _compute(
    pictures: PictureSet, weights: str | os.PathLike[str], files: Sequence[Path], name: str
) -> None:
    try:
        import timm
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("distillation needs timm; run: pip install 'foveal[train]'") from error
    if not Path(weights).exists():
        raise FileNotFoundError(f"{weights}: the teacher's weights are not there")
    model = timm.create_model(name, num_classes=1000)
    model.load_state_dict(load_file(weights), strict=True)
    # Weights in half precision once, and not cast anew for every batch: twice as fast as autocast here.
    model = model.eval().bfloat16()
    config = model.pretrained_cfg
    size = config["input_size"][-1]
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    grid, width = model.patch_embed.grid_size[0], model.embed_dim
    shapes = (len(pictures), grid, grid, width), (len(pictures), width)
    outputs = [
        np.lib.format.open_memmap(file, "w+", np.float16, shape) for file, shape in zip(files, shapes, strict=True)
    ]
    for start in track(range(0, len(pictures), BATCH), description="teacher"):
        rows = range(start, min(start + BATCH, len(pictures)))
        batch = torch.stack([(_fitted(pictures[row], size) - mean) / std for row in rows])
        tokens = model.forward_features(batch.bfloat16()).float()
        patches = tokens[:, model.num_prefix_tokens :].unflatten(1, (grid, grid))
        outputs[0][start : rows.stop] = patches.numpy().astype(np.float16)
        outputs[1][start : rows.stop] = tokens[:, 0].numpy().astype(np.float16)
    for output in outputs:
        output.flush()


def _fitted(picture: Tensor, size: int) -> Tensor:
    x = picture[None].float() / 255
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
