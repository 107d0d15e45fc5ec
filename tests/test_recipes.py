"""Every recipe that is shipped loads, and trains on a small set of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.training.recipe import load_recipe

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_a_few_steps(path, tmp_path):
    pytest.importorskip("accelerate")
    from foveal.training.run import train

    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        for language, text in (("en", f"a picture number {number}"), ("zh", f"第{number}张图片")):
            lines.append({"image": f"{number}.png", "text": text, "language": language, "split": "train"})
    manifest = tmp_path / "captions.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    recipe = load_recipe(
        path,
        [
            f"captions={manifest}",
            "distil.steps=0",
            "caption.steps=2",
            "caption.batch=2",
            "reward.steps=2",
            "reward.batch=2",
            "model.backbone=nano",
            "model.vocabulary=300",
            "look.size=32",
        ],
    )
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
