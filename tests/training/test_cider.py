import pytest

from foveal.training.cider import CiderD, ngrams_of

DOG, RUNS, CATS = ("a", "dog"), ("a", "dog", "runs"), ("two", "cats", "sit")


def test_ngrams_are_counted_up_to_four_tokens() -> None:
    counts = ngrams_of(("a", "b", "a", "b", "c"))
    assert counts[("a",)] == counts[("a", "b")] == 2
    assert counts[("b", "a", "b", "c")] == 1
    assert max(map(len, counts)) == 4
    assert sum(counts.values()) == 5 + 4 + 3 + 2


def test_a_reference_itself_scores_highest_and_only_for_its_own_picture() -> None:
    scorer = CiderD([[("a", "brown", "dog", "runs")], [("two", "cats", "sit", "down")]])
    assert scorer.score(("a", "brown", "dog", "runs"), 0) == pytest.approx(10)
    assert scorer.score(("a", "brown", "dog", "runs"), 1) == 0
    assert 0 < scorer.score(("a", "brown", "dog"), 0) < 10


def test_what_stands_under_every_picture_counts_for_nothing() -> None:
    scorer = CiderD([[DOG], [("a", "cat")]])
    assert scorer.score(("a",), 0) == 0
    assert scorer.score(("dog",), 0) > 0


def test_a_score_does_not_depend_on_what_was_scored_before() -> None:
    references = [[DOG, RUNS], [CATS], [("a", "man", "runs")]]
    used, fresh = CiderD(references), CiderD(references)
    for row in (0, 1, 2, 0):
        used.score(CATS, row)
    assert [used.score(RUNS, row) for row in range(3)] == [fresh.score(RUNS, row) for row in range(3)]


@pytest.mark.parametrize("references", [[], [[DOG], []]])
def test_without_references_there_is_nothing_to_score(references: list[list[tuple[str, ...]]]) -> None:
    with pytest.raises(ValueError, match="a reference for each"):
        CiderD(references)
