"""A model with random weights, pictures and a caption set, all as small as they can be."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foveal.models import GlimpseProcessor, MultiModalProcessor, MultiModalTransformer, MultiModalTransformerConfig
from foveal.training.vocabulary import train_vocabulary

TEXTS = ["a dog runs on the grass", "two cats sit on a red chair", "狗在草地上跑", "两只猫坐在椅子上"]


def save_tiny_model(folder: Path, *, half: bool = True) -> Path:
    """A whole model folder whose weights are random, but always the same."""
    tokenizer = train_vocabulary(TEXTS * 3, size=330, languages=["en", "zh"])
    torch.manual_seed(0)
    config = MultiModalTransformerConfig(
        vocab_size=len(tokenizer), backbone="nano", dim=32, feedforward=64, encoder_layers=1, decoder_layers=1
    )
    model = MultiModalTransformer(config)
    with torch.no_grad():  # random tokens are likely then to differ between pictures
        model.embed.weight *= 3
    (model.half() if half else model).save_pretrained(folder)
    MultiModalProcessor(GlimpseProcessor(32, 2), tokenizer).save_pretrained(folder)
    return folder


def save_pictures(folder: Path, count: int, *, side: int = 40) -> list[Path]:
    """Pictures of noise over a colour, each of its own, of unlike sides."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        colour = rng.integers(0, 200, 3)
        pixels = colour + rng.integers(0, 56, (side + number, side + 2 * number, 3))
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
    return files


def save_captions(folder: Path, *, train: int = 6, val: int = 4) -> Path:
    """A manifest of pictures with English and Chinese captions."""
    files = save_pictures(folder / "pictures", train + val)
    rows = []
    for number, file in enumerate(files):
        for language, texts in (("en", TEXTS[:2]), ("zh", TEXTS[2:])):
            row = {"image": str(file), "language": language, "split": "train" if number < train else "val"}
            rows.append({**row, "texts": [texts[number % 2], f"{texts[0]} {number}"]})
    manifest = folder / "captions.jsonl"
    manifest.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return manifest
