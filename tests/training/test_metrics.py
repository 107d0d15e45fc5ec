"""The caption metrics against pycocoevalcap, and against figures worked out by hand."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.training.metrics import MAX_N, score_captions, score_each, tokenize

NAMES = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]


def reference_scores(
    candidates: list[str], references: list[list[str]], language: str = "en"
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """pycocoevalcap's figures, for the set and for each caption, on the tokens of `tokenize`."""
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider = pytest.importorskip("pycocoevalcap.cider.cider")

    def joined(text: str) -> str:
        return " ".join(tokenize(text, language))

    results = {i: [joined(text)] for i, text in enumerate(candidates)}
    truths = {i: [joined(text) for text in texts] for i, texts in enumerate(references)}
    bleu_set, bleu_each = bleu.Bleu(MAX_N).compute_score(truths, results, verbose=0)
    rouge_set, rouge_each = rouge.Rouge().compute_score(truths, results)
    cider_set, cider_each = cider.Cider().compute_score(truths, results)
    whole = dict(zip(NAMES, [*bleu_set, rouge_set, cider_set], strict=True))
    columns = zip(*bleu_each, rouge_each, cider_each, strict=True)
    return whole, [dict(zip(NAMES, column, strict=True)) for column in columns]


def assert_agrees(candidates: list[str], references: list[list[str]], language: str = "en") -> None:
    whole, each = reference_scores(candidates, references, language)
    ours = score_captions(candidates, references, language=language)
    for name in NAMES:
        assert ours[name] == pytest.approx(whole[name], abs=1e-6), name
    for index, (mine, theirs) in enumerate(
        zip(score_each(candidates, references, language=language), each, strict=True)
    ):
        for name in NAMES:
            assert mine[name] == pytest.approx(theirs[name], abs=1e-6), (index, name)


# Agreement with pycocoevalcap -----------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["a", "dog", "cat", "runs", "on", "the", "red", "grass"]), min_size=1, max_size=12
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=5)), min_size=1, max_size=8))
def test_random_captions_score_as_pycocoevalcap_scores_them(pairs: list[tuple[str, list[str]]]) -> None:
    assert_agrees([candidate for candidate, _ in pairs], [texts for _, texts in pairs])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_captions_score_as_pycocoevalcap_scores_them(shared_data, language: str) -> None:
    file = shared_data / "flickr8k" / {"en": "captions_en.tsv", "zh": "captions_zh_human.tsv"}[language]
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    captions: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, split, text = line.split("\t")
        if split == "val":
            captions.setdefault(name, []).append(text)
    groups = list(captions.values())[:300]
    # Candidates of all kinds: a person's own caption, another picture's, one cut short, one shuffled.
    rng = random.Random(0)
    candidates = []
    for i, group in enumerate(groups):
        tokens = tokenize(group[0], language)
        shuffled = rng.sample(tokens, len(tokens))
        candidates.append([group[0], groups[i - 1][0], " ".join(tokens[:3]), " ".join(shuffled)][i % 4])
    references = [group[1:] for group in groups]
    assert_agrees(candidates, references, language)
    assert 0.1 < score_captions(candidates, references, language=language)["bleu_4"] < 0.9


def test_a_caption_without_words_scores_as_pycocoevalcap_scores_it() -> None:
    assert_agrees(["", "a dog runs on the grass", "..."], [["a dog"], ["a dog runs"], ["one two", "three"]])
    assert_agrees(["", ""], [["a dog"], ["a cat"]])


def test_a_caption_of_one_token_meets_the_same_length_penalty_as_in_pycocoevalcap() -> None:
    assert_agrees(["dog", "a cat sits"], [["a big brown dog", "dog"], ["a cat sits here"]])


# Figures by hand ------------------------------------------------------------------------------------------------------


def test_bleu_clips_a_word_that_is_repeated_more_often_than_in_any_reference() -> None:
    # The example of Papineni et al.: "the" seven times, at most twice in a reference.
    scores = score_captions(["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]])
    assert scores["bleu_1"] == pytest.approx(2 / 7)


def test_bleu_counts_over_the_whole_set_rather_than_averaging_captions() -> None:
    scores = score_captions(["a b c d e f g h", "x y"], [["a b c d e f g h"], ["p q"]])
    assert scores["bleu_1"] == pytest.approx(8 / 10)
    assert scores["bleu_2"] == pytest.approx(math.sqrt(8 / 10 * 7 / 8))


def test_bleu_takes_the_closest_reference_length_and_of_two_the_shorter() -> None:
    # 4 tokens against 3 and 5: the shorter is taken, so there is no penalty; against 5 alone there is one.
    assert score_captions(["a b c d"], [["a b c", "a b c d e"]])["bleu_1"] == pytest.approx(1.0)
    assert score_captions(["a b c d"], [["a b c d e"]])["bleu_1"] == pytest.approx(math.exp(1 - 5 / 4))


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # "police ... gunman": common subsequence of 3 in 4 and 4 tokens (Lin 2004), precision = recall = 3/4.
    assert score_captions(["police kill the gunman"], [["police killed the gunman"]])["rouge_l"] == pytest.approx(3 / 4)
    # Precision 1, recall 1/2, beta 1.2: (1 + 1.44) * 0.5 / (0.5 + 1.44).
    assert score_captions(["a b"], [["a b c d"]])["rouge_l"] == pytest.approx(2.44 * 0.5 / 1.94)


def test_cider_d_is_ten_for_captions_equal_to_their_only_reference() -> None:
    texts = ["a dog runs on grass", "two men ride red bikes", "one cat sleeps all day"]
    scores = score_captions(texts, [[text] for text in texts])
    assert scores["cider_d"] == pytest.approx(10.0)
    assert scores["bleu_4"] == pytest.approx(1.0)


def test_cider_d_gives_nothing_for_words_that_stand_in_every_pictures_references() -> None:
    scores = score_captions(["the", "the"], [["the dog runs"], ["the cat sits"]])
    assert scores["cider_d"] == 0.0
    assert scores["bleu_1"] > 0


def test_cider_d_of_a_single_picture_is_zero_because_every_word_is_then_everywhere() -> None:
    assert score_captions(["a dog runs"], [["a dog runs"]])["cider_d"] == 0.0


def test_cider_d_punishes_a_caption_that_repeats_itself_to_the_wrong_length() -> None:
    references = [["a dog runs on grass"], ["two men ride red bikes"]]
    plain = score_each(["a dog runs on grass", "x"], references)[0]["cider_d"]
    repeated = score_each(["a dog runs on grass " * 4, "x"], references)[0]["cider_d"]
    assert repeated < 0.1 * plain


def test_a_caption_without_words_earns_no_rouge_even_where_a_reference_has_none() -> None:
    assert score_captions([""], [["..."]])["rouge_l"] == 0.0


def test_distinct_is_the_share_of_different_candidates_after_tokenising() -> None:
    references = [["a"], ["b"], ["c"], ["d"]]
    assert score_captions(["A dog.", "a dog", "a cat", "a dog!"], references)["distinct"] == pytest.approx(2 / 4)
    assert score_captions(["a", "b", "c", "d"], references)["distinct"] == 1.0


def test_rouge_and_cider_of_each_caption_average_to_those_of_the_set() -> None:
    candidates = ["a dog runs on the grass", "two cats sit", "a man rides a bike"]
    references = [["a dog is running", "the dog runs on grass"], ["two cats"], ["a man on a red bike"]]
    whole, each = score_captions(candidates, references), score_each(candidates, references)
    for name in ("rouge_l", "cider_d"):
        assert whole[name] == pytest.approx(sum(one[name] for one in each) / 3)
    assert set(whole) == {*NAMES, "distinct"}
    assert all(set(one) == set(NAMES) for one in each)


def test_chinese_captions_are_compared_character_by_character() -> None:
    scores = score_captions(["两只狗在跑。"], [["两只猫在跑"]], language="zh")
    assert scores["bleu_1"] == pytest.approx(4 / 5)
    assert scores["rouge_l"] == pytest.approx(4 / 5)


# Tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man , in red , smiles .", ["a", "man", "in", "red", "smiles"]),
        ("The dog's ball isn't here", ["the", "dog", "'s", "ball", "is", "n't", "here"]),
        ("The dog 's ball", ["the", "dog", "'s", "ball"]),
        ("The dogs' ball", ["the", "dogs", "ball"]),
        ("It’s 5 o'clock", ["it", "'s", "5", "o'clock"]),
        ("a bird's-eye view", ["a", "bird", "'s", "eye", "view"]),
        ("a tri-colored dog - running", ["a", "tri-colored", "dog", "running"]),
        ("1,000 people run 3.5 miles.", ["1,000", "people", "run", "3.5", "miles"]),
        ("He said 'smile' (twice) & left", ["he", "said", "smile", "twice", "left"]),
        ("Café ＡＢＣ", ["café", "abc"]),
        (" \t\n", []),
        ("...", []),
    ],
)
def test_english_is_cut_into_lower_case_words_without_punctuation(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("两只狗在草地上面玩耍。", list("两只狗在草地上面玩耍")),
        ("穿NBA球衣的10号，", ["穿", "nba", "球", "衣", "的", "10", "号"]),
        ("一个ＡＢ孩子！", ["一", "个", "ab", "孩", "子"]),
        ("𠀀字", ["𠀀", "字"]),
        ("“”、…", []),
    ],
)
def test_chinese_is_cut_into_characters_and_runs_of_latin_letters(text: str, tokens: list[str]) -> None:
    assert tokenize(text, "zh") == tokens


def test_other_languages_keep_their_apostrophes() -> None:
    assert tokenize("L'homme au porte-bébé", "fr") == ["l'homme", "au", "porte-bébé"]


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [score_captions, score_each])
def test_arguments_that_do_not_fit_are_refused_with_the_numbers(score) -> None:
    with pytest.raises(ValueError, match="2 candidates for 1 list"):
        score(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="nothing to score"):
        score([], [])
    with pytest.raises(ValueError, match=r"references\[0\] is one string, 'abc'"):
        score(["a"], ["abc"])
    with pytest.raises(ValueError, match="single string"):
        score("a", [["a"]])
