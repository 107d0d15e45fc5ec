"""Karpathy-split JSON: sentences, splits and where pictures are looked for."""

import pytest

from foveal.data import check_captions, load_captions


def image(name, split="train", *raws, **more):
    return {
        "filename": name,
        "split": split,
        "sentences": [{"raw": raw, "tokens": raw.split()} for raw in raws],
        **more,
    }


def test_sentences_become_texts_and_restval_counts_as_train(make_pictures, write):
    make_pictures("a.png", "images/b.png", "val2014/c.png", "images/val2014/d.png")
    path = write(
        "dataset_small.json",
        {
            "dataset": "small",
            "images": [
                image("a.png", "train", "A dog.", "A brown dog."),
                image("b.png", "restval", "A cat."),
                image("c.png", "val", "A cup.", filepath="val2014"),
                image("d.png", "test", "A car.", filepath="val2014"),
            ],
        },
    )
    loaded = load_captions(path)
    assert [(row["texts"], row["split"], row["language"]) for row in loaded] == [
        (["A dog.", "A brown dog."], "train", "en"),
        (["A cat."], "train", "en"),
        (["A cup."], "val", "en"),
        (["A car."], "test", "en"),
    ]
    endings = ["/a.png", "/images/b.png", "/val2014/c.png", "/images/val2014/d.png"]
    assert all(row["image"].endswith(ending) for row, ending in zip(loaded, endings, strict=True))


@pytest.mark.parametrize(
    ("bad", "place", "words"),
    [
        (7, "images[1]", "no JSON object"),
        ({"split": "train", "sentences": [{"raw": "x"}]}, "images[1]", "no 'filename'"),
        (image("b.png", 3, "x"), "images[1]", "must be text"),
        (image("b.png", "train"), "images[1]", "no list 'sentences'"),
        ({"filename": "b.png", "sentences": ["x"]}, "images[1].sentences[0]", "'raw'"),
        (image("b.png", "trainval", "x"), "images[1].sentences[0]", "unknown split"),
        (image("b.png", "train", " "), "images[1].sentences[0]", "empty caption"),
        (image("lost.png", "train", "x"), "images[1].sentences[0]", "lost.png"),
        (image("b.png", "train", "x\ud800"), "images[1].sentences[0]", "UTF-8"),
    ],
)
def test_a_bad_picture_is_named_by_its_place_in_the_document(make_pictures, write, bad, place, words):
    make_pictures("a.png", "b.png", "c.png")
    path = write("dataset_x.json", {"images": [image("a.png", "train", "x"), bad, image("c.png", "train", "x")]})
    (problem,) = check_captions(path)
    assert problem.where == f"{path}:{place}"
    assert words in problem.what
