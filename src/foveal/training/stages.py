"""The stages of a recipe: a backbone learns to see, a network to describe, and then to write what scores well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foveal.data.picture_set import PictureSet
from foveal.models.center_focus import CenterFocusCNN
from foveal.models.multimodal import MultiModalTransformer
from foveal.models.processing import MEAN, STD, glimpse_tensors
from foveal.retina import Retina
from foveal.training.caption_steps import CaptionSteps
from foveal.training.describing import Describing
from foveal.training.distill import Distillation
from foveal.training.fit import decayed, fit
from foveal.training.recipe import Look, Recipe
from foveal.training.self_critical import Rewards, SelfCritical
from foveal.training.teacher import TeacherFeatures, teacher_features
from foveal.training.views import Views, draw_views

SAMPLED = 512  # pictures from which the spread of the teacher's features is told


def distil_stage(recipe: Recipe, folder: Path, *, resume: bool) -> Path | None:
    """Teaches the backbone; the weights' file, or None where the recipe has no such stage.

    With gates the whole width is taught first; a narrow periphery then keeps the channels that the gates ranked best.

    Args:
        recipe: the run.
        folder: of the run.
        resume: continue a stage that was cut off.
    """
    wanted, done = recipe.distil, folder / "distil" / "backbone.safetensors"
    if not wanted.steps or done.exists():
        return done if wanted.steps else None
    pictures = PictureSet(wanted.pictures)
    teacher = teacher_features(pictures, wanted.weights, folder / "teacher", name=wanted.teacher)
    torch.manual_seed(recipe.seed)
    model = Distillation(_backbone(recipe), teacher.summary.shape[-1])
    draw = distil_steps(recipe, pictures, teacher)
    groups = decayed(dict(model.named_parameters()), rate=wanted.rate, weight_decay=wanted.weight_decay)
    _fit(recipe, model, draw, folder / "distil", steps=wanted.steps, groups=groups, resume=resume)
    backbone = model.backbone
    if backbone.periphery_channels != recipe.model.periphery_channels:
        backbone.sort_channels()
        backbone = backbone.narrowed(recipe.model.periphery_channels)
    refuse_diverged(backbone)
    part = done.with_suffix(".part")
    save_file(backbone.state_dict(), part)
    part.replace(done)
    return done


def distil_steps(recipe: Recipe, pictures: PictureSet, teacher: TeacherFeatures) -> Callable[[int], dict[str, Tensor]]:
    """What the backbone is shown in each step: augmented looks, and the teacher's features, standardised."""
    sample = np.linspace(0, len(teacher) - 1, min(SAMPLED, len(teacher))).astype(int)
    spread = []
    for values in (teacher.patches, teacher.summary):
        rows = np.asarray(values[sample], dtype=np.float32).reshape(-1, values.shape[-1])
        spread.append((torch.from_numpy(rows.mean(0)), torch.from_numpy(rows.std(0) + 1e-6)))
    order = Shuffled(len(pictures), recipe.distil.batch, recipe.seed)

    def standard(values: np.ndarray, rows: Sequence[int], which: int) -> Tensor:
        mean, deviation = spread[which]
        return (torch.from_numpy(np.asarray(values[rows], dtype=np.float32)) - mean) / deviation

    def draw(step: int) -> dict[str, Tensor]:
        rows, rng = order.rows(step), np.random.default_rng([recipe.seed, 1, step])
        views = _views([pictures[row] for row in rows], recipe.look, rng)
        grid = standard(teacher.patches, rows, 0)
        grid = torch.where(views.mirrored[:, None, None, None], grid.flip(2), grid)
        whole = standard(teacher.summary, rows, 1)
        return {
            **glimpse_tensors(views.glimpse),
            "teacher_grid": grid,
            "teacher_whole": whole,
            "boxes": views.boxes,
        }

    return draw


def caption_stage(
    recipe: Recipe, folder: Path, model: MultiModalTransformer, captions: CaptionSteps, *, resume: bool
) -> MultiModalTransformer:
    """Teaches the whole network to describe; in place.

    Args:
        recipe: the run.
        folder: of the run.
        model: its backbone may already have been taught.
        captions: pictures and token rows.
        resume: continue a stage that was cut off.
    """
    wanted = recipe.caption
    order = Shuffled(len(captions), wanted.batch, recipe.seed)

    def draw(step: int) -> dict[str, Tensor]:
        rows, rng = order.rows(step), np.random.default_rng([recipe.seed, 2, step])
        views = _views([captions.picture(row) for row in rows], recipe.look, rng)
        return {**glimpse_tensors(views.glimpse), **captions.texts(rows, rng, count=wanted.texts)}

    named = dict(model.named_parameters())
    seeing = {name: value for name, value in named.items() if name.startswith("encoder.backbone.")}
    writing = {name: value for name, value in named.items() if name not in seeing}
    groups = decayed(writing, rate=wanted.rate, weight_decay=wanted.weight_decay)
    if wanted.backbone_rate:
        groups += decayed(seeing, rate=wanted.backbone_rate, weight_decay=wanted.weight_decay)
    else:
        model.encoder.backbone.requires_grad_(False)
    task = Describing(model, smoothing=wanted.smoothing)
    _fit(recipe, task, draw, folder / "caption", steps=wanted.steps, groups=groups, resume=resume)
    return model


def reward_stage(
    recipe: Recipe,
    folder: Path,
    model: MultiModalTransformer,
    captions: CaptionSteps,
    tokenizer: PreTrainedTokenizerBase,
    *,
    resume: bool,
) -> MultiModalTransformer:
    """Lets the network learn from what it writes itself; in place. Nothing where the recipe has no such stage.

    Args:
        recipe: the run.
        folder: of the run.
        model: that already describes.
        captions: pictures and token rows.
        tokenizer: of the texts.
        resume: continue a stage that was cut off.
    """
    wanted = recipe.reward
    if not wanted.steps:
        return model
    order = Shuffled(len(captions), wanted.batch, recipe.seed)

    def draw(step: int) -> dict[str, Tensor]:
        rows, rng = order.rows(step), np.random.default_rng([recipe.seed, 3, step])
        views = _views([captions.picture(row) for row in rows], recipe.look, rng)
        return {**glimpse_tensors(views.glimpse), "input_ids": captions.prompts(len(rows)), "rows": torch.tensor(rows)}

    longest = min(wanted.longest, recipe.model.max_tokens - 1)
    task = SelfCritical(model, Rewards(captions, tokenizer), samples=wanted.samples, longest=longest)
    learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups = decayed(learning, rate=wanted.rate, weight_decay=0.0)
    _fit(recipe, task, draw, folder / "reward", steps=wanted.steps, groups=groups, resume=resume)
    return model


def refuse_diverged(model: torch.nn.Module) -> None:
    """Raises ValueError if a weight is not a number, or one that half precision cannot hold."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.half().isfinite().all()):
            raise ValueError(f"the training came to weights that half precision cannot hold ({name}); lower the rate")


def load_backbone(model: MultiModalTransformer, weights: Path | None) -> None:
    """Gives the model a backbone that was taught before."""
    if weights is not None:
        model.encoder.backbone.load_state_dict(load_file(weights))


class Shuffled:
    """Which pictures each step shows: every epoch all of them, in an order of its own.

    Args:
        count: pictures.
        batch: pictures in a step.
        seed: of the orders.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed

    def rows(self, step: int) -> list[int]:
        """The pictures of a step, as indices; from its number alone."""
        places = range(step * self.batch, (step + 1) * self.batch)
        epochs = {place // self.count for place in places}
        orders = {epoch: np.random.default_rng([self.seed, 0, epoch]).permutation(self.count) for epoch in epochs}
        return [int(orders[place // self.count][place % self.count]) for place in places]


def _views(pictures: Sequence[Tensor], look: Look, rng: np.random.Generator) -> Views:
    """Augmented looks, now and then with a level more: so that a larger picture stays in the model's world."""
    levels = look.levels + int(rng.random() < look.extra_level)
    retina = Retina(look.size, levels, mean=MEAN, std=STD, enlarge=True)
    return draw_views(pictures, retina, rng, crop=look.crop, off_centre=look.off_centre, colour=look.colour)


def _backbone(recipe: Recipe) -> CenterFocusCNN:
    wanted = recipe.model
    width = 1.0 if wanted.gating else wanted.periphery_channels
    return CenterFocusCNN(wanted.backbone, halo=recipe.look.halo, periphery_channels=width, gating=wanted.gating)


def _fit(
    recipe: Recipe,
    model: torch.nn.Module,
    draw: Callable[[int], dict[str, Tensor]],
    folder: Path,
    *,
    steps: int,
    groups: list[dict[str, Any]],
    resume: bool,
) -> None:
    fit(
        model,
        draw,
        folder,
        steps=steps,
        groups=groups,
        warmup=recipe.warmup,
        ema=recipe.ema,
        half=recipe.half,
        seed=recipe.seed,
        save_every=recipe.save_every,
        resume=resume,
    )
