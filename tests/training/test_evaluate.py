"""Scores of a model on a caption set: of the right pictures, against the right references, with honest floors."""

import csv
import json

import pytest
from PIL import Image
from tiny import save_captions, save_tiny_model

from foveal import PictureError
from foveal.models.generation import load_describer
from foveal.training.evaluate import evaluate, most_frequent, rolled
from foveal.training.metrics import score_captions, score_each


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_describer(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    return save_captions(tmp_path_factory.mktemp("set"), train=5, val=4)


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def telling(model, monkeypatch):
    """The model answers with the number of each picture, which its height tells."""
    monkeypatch.setattr(
        type(model), "write", lambda self, glimpse, *, language, beams: [f"picture {n}" for n in self.numbers(glimpse)]
    )
    monkeypatch.setattr(
        type(model),
        "numbers",
        lambda self, glimpse: [round(40 * (h / w - 1) / (1 - 2 * h / w)) for h, w in glimpse.layout.pictures.tolist()],
        raising=False,
    )
    look = type(model).look
    monkeypatch.setattr(type(model), "look", lambda self, pictures: look(self, pictures, levels=9))
    return model


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_every_picture_s_caption_is_scored_against_its_own_references(telling, captions, tmp_path, batch):
    file = tmp_path / "each.jsonl"
    scores = evaluate(telling, captions, batch=batch, captions_file=file)
    rows = rows_of(file)
    assert [row["candidate"] for row in rows] == [f"picture {n}" for n in range(5, 9)]
    assert [row["image"].rsplit("/", 1)[1] for row in rows] == [f"{n}.png" for n in range(5, 9)]
    assert all(row["references"][1].endswith(f" {n}") for row, n in zip(rows, range(5, 9), strict=True))
    expected = score_captions([row["candidate"] for row in rows], [row["references"] for row in rows])
    assert {key: scores[key] for key in expected} == expected
    assert scores["distinct"] == 1.0
    assert scores["pictures"] == 4


def test_the_file_has_every_caption_s_own_scores_in_either_form(telling, captions, tmp_path):
    evaluate(telling, captions, captions_file=tmp_path / "each.jsonl")
    evaluate(telling, captions, captions_file=tmp_path / "each.csv")
    lines = rows_of(tmp_path / "each.jsonl")
    each = score_each([row["candidate"] for row in lines], [row["references"] for row in lines])
    assert [{key: row[key] for key in scores} for row, scores in zip(lines, each, strict=True)] == each
    with open(tmp_path / "each.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["references"].split("\n") for row in table] == [row["references"] for row in lines]
    assert [float(row["bleu_1"]) for row in table] == [row["bleu_1"] for row in lines]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["each.csv", "each.jsonl"]


def test_shuffled_no_picture_keeps_its_caption_and_none_is_lost(telling, captions, tmp_path):
    evaluate(telling, captions, shuffle=True, captions_file=tmp_path / "each.jsonl")
    told = [row["candidate"] for row in rows_of(tmp_path / "each.jsonl")]
    own = [f"picture {n}" for n in range(5, 9)]
    assert sorted(told) == own
    assert all(one != other for one, other in zip(told, own, strict=True))


@pytest.mark.parametrize("count", [2, 3, 4, 7, 1000])
def test_rolling_is_a_derangement(count):
    assert sorted(rolled(list(map(str, range(count))))) == sorted(map(str, range(count)))
    assert all(int(text) != place for place, text in enumerate(rolled(list(map(str, range(count))))))


def test_the_real_model_writes_in_the_language_asked_and_tells_what_was_scored(model, captions):
    moves = []
    scores = evaluate(model, captions, language="zh", beams=1, limit=3, batch=2, progress=lambda *at: moves.append(at))
    assert moves == [(2, 3), (3, 3)]
    said = {key: scores[key] for key in ("pictures", "split", "language", "beams", "shuffle")}
    assert said == {"pictures": 3, "split": "val", "language": "zh", "beams": 1, "shuffle": False}
    assert scores["seconds"] > 0
    assert {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "distinct"} <= scores.keys()


def test_the_most_frequent_caption_is_that_of_the_train_split(captions, tmp_path):
    scores = most_frequent(captions, language="zh", captions_file=tmp_path / "each.csv")
    assert scores["caption"] == "狗在草地上跑"  # of 3 of 5 pictures of train; val has both as often
    assert scores["pictures"] == 4
    assert scores["distinct"] == 0.25
    assert scores["bleu_1"] > 0.5
    with pytest.raises(ValueError, match="split 'train'"):
        most_frequent(save_captions(tmp_path / "set", train=0, val=2))


def test_spelling_does_not_split_the_most_frequent_caption(tmp_path):
    for name in "abcd":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    texts = {"a": ["A dog .", "a cat"], "b": ["a dog", "a cow"], "c": ["a cat", "a  DOG."], "d": ["a dog"]}
    rows = [
        {"image": f"{name}.png", "texts": said, "split": "val" if name == "d" else "train"}
        for name, said in texts.items()
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert most_frequent(tmp_path / "set.jsonl")["caption"] == "a dog"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"language": "fr"}, "this model writes en, zh"),
        ({"split": "test"}, "has no captions of split 'test'"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 1, "shuffle": True}, "one picture cannot be shuffled"),
        ({"beams": 0}, "beams is 0"),
        ({"captions_file": "each.txt"}, r"written as \.jsonl or \.csv"),
    ],
)
def test_impossible_requests_are_refused_before_any_work(model, captions, monkeypatch, wrong, message):
    monkeypatch.setattr(type(model), "look", lambda *_, **__: pytest.fail("it began to look"))
    with pytest.raises(ValueError, match=message):
        evaluate(model, captions, **wrong)


def test_a_picture_that_cannot_be_read_stops_it_and_leaves_no_file(model, tmp_path):
    captions = save_captions(tmp_path, train=0, val=3)
    damaged = tmp_path / "pictures" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with pytest.raises(PictureError, match=r"2\.png"):
        evaluate(model, captions, captions_file=tmp_path / "each.jsonl")
    assert not (tmp_path / "each.jsonl").exists()
