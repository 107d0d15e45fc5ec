from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from foveal.models import GlimpseProcessor, MultiModalProcessor
from foveal.models.processing import MEAN, STD, glimpse_tensors, labels_of, language_prompt
from foveal.picture import PictureError
from foveal.retina import Retina


def test_a_glimpse_comes_as_batch_first_tensors_of_what_the_retina_saw(pictures: list[Tensor]) -> None:
    expected = Retina(32, 3, mean=MEAN, std=STD, enlarge=True)(pictures, (0.2, 0.7))

    given = GlimpseProcessor(32, 3)(pictures, fixation=(0.2, 0.7))

    assert torch.equal(given["pixel_values"], expected.pixels)
    assert torch.equal(given["window_origins"], expected.layout.origins)
    assert torch.equal(given["window_levels"], expected.layout.levels)
    assert torch.equal(given["window_valid"], expected.layout.valid)
    assert torch.equal(given["picture_sizes"], expected.layout.pictures)
    assert torch.equal(given["fixations"], expected.layout.fixations)
    assert list(given) == GlimpseProcessor.model_input_names
    assert {len(value) for value in given.values()} == {3}


@pytest.mark.parametrize("shape", [(3, 10, 20), (3, 200, 100), (3, 1, 300)])
def test_the_longer_side_of_any_picture_fills_the_widest_window(shape: tuple[int, ...]) -> None:
    sizes = GlimpseProcessor(32, 3)(torch.rand(shape))["picture_sizes"]

    assert sizes.max() == 128


def test_levels_of_a_call_go_before_the_processors_own(pictures: list[Tensor]) -> None:
    look = GlimpseProcessor(32, 2)

    assert look(pictures)["pixel_values"].shape[1] == 2
    assert look(pictures, levels=4)["pixel_values"].shape[1] == 4
    assert look(pictures, levels="auto")["window_valid"].sum(1).tolist() == [2, 3, 4]


def test_pictures_may_be_files_images_arrays_tensors_and_lists_of_lists(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "picture.png")
    look = GlimpseProcessor(32, 2)
    expected = look(image)["pixel_values"]

    for given in (str(tmp_path / "picture.png"), pixels, torch.from_numpy(pixels).permute(2, 0, 1), [[image]]):
        torch.testing.assert_close(look(given)["pixel_values"], expected)
    assert look([[image], [image, image]])["pixel_values"].shape[0] == 3


def test_a_prompt_serves_all_pictures_or_each_has_its_own(
    processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    english, chinese = processor.tokenizer.convert_tokens_to_ids(["lang=en", "lang=zh"])

    assert processor(pictures)["input_ids"].tolist() == [[english]] * 3
    assert processor(pictures, "lang=zh")["input_ids"].tolist() == [[chinese]] * 3
    assert processor(pictures, ["lang=zh"])["input_ids"].tolist() == [[chinese]] * 3
    assert processor(pictures[:2], ["lang=zh", "lang=en"])["input_ids"].tolist() == [[chinese], [english]]
    assert "input_ids" not in processor(pictures, text=None)


def test_prompts_of_unlike_length_are_padded_and_masked(processor: MultiModalProcessor, pictures: list[Tensor]) -> None:
    given = processor(pictures[:2], ["lang=en", "lang=en a red dog"])

    length = given["input_ids"].shape[1]
    assert given["attention_mask"].tolist() == [[1] + [0] * (length - 1), [1] * length]
    assert given["input_ids"][0, 1:].tolist() == [processor.tokenizer.pad_token_id] * (length - 1)


def test_a_glimpse_is_taken_as_it_is(processor: MultiModalProcessor, pictures: list[Tensor]) -> None:
    glimpse = Retina(32, 3)(pictures)

    given = processor(glimpse, "lang=zh")

    assert all(torch.equal(given[name], value) for name, value in glimpse_tensors(glimpse).items())
    assert given["input_ids"].shape == (3, 1)


def test_tokens_come_back_as_text_without_special_ones(processor: MultiModalProcessor) -> None:
    texts = ["a dog on the grass", "狗在草地上跑"]
    rows = [[1, *tokens, 2] for tokens in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    padded = [row + [0] * (max(map(len, rows)) - len(row)) for row in rows]

    assert processor.batch_decode(padded, skip_special_tokens=True) == texts
    assert processor.post_process_image_text_to_text(torch.tensor(padded)) == texts
    assert processor.decode(rows[0], skip_special_tokens=True) == texts[0]
    assert processor.decode(rows[0]).startswith("<s>")


def test_every_setting_survives_saving_and_loading(tmp_path: Path, processor: MultiModalProcessor) -> None:
    own = GlimpseProcessor(48, "auto", image_mean=(0.1, 0.2, 0.3), image_std=(1, 2, 3), enlarge=False)
    MultiModalProcessor(own, processor.tokenizer).save_pretrained(tmp_path)

    loaded = AutoProcessor.from_pretrained(tmp_path)

    assert type(loaded) is MultiModalProcessor
    for look in (loaded.image_processor, AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(look) is GlimpseProcessor
        assert (look.size, look.levels, look.enlarge) == (48, "auto", False)
        assert (look.image_mean, look.image_std) == ([0.1, 0.2, 0.3], [1, 2, 3])
    for tokenizer in (loaded.tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
        assert tokenizer("a 狗 lang=zh")["input_ids"] == processor.tokenizer("a 狗 lang=zh")["input_ids"]


def test_labels_are_padded_with_what_no_loss_counts() -> None:
    assert labels_of([[1, 2, 3], [4], []]).tolist() == [[1, 2, 3], [4, -100, -100], [-100] * 3]
    assert labels_of([[1]]).dtype == torch.int64
    assert labels_of([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"text": ["lang=en", "lang=zh"]}, "2 prompts for 3 pictures; give one, or one for each"),
        ({"text": []}, "0 prompts for 3 pictures"),
        ({"text": "lang=fr"}, "prompt 'lang=fr': this model knows lang=en, lang=zh"),
        ({"text": ["lang=en", "lang=", "lang=zh"]}, "prompt 'lang=': this model knows"),
        ({"return_tensors": "np"}, "return_tensors='np': a glimpse is made of PyTorch tensors; use 'pt'"),
        ({"fixaton": (0.1, 0.1)}, "unknown argument 'fixaton'; did you mean 'fixation'"),
        ({"level": 3}, "unknown argument 'level'; did you mean 'levels'"),
        ({"fixation": (0.1, 1.1)}, "lies outside the picture; y and x go from 0 to 1"),
        ({"fixation": torch.rand(2, 2)}, "2 fixations for 3 pictures"),
        ({"levels": 0}, "levels is 0; expected"),
        ({"images": None}, "no picture was given; this model describes pictures"),
        ({"images": []}, "no picture was given"),
    ],
)
def test_what_cannot_be_looked_at_or_asked_is_refused(
    how: dict[str, object], message: str, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**{"images": pictures, **how})


def test_options_that_transformers_passes_to_every_processor_are_let_by(
    processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    given = processor(images=pictures, text="lang=en", padding=True, truncation=False, return_tensors="pt")

    assert given["input_ids"].shape == (3, 1)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, processor: MultiModalProcessor) -> None:
    (tmp_path / "not.png").write_text("text")

    with pytest.raises(PictureError, match=r"not\.png"):
        processor(str(tmp_path / "not.png"))


def test_languages_are_prompts() -> None:
    assert language_prompt("zh") == "lang=zh"
