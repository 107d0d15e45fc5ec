import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.data.text import as_sentence, clean_caption

awkward = st.text(st.sampled_from("aΣİß .。\"',!?狗\t\n　\x1f()") | st.characters())
languages = st.sampled_from(["en", "zh"])


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("A dog , running  . ", "en", "a dog, running"),
        ("Two  men\tand\na dog !", "en", "two men and a dog!"),
        ('"A man \'s hat ."', "en", "a man's hat"),
        ("( a girl )", "en", "( a girl)"),
        ("a sign says ' stop ' to the dogs ' owners", "en", "a sign says 'stop' to the dogs' owners"),
        ("a dog called 'rex ' isn 't here", "en", "a dog called 'rex' isn't here"),
        ("A DOG", "en", "a dog"),
        ("两只狗在草地上玩。", "zh", "两只狗在草地上玩"),
        ("两只 狗 在 草地 上 玩 。 ", "zh", "两只狗在草地上玩"),
        ("一只 Dog", "zh", "一只dog"),
        ("  .  ", "en", ""),
        ("", "en", ""),
    ],
)
def test_captions_that_mean_the_same_are_spelled_the_same(text: str, language: str, expected: str) -> None:
    assert clean_caption(text, language) == expected


@given(awkward, languages)
def test_cleaning_twice_is_cleaning_once(text: str, language: str) -> None:
    clean = clean_caption(text, language)

    assert clean_caption(clean, language) == clean


@given(awkward, languages)
def test_a_clean_caption_has_no_stray_space_and_no_stop(text: str, language: str) -> None:
    clean = clean_caption(text, language)

    assert clean == " ".join(clean.split())
    assert not clean.endswith((".", "。", " "))
    assert " ," not in clean
    assert clean == clean.lower()


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("a dog runs", "en", "A dog runs."),
        (" a dog runs ", "en", "A dog runs."),
        ("is it a dog?", "en", "Is it a dog?"),
        ("A dog runs.", "en", "A dog runs."),
        ("狗在跑", "zh", "狗在跑。"),
        ("狗在跑！", "zh", "狗在跑！"),
        ("", "en", ""),
        ("  ", "zh", ""),
    ],
)
def test_a_sentence_starts_with_a_capital_and_ends_with_a_stop(text: str, language: str, expected: str) -> None:
    assert as_sentence(text, language) == expected


@given(awkward, languages)
def test_a_sentence_stays_as_it_is(text: str, language: str) -> None:
    sentence = as_sentence(clean_caption(text, language), language)

    assert as_sentence(sentence, language) == sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('A sign that says "STOP".', 'a sign that says "stop"'),
        ('"Hello" he says.', '"hello" he says'),
        ('"A dog runs ."', "a dog runs"),
        ('"a" and "b"', '"a" and "b"'),
    ],
)
def test_quotes_stay_in_pairs(text: str, expected: str) -> None:
    assert clean_caption(text) == expected
