import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TEXTS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from foveal.training.vocabulary import LONGEST, train_vocabulary

TOKENIZER = train_vocabulary(TEXTS * 5, size=400, languages=["en", "zh", "fr"])
any_text = st.text() | st.text(st.sampled_from("ab <>/s|=lang 狗在\n\t🐕é́")) | st.sampled_from(["</s>", "<pad>lang=en"])


def spelled(text: str, tokenizer: PreTrainedTokenizerBase = TOKENIZER) -> list[int]:
    """The tokens of a caption, as training spells it."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(any_text)
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_as_it_was_apart_from_a_leading_space(text: str) -> None:
    assert TOKENIZER.decode(spelled(text)).removeprefix(" ") == text.removeprefix(" ")


@given(any_text)
@settings(max_examples=300, deadline=None)
def test_no_caption_can_spell_a_special_token(text: str) -> None:
    assert not set(spelled(text)) & set(TOKENIZER.all_special_ids)
    assert TOKENIZER.decode(spelled(text), skip_special_tokens=True) == TOKENIZER.decode(spelled(text))


def test_special_tokens_come_first_and_prompts_are_one_token_each() -> None:
    ids = TOKENIZER.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "lang=en", "lang=zh", "lang=fr"])

    assert ids == [0, 1, 2, 3, 4, 5]
    assert [TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id] == [0, 1, 2]
    for place, language in enumerate(("en", "zh", "fr")):
        assert TOKENIZER(f"lang={language}", add_special_tokens=False)["input_ids"] == [3 + place]
    assert TOKENIZER.decode([3, *spelled("a dog"), 2, 0, 0], skip_special_tokens=True).strip() == "a dog"


def test_words_that_were_seen_are_short_and_all_bytes_are_there() -> None:
    assert len(spelled("a dog runs")) == 3
    assert len(spelled("ж")) == 3  # never seen: a space and its bytes
    assert len(TOKENIZER) <= 400


def test_no_piece_holds_a_phrase() -> None:
    phrase = "狗在草地上跑来跑去很开心"
    tokenizer = train_vocabulary([phrase] * 50, size=400, languages=["zh"])

    pieces = [piece for piece in tokenizer.get_vocab() if piece not in tokenizer.all_special_tokens]
    assert max(map(len, pieces)) <= LONGEST
    assert len(spelled(phrase, tokenizer)) >= 3


def test_the_same_texts_give_the_same_vocabulary() -> None:
    again = train_vocabulary(TEXTS * 5, size=400, languages=["en", "zh", "fr"])

    assert again.get_vocab() == TOKENIZER.get_vocab()


def test_what_is_saved_spells_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(folder)

    loaded = AutoTokenizer.from_pretrained(folder)

    for text in (*TEXTS, "It 's </s> lang=en , no ?", "🐕 don't"):
        assert spelled(text, loaded) == spelled(text)
        assert loaded.decode(spelled(text)).removeprefix(" ") == text
    assert loaded.all_special_tokens == TOKENIZER.all_special_tokens


def test_a_size_without_room_for_every_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="a vocabulary of 260 is too small; 256 bytes and 5 special tokens need room"):
        train_vocabulary(TEXTS, size=260, languages=["en", "zh"])
    assert len(train_vocabulary(TEXTS, size=261, languages=["en", "zh"])) == 261
