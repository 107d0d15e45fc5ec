import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import save_pictures
from torch.nn import functional as F

from foveal.data.picture_set import PictureSet
from foveal.training import teacher
from foveal.training.teacher import TeacherFeatures, teacher_features

NAME = "test_vit"  # timm's smallest: 160 pixels, patches of 16, 64 wide

Look = Callable[..., TeacherFeatures]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones, as timm would load them."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    save_file(timm.create_model(NAME, num_classes=1000).state_dict(), file)
    return file


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the teacher looked at in each run."""
    looked, compute = [], teacher._compute

    def counted(pictures: PictureSet, *args: object) -> None:
        looked.append(len(pictures))
        compute(pictures, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher, "_compute", counted)
    return looked


@pytest.fixture
def look(tmp_path: Path, weights: Path) -> Look:
    save_pictures(tmp_path / "pictures", 3)

    def features(*, weights: Path = weights, name: str = NAME) -> TeacherFeatures:
        return teacher_features(PictureSet([tmp_path / "pictures"]), weights, tmp_path / "features", name=name)

    return features


def test_features_are_those_of_the_whole_picture_at_the_teachers_size(
    look: Look, tmp_path: Path, weights: Path
) -> None:
    features = look()
    assert len(features) == 3
    assert features.patches.shape == (3, 10, 10, 64)
    assert features.summary.shape == (3, 64)
    assert features.patches.dtype == features.summary.dtype == np.float16

    model = timm.create_model(NAME, num_classes=1000).eval()
    model.load_state_dict(load_file(weights))
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    for row, picture in enumerate(PictureSet([tmp_path / "pictures"])):
        resized = F.interpolate(picture[None] / 255, (160, 160), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            tokens = model.forward_features((resized - mean) / std)[0]
        grid = tokens[1:].view(10, 10, 64)
        # bfloat16 keeps 8 bits
        torch.testing.assert_close(torch.tensor(features.patches[row]).float(), grid, atol=0.1, rtol=0.05)
        torch.testing.assert_close(torch.tensor(features.summary[row]).float(), tokens[0], atol=0.1, rtol=0.05)


def test_a_second_call_reads_what_the_first_worked_out(look: Look, runs: list[int]) -> None:
    first, second = look(), look()

    assert runs == [3]
    assert np.array_equal(first.patches, second.patches)


def test_pictures_that_were_added_or_replaced_are_looked_at(look: Look, runs: list[int], tmp_path: Path) -> None:
    before = np.array(look().patches)
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / "pictures" / "1.png")

    after = look().patches
    assert runs == [3, 3]
    assert [np.array_equal(was, now) for was, now in zip(before, after, strict=True)] == [True, False, True]

    Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / "9.png")
    assert len(look()) == 4
    (tmp_path / "pictures" / "0.png").unlink()
    assert len(look()) == 3
    assert runs == [3, 3, 4, 3]


def test_other_weights_are_another_teacher(look: Look, runs: list[int], tmp_path: Path) -> None:
    look()
    torch.manual_seed(1)
    save_file(timm.create_model(NAME, num_classes=1000).state_dict(), tmp_path / "other.safetensors")

    look(weights=tmp_path / "other.safetensors")

    assert runs == [3, 3]


def test_a_run_that_was_cut_off_is_done_again(
    look: Look, runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(look().patches)
    (tmp_path / "features" / "done.json").unlink()
    monkeypatch.setattr(teacher, "BATCH", 1)

    fitted, shown = teacher._fitted, []

    def killed_at_the_third(*args: Any) -> torch.Tensor:
        shown.append(1)
        if len(shown) == 3:
            raise KeyboardInterrupt
        return fitted(*args)

    with monkeypatch.context() as broken:
        broken.setattr(teacher, "_fitted", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            look()
    assert not (tmp_path / "features" / "done.json").exists()

    assert np.array_equal(look().patches, expected)
    (tmp_path / "features" / "done.json").write_text(json.dumps({"teacher": NAME})[:5])
    look()
    (tmp_path / "features" / "summary.npy").unlink()
    look()
    assert runs == [3] * 5


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        (NAME, "absent.safetensors", r"absent\.safetensors: the teacher's weights are not there"),
        (NAME, "", "the teacher's weights are not there"),
        (NAME, "text.safetensors", r"text\.safetensors: cannot be the weights of timm's model 'test_vit'"),
        ("test_vit2", None, r"teacher\.safetensors: cannot be the weights of timm's model 'test_vit2'"),
        ("no_such_model", None, "cannot be the weights of timm's model 'no_such_model': Unknown model"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(
    name: str, file: str | None, message: str, look: Look, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    given = weights if file is None else tmp_path / file

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        look(name=name, weights=given)
    assert not (tmp_path / "features" / "done.json").exists()


def test_a_network_without_patches_is_no_teacher(look: Look, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=1000).state_dict(), file)

    with pytest.raises(ValueError, match="test_resnet: a teacher must be one of timm's vision transformers"):
        look(name="test_resnet", weights=file)


def test_a_picture_that_is_there_twice_is_looked_at_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pictures(tmp_path / "pictures", 3)
    looked: list[int] = []
    fitted = teacher._fitted
    monkeypatch.setattr(teacher, "_fitted", lambda picture, size: looked.append(size) or fitted(picture, size))
    pictures = PictureSet([tmp_path / "pictures", tmp_path / "pictures" / "1.png"])

    features = teacher_features(pictures, weights, tmp_path / "features", name=NAME)

    assert len(features) == 4
    assert len(looked) == 3
    assert np.array_equal(features.patches[3], features.patches[1])
    assert np.array_equal(features.summary[3], features.summary[1])
    assert not np.array_equal(features.patches[3], features.patches[2])
