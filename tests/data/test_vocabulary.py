"""Names of splits and languages."""

import pytest

from foveal.data.vocabulary import (
    LANGUAGES,
    language_fault,
    normal_split,
    split_fault,
    split_in,
    split_of_folders,
)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        (" Validation ", "val"),
        ("dev", "val"),
        ("restval", "train"),
        ("TEST", "test"),
        ("odd", "odd"),
    ],
)
def test_other_names_of_the_splits_become_ours(name, split):
    assert normal_split(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [("captions_train2017", "train"), ("dev-0003", "val"), ("constraints", None), ("0001", None), ("my_test", "test")],
)
def test_a_split_is_found_as_a_word_of_a_name_only(name, split):
    assert split_in(name) == split


def test_the_first_folder_called_like_a_split_decides():
    assert split_of_folders(("data", "val", "train"), default="test") == "val"
    assert split_of_folders(("trainers",), default="test") == "test"


def test_unknown_splits_are_refused_with_the_nearest():
    assert split_fault("val") is None
    assert "did you mean 'val'" in split_fault("valdation")
    assert split_fault("holdout").endswith("expected train, val or test")


@pytest.mark.parametrize(("code", "near"), [("zh-CN".lower(), "zh"), ("english", "en"), ("cn", "zh"), ("pt_br", "pt")])
def test_unknown_languages_are_refused_with_the_code_that_was_meant(code, near):
    assert f"did you mean '{near}'" in language_fault(code)


def test_the_known_languages_are_those_of_iso_639_1():
    assert len(LANGUAGES) == 183
    assert {"en", "zh", "de", "ar", "hi"} <= LANGUAGES
    assert language_fault("zh") is None
    assert language_fault("xx").endswith("such as 'en' or 'zh'")
