"""CIDEr-D (Vedantam et al., CVPR 2015): how alike a caption is to what people wrote, rare n-grams counting most.

The figures are those of pycocoevalcap (Chen et al., "Microsoft COCO Captions", 2015) on the same tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

MAX_N = 4
"""Longest n-gram that is counted."""

SIGMA = 6.0
"""Width, in tokens, of the Gaussian penalty on a difference in length."""

Tokens = tuple[str, ...]
Ngrams = Counter[Tokens]
_Vector = tuple[dict[Tokens, float], list[float], int]  # tf-idf of every n-gram, its norm for each n, length in bigrams


def ngrams_of(tokens: Tokens) -> Ngrams:
    """Counts of all n-grams of 1 to `MAX_N` tokens."""
    return Counter(tokens[i : i + n] for n in range(1, MAX_N + 1) for i in range(len(tokens) - n + 1))


class CiderD:
    """Scores captions against the references of N pictures, whose document frequencies hold for all of them.

    Args:
        references: N lists, each with at least one caption of that picture as tokens. With a single picture every
            score is 0: what all pictures share counts for nothing.

    Raises:
        ValueError: without pictures, or for one without references.

    Example:
        >>> scorer = CiderD([[("a", "dog")], [("two", "cats")]])
        >>> scorer.score(("a", "dog"), 0) > scorer.score(("a", "dog"), 1)
        True
    """

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        if not references or not all(references):
            raise ValueError("CIDEr-D needs at least one picture and a reference for each; some are lacking: give them")
        self._references = references
        self._frequency: Counter[Tokens] = Counter()
        for texts in references:
            self._frequency.update({ngram for tokens in texts for ngram in ngrams_of(tokens)})
        self._log_total = math.log(len(references))
        # Several captions of one picture are scored in a row; to keep all vectors would take much memory.
        self._weighed = lru_cache(256)(lambda row: [self._vector(tokens) for tokens in references[row]])

    def score(self, candidate: Tokens, row: int) -> float:
        """0 to 10: the clipped tf-idf cosine with each reference of picture `row`, damped where lengths differ."""
        weights, norms, length = self._vector(candidate)
        total = 0.0
        for reference_weights, reference_norms, reference_length in self._weighed(row):
            products = [0.0] * MAX_N
            for ngram, weight in weights.items():
                if (other := reference_weights.get(ngram)) is not None:
                    products[len(ngram) - 1] += min(weight, other) * other
            cosine = sum(
                product / (norm * reference_norm) if norm and reference_norm else 0.0
                for product, norm, reference_norm in zip(products, norms, reference_norms, strict=True)
            )
            total += cosine * math.exp(-((length - reference_length) ** 2) / (2 * SIGMA**2))
        return 10.0 * total / (MAX_N * len(self._references[row]))

    def _vector(self, tokens: Tokens) -> _Vector:
        weights, squares = {}, [0.0] * MAX_N
        for ngram, count in ngrams_of(tokens).items():
            weight = count * (self._log_total - math.log(max(1, self._frequency[ngram])))
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
        # pycocoevalcap measures lengths in bigrams: the difference in tokens, but that 0 and 1 token are alike.
        return weights, [math.sqrt(square) for square in squares], max(0, len(tokens) - 1)
