import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import TEXTS, save_pictures
from torch import Tensor

from foveal.data.picture_set import PictureSet
from foveal.models import CenterFocusCNN, MultiModalTransformer, MultiModalTransformerConfig
from foveal.training import stages
from foveal.training.caption_steps import CaptionSteps
from foveal.training.recipe import Caption, Distil, Look, Model, Recipe
from foveal.training.stages import Shuffled, caption_stage, distil_stage, distil_steps, load_backbone
from foveal.training.teacher import TeacherFeatures
from foveal.training.vocabulary import train_vocabulary

LOOK = Look(size=32, levels=2)
TINY = Model(backbone="nano", dim=32, heads=2, encoder_layers=1, decoder_layers=1, feedforward=32)


def recipe(**parts: Any) -> Recipe:
    return Recipe(captions="set", **{"look": LOOK, "model": TINY, "half": False, **parts})


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    save_pictures(tmp_path / "pictures", 6)
    return PictureSet([tmp_path / "pictures"])


@pytest.fixture
def teacher() -> TeacherFeatures:
    """Every patch tells its picture, row and column."""
    patches = np.stack(np.meshgrid(np.arange(6), np.arange(4), np.arange(4), indexing="ij"), -1)
    return TeacherFeatures(patches.astype(np.float16), np.arange(18).reshape(6, 3).astype(np.float16))


# ---- the order in which pictures are shown --------------------------------------------------------------------------


@given(count=st.integers(1, 30), batch=st.integers(1, 70), seed=st.integers(0, 99))
def test_every_epoch_shows_every_picture_once(count: int, batch: int, seed: int) -> None:
    order, epochs = Shuffled(count, batch, seed), 3
    steps = [order.rows(step) for step in range(-(-epochs * count // batch))]

    assert {len(rows) for rows in steps} == {batch}
    shown = [row for rows in steps for row in rows]
    for epoch in range(epochs):
        assert sorted(shown[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_orders_differ_between_epochs_and_seeds_and_come_from_the_step_alone() -> None:
    order = Shuffled(50, 50, 0)

    assert order.rows(0) != order.rows(1)
    assert order.rows(0) != Shuffled(50, 50, 1).rows(0)
    assert order.rows(1) == Shuffled(50, 50, 0).rows(1)
    assert order.rows(0) != list(range(50))


# ---- distillation ---------------------------------------------------------------------------------------------------


def test_a_step_is_drawn_from_its_number_and_the_seed_alone(pictures: PictureSet, teacher: TeacherFeatures) -> None:
    distil = Distil(steps=5, batch=4)
    first = distil_steps(recipe(distil=distil), pictures, teacher)
    first(0)
    second = distil_steps(recipe(distil=distil), pictures, teacher)
    other = distil_steps(recipe(distil=distil, seed=1), pictures, teacher)

    assert all(torch.equal(first(3)[name], value) for name, value in second(3).items())
    assert not torch.equal(first(3)["pixel_values"], first(4)["pixel_values"])
    assert not torch.equal(first(3)["pixel_values"], other(3)["pixel_values"])


def test_the_teacher_is_shown_as_the_student_is_and_standardised(
    pictures: PictureSet, teacher: TeacherFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = stages._views

    def views(*args: Any) -> Any:
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(stages, "_views", views)
    batch = distil_steps(recipe(distil=Distil(steps=1, batch=6)), pictures, teacher)(0)

    grid, whole, rows = batch["teacher_grid"], batch["teacher_whole"], Shuffled(6, 6, 0).rows(0)
    torch.testing.assert_close(grid.mean((0, 1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(grid.std((0, 1, 2), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.std(0, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    assert 0 < int(seen[0].mirrored.sum()) < 6, "all alike would show nothing"
    for place, mirrored in enumerate(seen[0].mirrored.tolist()):
        assert grid[place, 0, 0, 0] == pytest.approx((rows[place] - 2.5) / np.arange(6).std(), abs=1e-3)
        assert bool((grid[place, :, 1:, 2] < grid[place, :, :-1, 2]).all()) == mirrored, "columns run the other way"
        assert bool((grid[place, 1:, :, 1] > grid[place, :-1, :, 1]).all()), "rows do not"
    assert torch.equal(batch["boxes"], seen[0].boxes)


def test_a_level_more_is_drawn_as_often_as_was_asked(pictures: PictureSet, teacher: TeacherFeatures) -> None:
    def levels(extra: float) -> list[int]:
        look = Look(size=32, levels=2, extra_level=extra)
        draw = distil_steps(recipe(look=look, distil=Distil(steps=1, batch=1)), pictures, teacher)
        return [draw(step)["window_levels"].shape[1] for step in range(30)]

    assert set(levels(0.0)) == {2}
    assert set(levels(1.0)) == {3}
    assert 5 < levels(0.5).count(3) < 25


def test_without_steps_there_is_no_stage(tmp_path: Path) -> None:
    assert distil_stage(recipe(), tmp_path, resume=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_taught_backbone_is_kept_loaded_and_not_taught_again(
    tmp_path: Path, pictures: PictureSet, teacher: TeacherFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(stages, "teacher_features", lambda *args, **how: given.append(how) or teacher)
    distil = Distil(steps=2, batch=3, pictures=(str(tmp_path / "pictures"),), weights="w")

    file = distil_stage(recipe(distil=distil), tmp_path / "run", resume=False)
    assert file is not None
    assert file.name == "backbone.safetensors"
    assert distil_stage(recipe(distil=distil), tmp_path / "run", resume=True) == file
    assert len(given) == 1

    torch.manual_seed(0)
    untaught = CenterFocusCNN("nano").state_dict()
    model = small_model()
    load_backbone(model, file)
    taught = model.encoder.backbone.state_dict()
    assert not torch.equal(taught["stem.weight"], untaught["stem.weight"])
    assert taught["stem_norm.num_batches_tracked"] == 2


def test_with_gates_the_whole_width_is_taught_and_the_best_channels_are_kept(
    tmp_path: Path, pictures: PictureSet, teacher: TeacherFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "teacher_features", lambda *args, **how: teacher)
    distil = Distil(steps=2, batch=3, pictures=(str(tmp_path / "pictures"),), weights="w")
    model = dataclasses.replace(TINY, gating=True, periphery_channels=0.5)

    file = distil_stage(recipe(distil=distil, model=model), tmp_path / "run", resume=False)

    backbone = CenterFocusCNN("nano", gating=True, periphery_channels=0.5)
    backbone.load_state_dict(load_file(str(file)))
    for gate in backbone.gates:
        assert torch.equal(gate.importance, gate.importance.sort(descending=True).values)
        assert gate.importance[0] > gate.importance[-1]


def small_model(vocab_size: int = 300) -> MultiModalTransformer:
    torch.manual_seed(0)
    return MultiModalTransformer(
        MultiModalTransformerConfig(
            vocab_size=vocab_size,
            backbone="nano",
            dim=32,
            heads=2,
            encoder_layers=1,
            decoder_layers=1,
            feedforward=32,
        )
    )


def test_a_backbone_of_another_size_is_refused(tmp_path: Path) -> None:
    save_file(CenterFocusCNN("tiny").state_dict(), tmp_path / "backbone.safetensors")

    with pytest.raises(RuntimeError, match="size mismatch"):
        load_backbone(small_model(), tmp_path / "backbone.safetensors")
    load_backbone(small_model(), None)


# ---- captions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_the_caption_stage_teaches_the_backbone_only_if_it_has_a_rate(rate: float, tmp_path: Path) -> None:
    tokenizer = train_vocabulary(TEXTS * 3, size=300, languages=["en"])
    files = save_pictures(tmp_path / "pictures", 4)
    records = [{"image": str(file), "language": "en", "texts": TEXTS[:2]} for file in files]
    captions = CaptionSteps(records, tokenizer, languages=["en"], longest=40)
    model = small_model(len(tokenizer))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = recipe(caption=Caption(steps=2, batch=3, texts=2, rate=1e-2, backbone_rate=rate), ema=0.5)

    given = caption_stage(wanted, tmp_path / "run", model, captions, resume=False)

    assert given is model
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    seeing = {name for name in changed if name.startswith("encoder.backbone.")}
    assert bool(seeing) == bool(rate)
    assert {"embed.weight", "encoder.tokenizer.project.weight", "decoder.norm.weight"} <= changed
    assert all(isinstance(value, Tensor) and bool(value.isfinite().all()) for value in model.state_dict().values())
