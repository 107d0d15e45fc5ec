"""How good captions are: BLEU-1..4, ROUGE-L, CIDEr-D, and how many of them differ.

BLEU is Papineni et al. (ACL 2002), ROUGE-L is Lin (ACL workshop on text summarization, 2004), CIDEr-D is Vedantam et
al. (CVPR 2015). The figures are those of pycocoevalcap (Chen et al., "Microsoft COCO Captions", 2015) on the same
tokens, down to its smoothing constants; nothing but the standard library is needed.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foveal.training.cider import MAX_N, CiderD, Ngrams, ngrams_of

ROUGE_BETA = 1.2
"""Weight of recall against precision in ROUGE-L's F-measure."""

CHARACTER_LANGUAGES = frozenset({"zh", "ja"})
"""Languages written without spaces, which are scored character by character."""

# What pycocoevalcap adds to BLEU's fractions so that none is 0 / 0. A product with one zero count keeps a trace of them
# (its fourth root is about 1e-4), so equal figures need equal constants.
_BLEU_TINY, _BLEU_SMALL = 1e-15, 1e-9

_NUMBER = r"\d+(?:[.,]\d+)+"
_CONTRACTED = r"'(?:s|m|re|ve|ll|d)\b"
_WORD = r"[^\W_]+(?:[-'][^\W_]+)*"
# Order matters: "isn't" must give "is" before the whole-word rule can take it.
_ENGLISH_TOKEN = re.compile(
    rf"n't\b|{_CONTRACTED}|{_NUMBER}|[^\W_]+?(?=n't\b)|[^\W_]+(?:(?:-|(?!{_CONTRACTED})')[^\W_]+)*"
)
_WORD_TOKEN = re.compile(rf"{_NUMBER}|{_WORD}")
_SINGLE = (
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_CHARACTER_TOKEN = re.compile(rf"{_NUMBER}|[{_SINGLE}]|(?:(?![{_SINGLE}])[^\W_])+")


def tokenize(text: str, language: str = "en") -> list[str]:
    """Cut a caption into the tokens that the metrics count.

    All languages: Unicode NFKC (so full-width letters and digits are plain ones), lower case, punctuation and symbols
    removed, a number such as `3.5` kept whole. Then, by language:

    - `en`: words between spaces and punctuation. As in the Penn Treebank, a contraction is cut (`isn't` -> `is n't`,
      `dog's` -> `dog 's`) and inner hyphens stay (`tri-colored`).
    - `zh`, `ja`: every Han character or kana by itself; a run of other letters and digits is one token.
    - others: words between spaces and punctuation, inner hyphens and apostrophes kept.

    Args:
        text: one caption.
        language: ISO 639-1 code.

    Returns:
        The tokens in order; empty when the text holds no letter and no digit.

    Example:
        >>> tokenize("A dog's tri-colored ball, isn't it?")
        ['a', 'dog', "'s", 'tri-colored', 'ball', 'is', "n't", 'it']
        >>> tokenize("穿T恤的男人。", "zh")
        ['穿', 't', '恤', '的', '男', '人']
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    if language in CHARACTER_LANGUAGES:
        return _CHARACTER_TOKEN.findall(text)
    return (_ENGLISH_TOKEN if language == "en" else _WORD_TOKEN).findall(text)


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, language: str = "en"
) -> dict[str, float]:
    """Score one caption per picture against the captions that people wrote for it.

    Args:
        candidates: one caption for each of N pictures.
        references: N lists, each with at least one human caption of that picture.
        language: ISO 639-1 code, which chooses the tokens (see `tokenize`).

    Returns:
        `bleu_1` ... `bleu_4` (0 to 1; over the whole set at once, not a mean of captions; closest reference length),
        `rouge_l` (0 to 1; mean over captions), `cider_d` (0 to 10; mean over captions; document frequencies are those
        of these references, so it is 0 for a single picture and figures of unlike sets do not compare) and `distinct`
        (number of different candidates, as tokens, over N).

    Raises:
        ValueError: when there is nothing to score, the two lengths differ, or a picture has no reference.

    Example:
        >>> scores = score_captions(["A dog runs."], [["a dog runs", "the dog is running"]])
        >>> round(scores["bleu_2"], 3), round(scores["rouge_l"], 3)
        (1.0, 1.0)
    """
    samples = _samples(candidates, references, language)
    ciders = _cider_d(samples)
    total = _BleuCounts((0,) * MAX_N, (0,) * MAX_N, 0, 0)
    for sample in samples:
        total = total + _bleu_counts(sample)
    return {
        **_named_bleu(total),
        "rouge_l": math.fsum(map(_rouge_l, samples)) / len(samples),
        "cider_d": math.fsum(ciders) / len(samples),
        "distinct": len({sample.candidate for sample in samples}) / len(samples),
    }


def score_each(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, language: str = "en"
) -> list[dict[str, float]]:
    """Score every caption by itself, for a file with one line per picture.

    Arguments and errors are those of `score_captions`. `rouge_l` and `cider_d` average to the figures of the set (the
    document frequencies are still the whole set's); a caption's own `bleu_n` does not, BLEU being a measure of a set.

    Returns:
        N dictionaries with `bleu_1` ... `bleu_4`, `rouge_l` and `cider_d`, in the order of `candidates`.

    Example:
        >>> [round(each["rouge_l"], 2) for each in score_each(["a cat", "a dog"], [["a cat"], ["the cat"]])]
        [1.0, 0.0]
    """
    samples = _samples(candidates, references, language)
    return [
        {**_named_bleu(_bleu_counts(sample)), "rouge_l": _rouge_l(sample), "cider_d": cider}
        for sample, cider in zip(samples, _cider_d(samples), strict=True)
    ]


@dataclass(frozen=True)
class _Sample:
    """One picture's candidate and references as tokens, with the counts of their n-grams."""

    candidate: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    candidate_ngrams: Ngrams
    reference_ngrams: tuple[Ngrams, ...]


def _samples(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str) -> list[_Sample]:
    if isinstance(candidates, str) or isinstance(references, str):
        raise ValueError("expected a list of candidates and a list of reference lists, got a single string")
    if len(candidates) != len(references):
        raise ValueError(
            f"got {len(candidates)} candidates for {len(references)} lists of references; give one candidate a picture"
        )
    if not candidates:
        raise ValueError("there is nothing to score: 0 candidates were given; give at least one")
    samples = []
    for index, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(texts, str):
            raise ValueError(f"references[{index}] is one string, {texts!r}; expected a list of strings")
        if len(texts) == 0:
            raise ValueError(f"references[{index}] is empty; each candidate needs at least one human caption")
        candidate_tokens = tuple(tokenize(candidate, language))
        tokens = tuple(tuple(tokenize(text, language)) for text in texts)
        samples.append(_Sample(candidate_tokens, tokens, ngrams_of(candidate_tokens), tuple(map(ngrams_of, tokens))))
    return samples


def _cider_d(samples: list[_Sample]) -> list[float]:
    scorer = CiderD([sample.references for sample in samples])
    return [scorer.score(sample.candidate, row) for row, sample in enumerate(samples)]


# BLEU ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BleuCounts:
    """What BLEU adds up over a set: n-grams found and proposed for each n, and lengths in tokens."""

    correct: tuple[int, ...]
    proposed: tuple[int, ...]
    length: int
    reference_length: int

    def __add__(self, other: "_BleuCounts") -> "_BleuCounts":
        return _BleuCounts(
            tuple(a + b for a, b in zip(self.correct, other.correct, strict=True)),
            tuple(a + b for a, b in zip(self.proposed, other.proposed, strict=True)),
            self.length + other.length,
            self.reference_length + other.reference_length,
        )


def _bleu_counts(sample: _Sample) -> _BleuCounts:
    ceiling: Ngrams = Counter()
    for counts in sample.reference_ngrams:
        ceiling |= counts
    correct = [0] * MAX_N
    for ngram, count in (sample.candidate_ngrams & ceiling).items():
        correct[len(ngram) - 1] += count
    length = len(sample.candidate)
    # The closest reference length; of two equally close ones, the shorter.
    closest = min((abs(len(reference) - length), len(reference)) for reference in sample.references)[1]
    return _BleuCounts(tuple(correct), tuple(max(0, length - n) for n in range(MAX_N)), length, closest)


def _named_bleu(counts: _BleuCounts) -> dict[str, float]:
    ratio = (counts.length + _BLEU_TINY) / (counts.reference_length + _BLEU_SMALL)
    brevity = math.exp(min(0.0, 1 - 1 / ratio))
    scores, product = {}, 1.0
    for n, (correct, proposed) in enumerate(zip(counts.correct, counts.proposed, strict=True), start=1):
        product *= (correct + _BLEU_TINY) / (proposed + _BLEU_SMALL)
        scores[f"bleu_{n}"] = brevity * product ** (1 / n)
    return scores


# ROUGE-L ---------------------------------------------------------------------------------------------------------


def _rouge_l(sample: _Sample) -> float:
    """F-measure of the best precision and the best recall over the references (they may be of two references)."""
    if not sample.candidate:
        return 0.0  # says nothing, earns nothing; pycocoevalcap gives 1 where a reference is empty too
    lengths = [(_common_subsequence(sample.candidate, reference), len(reference)) for reference in sample.references]
    precision = max(common for common, _ in lengths) / len(sample.candidate)
    recall = max(common / max(length, 1) for common, length in lengths)
    if precision == 0.0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, one row of the table at a time."""
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for j, b in enumerate(second, start=1):
            above = row[j]
            row[j] = diagonal + 1 if a == b else max(above, row[j - 1])
            diagonal = above
    return row[-1]
