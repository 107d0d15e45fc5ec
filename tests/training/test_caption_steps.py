from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TEXTS, save_pictures
from transformers import PreTrainedTokenizerBase

from foveal.picture import PictureError
from foveal.training import caption_steps
from foveal.training.caption_steps import CaptionSteps
from foveal.training.vocabulary import train_vocabulary

Make = Callable[..., CaptionSteps]
Row = tuple[str, str, list[str]]  # picture, language, texts


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_vocabulary(TEXTS * 3, size=300, languages=["en", "zh"])


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerBase) -> Make:
    def make_steps(*rows: Row, languages: tuple[str, ...] = ("en",), longest: int = 40, **how: int) -> CaptionSteps:
        records = [{"image": image, "language": code, "texts": texts} for image, code, texts in rows]
        return CaptionSteps(records, tokenizer, languages=languages, longest=longest, **how)

    return make_steps


@pytest.fixture
def read(tokenizer: PreTrainedTokenizerBase) -> Callable[[torch.Tensor], list[str]]:
    """Label rows as texts; each must be a text, its end, and padding."""

    def read_rows(labels: torch.Tensor) -> list[str]:
        texts = []
        for row in labels.tolist():
            kept = [token for token in row if token != -100]
            assert row == kept + [-100] * (len(row) - len(kept))
            assert kept[-1] == tokenizer.eos_token_id
            texts.append(tokenizer.decode(kept[:-1]).strip())
        return texts

    return read_rows


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_each_picture_gives_texts_in_each_language_after_its_prompt(make: Make, read: Callable[..., list[str]]) -> None:
    steps = make(
        ("a", "en", ["A dog .", "One red dog runs ."]),
        ("a", "zh", ["狗 在 跑 。"]),
        ("b", "zh", ["两只猫"]),
        ("b", "en", ["Two cats"]),
        languages=("en", "zh"),
    )

    given = steps.texts([1, 0], rng(), count=2)

    assert given["input_ids"].tolist() == [[3], [4], [3], [4]]
    assert read(given["labels"]) == ["two cats"] * 2 + ["两只猫"] * 2 + ["a dog", "one red dog runs"] + ["狗在跑"] * 2


def test_texts_of_a_step_have_the_same_rank_in_length(make: Make, read: Callable[..., list[str]]) -> None:
    short, long = [["dog" + " dog" * (n + extra) for n in (4, 0, 3, 1, 2)] for extra in (0, 10)]
    steps = make(("a", "en", short), ("b", "en", long))

    ranks = set()
    for seed in range(40):
        texts = read(steps.texts([0, 1], rng(seed), count=2)["labels"])
        lengths = [text.count("dog") for text in texts]
        assert lengths[1] == lengths[0] + 1, "neighbours in length"
        assert lengths[2:] == [lengths[0] + 10, lengths[1] + 10], "the same rank for both pictures"
        ranks.add(lengths[0])
    assert ranks == {1, 2, 3, 4}, "every rank has its turn"


def test_the_choice_is_the_generators_alone(make: Make) -> None:
    steps = make(("a", "en", [f"dog {n}" * (n + 1) for n in range(5)]))

    draws = [steps.texts([0], rng(seed), count=1)["labels"].tolist() for seed in (1, 1, 2, 3, 4)]

    assert draws[0] == draws[1]
    assert draws[2:] != draws[:1] * 3


def test_a_picture_with_too_few_texts_repeats_its_longest(make: Make, read: Callable[..., list[str]]) -> None:
    steps = make(("a", "en", ["a red dog", "dog"]))

    assert read(steps.texts([0], rng(), count=4)["labels"]) == ["dog", "a red dog", "a red dog", "a red dog"]


def test_texts_that_are_too_long_are_cut_so_that_start_and_end_fit(
    make: Make, tokenizer: PreTrainedTokenizerBase
) -> None:
    steps = make(("a", "en", ["dog " * 50]), longest=10)

    labels = steps.texts([0], rng(), count=1)["labels"]

    assert labels.shape == (1, 9)  # what is read is the start and all but the last of these
    assert labels[0, -1] == tokenizer.eos_token_id


def test_a_caption_that_spells_a_special_token_is_text_like_any_other(
    make: Make, read: Callable[..., list[str]]
) -> None:
    steps = make(("a", "en", ["a sign says </s> and lang=zh"]))

    labels = steps.texts([0], rng(), count=1)["labels"]

    assert read(labels) == ["a sign says </s> and lang=zh"]
    assert (labels < 5).sum() == 1, "its end alone is special"
    assert steps.texts([0], rng(), count=1)["input_ids"].tolist() == [[3]]


def test_pictures_that_lack_a_language_and_texts_that_say_nothing_are_left_out(
    make: Make, read: Callable[..., list[str]]
) -> None:
    steps = make(
        ("a", "en", ["a dog"]),
        ("b", "zh", ["狗"]),
        ("c", "zh", ["猫"]),
        ("c", "fr", ["un chat"]),
        ("c", "en", [" . ", "a cat"]),
        ("d", "en", ["..."]),
        ("d", "zh", ["狗"]),
        languages=("en", "zh"),
    )

    assert len(steps) == 1
    assert read(steps.texts([0], rng(), count=1)["labels"]) == ["a cat", "猫"]


def test_records_of_one_picture_are_put_together(make: Make) -> None:
    steps = make(("a", "en", ["a dog"]), ("b", "en", ["a cat"]), ("a", "en", ["one red dog runs"]))

    assert len(steps) == 2
    assert len({tuple(steps.texts([0], rng(seed), count=1)["labels"][0].tolist()) for seed in range(20)}) == 2


def test_pictures_are_decoded_once_as_long_as_there_is_room(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(file) for file in save_pictures(tmp_path, 2)]
    opened, original = [], caption_steps.open_picture
    monkeypatch.setattr(caption_steps, "open_picture", lambda *args, **how: opened.append(1) or original(*args, **how))
    rows = [(file, "en", ["a dog"]) for file in files]

    steps = make(*rows)
    first = steps.picture(0)
    assert first.dtype == torch.uint8
    assert first.shape == (3, 40, 40)
    assert all(torch.equal(steps.picture(0), first) for _ in range(3))
    assert len(opened) == 1

    steps = make(*rows, keep=first.nbytes)
    assert [steps.picture(row).shape for row in (0, 1, 0, 1)] == [(3, 40, 40), (3, 41, 42)] * 2
    assert len(opened) == 1 + 3


def test_a_picture_that_cannot_be_read_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"absent\.png"):
        make((str(tmp_path / "absent.png"), "en", ["a dog"])).picture(0)


def test_no_picture_in_all_languages_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="no picture has captions in all of en, zh"):
        make(("a", "en", ["a dog"]), ("b", "zh", ["狗"]), languages=("en", "zh"))


def test_a_language_that_the_tokenizer_was_not_taught_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="language 'fr': the tokenizer has no token 'lang=fr'"):
        make(("a", "fr", ["un chien"]), languages=("fr",))
