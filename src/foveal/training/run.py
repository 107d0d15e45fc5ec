"""A recipe from end to end: a run folder in which every stage is done once, and in the end a model."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from foveal.data import load_captions
from foveal.data.text import clean_caption
from foveal.models.configuration import MultiModalTransformerConfig
from foveal.models.generation import BEAMS, quietly
from foveal.models.multimodal import MultiModalTransformer
from foveal.models.processing import GlimpseProcessor, MultiModalProcessor
from foveal.training.caption_steps import CaptionSteps, refuse_lacking_languages
from foveal.training.recipe import Recipe, RecipeError, as_tree, with_defaults
from foveal.training.stages import caption_stage, distil_stage, load_backbone, refuse_diverged, reward_stage
from foveal.training.vocabulary import train_vocabulary
from foveal.whole_file import whole_file

log = logging.getLogger(__name__)

NEEDED = ("accelerate", "datasets", "tensorboard", "yaml")  # what the train extra brings, and every run uses
RECORDED = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "pillow", "timm")


def train(recipe: Recipe, folder: str | Path, *, resume: bool = False) -> Path:
    """Runs a recipe; what it has done already in this folder is not done again.

    The folder comes to hold `recipe.yaml` (every key, the seed among them), `versions.json`, `processor/`, a folder
    for each stage (checkpoints, `metrics.jsonl`, TensorBoard logs), and at the end `model/`: half precision
    safetensors with their processor, as `load_model` and Transformers read them.

    Args:
        recipe: what to do.
        folder: of the run; made if it is not there.
        resume: continue a run that was cut off. On the same CPU and versions, with as many threads, it comes to the
            same weights as one that never was.

    Returns:
        The folder of the model.

    Raises:
        RecipeError: if the folder holds something already (without `resume`), or a run of another recipe, or (with
            `resume`) none.
        ImportError: if the `train` extra is missing.
        ValueError: if the captions cannot be used, or the training came to weights that are not numbers.

    Example:
        >>> train(load_recipe("recipes/flickr8k.yaml"), "runs/flickr8k")
        PosixPath('runs/flickr8k/model')
    """
    _require(NEEDED)
    folder = Path(folder)
    begun = _find_run(recipe, folder, resume=resume)
    done = folder / "model"
    if done.exists():
        return done
    records = load_captions(recipe.captions, split="train")
    refuse_lacking_languages(records["image"], records["language"], recipe.languages)
    if not begun:  # only now: what cannot be trained leaves nothing behind
        _begin_run(recipe, folder)
    processor = _processor(recipe, folder / "processor", records)
    captions = CaptionSteps(records, processor.tokenizer, languages=recipe.languages, longest=recipe.model.max_tokens)
    backbone = distil_stage(recipe, folder, resume=resume)
    torch.manual_seed(recipe.seed)
    model = MultiModalTransformer(_configuration(recipe, processor))
    load_backbone(model, backbone)
    caption_stage(recipe, folder, model, captions, resume=resume)
    refuse_diverged(model)
    reward_stage(recipe, folder, model, captions, processor.tokenizer, resume=resume)
    _in_place(done, lambda place: _save(model, processor, place))
    return done


def _find_run(recipe: Recipe, folder: Path, *, resume: bool) -> bool:
    """Whether this recipe's run is in the folder; refuses what else there is."""
    import yaml

    tree, written = as_tree(recipe), folder / "recipe.yaml"
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file; give a folder for the run")
    if folder.is_dir() and any(folder.iterdir()):
        if not resume:
            raise RecipeError(f"{folder} is not empty; give another folder, or --resume to continue the run in it")
        if not written.is_file():
            raise RecipeError(f"{folder} holds no run that could be resumed: it has no recipe.yaml")
        try:
            before = yaml.safe_load(written.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            raise RecipeError(f"{written} cannot be read: {' '.join(str(error).split())}") from error
        # A key that there was not yet when the run began had its default.
        for key, was, now in _differences(with_defaults(before), tree):
            raise RecipeError(
                f"{folder} was begun with {key}: {was!r}, not {now!r}; "
                f"resume with the same recipe, or give another folder"
            )
        _warn_of_other_versions(folder / "versions.json")
        return True
    if resume:
        raise RecipeError(f"{folder} holds no run that could be resumed: it is not there; begin one without --resume")
    return False


def _begin_run(recipe: Recipe, folder: Path) -> None:
    """Makes the run's folder."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "versions.json") as file:
        file.write(json.dumps(_versions(), indent=2) + "\n")
    with whole_file(folder / "recipe.yaml") as file:  # last: a folder with a recipe is a run
        yaml.safe_dump(as_tree(recipe), file, sort_keys=False, allow_unicode=True)


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key whose value is another in two trees, with both."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*now, *before]):
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now


def _versions() -> dict[str, Any]:
    """What the run's exact result depends on; nothing about whose machine it is."""
    # By name: the package itself stands above this room, and may not be installed but only be on the path.
    versions: dict[str, Any] = {"foveal": importlib.import_module("foveal").__version__}
    versions["python"] = platform.python_version()
    for name in RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    versions["threads"] = torch.get_num_threads()
    return versions


def _warn_of_other_versions(written: Path) -> None:
    before = json.loads(written.read_text(encoding="utf-8"))
    for key, was, now in _differences(before, _versions()):
        log.warning(
            "the run was begun with %s %s, now it is %s: the weights may differ in their last bits", key, was, now
        )


def _processor(recipe: Recipe, place: Path, records: Any) -> MultiModalProcessor:
    """The processor of the run; its vocabulary is learned from the captions, once."""
    if not place.exists():
        texts = (
            clean_caption(text, record["language"])
            for record in records
            if record["language"] in recipe.languages
            for text in record["texts"]
        )
        tokenizer = train_vocabulary(texts, size=recipe.model.vocabulary, languages=recipe.languages)
        retina = GlimpseProcessor(recipe.look.size, recipe.look.levels)
        _in_place(place, MultiModalProcessor(retina, tokenizer).save_pretrained)
    return MultiModalProcessor.from_pretrained(place, local_files_only=True)


def _configuration(recipe: Recipe, processor: MultiModalProcessor) -> MultiModalTransformerConfig:
    wanted, tokenizer = recipe.model, processor.tokenizer
    return MultiModalTransformerConfig(
        vocab_size=len(tokenizer),
        backbone=wanted.backbone,
        halo=recipe.look.halo,
        periphery_channels=wanted.periphery_channels,
        gating=wanted.gating,
        dim=wanted.dim,
        heads=wanted.heads,
        encoder_layers=wanted.encoder_layers,
        decoder_layers=wanted.decoder_layers,
        feedforward=wanted.feedforward,
        dropout=wanted.dropout,
        max_tokens=wanted.max_tokens,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _save(model: MultiModalTransformer, processor: MultiModalProcessor, place: Path) -> None:
    refuse_diverged(model)
    model = copy.deepcopy(model).cpu().half()
    config = model.config
    model.generation_config = GenerationConfig(
        num_beams=BEAMS,
        max_new_tokens=config.max_tokens - 1,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    with quietly():
        model.save_pretrained(place)
    processor.save_pretrained(place)
    for file in place.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner's eyes alone


def _in_place(place: Path, save: Callable[[Path], Any]) -> None:
    """Saves into a folder beside and renames it, so that what has the name is whole."""
    beside = place.with_name(place.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    save(beside)
    beside.rename(place)


def _require(names: tuple[str, ...]) -> None:
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        raise ImportError(f"training needs {', '.join(lacking)}, not installed here; run: pip install 'foveal[train]'")
