"""COCO captions JSON: annotations meet their pictures, the split comes from the file's name."""

import pytest

from foveal.data import check_captions, load_captions


def document(*captions, images=({"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"})):
    annotations = [{"id": i, "image_id": key, "caption": text} for i, (key, text) in enumerate(captions)]
    return {"info": {}, "images": list(images), "annotations": annotations}


@pytest.mark.parametrize(
    ("file", "pictures", "split"),
    [
        ("captions_train2017.json", "", "train"),
        ("captions_val2017.json", "val2017/", "val"),
        ("annotations/captions_val2014.json", "val2014/", "val"),
        ("annotations/captions_train2014.json", "images/train2014/", "train"),
        ("mine.json", "images/", "train"),
    ],
)
def test_annotations_are_gathered_by_picture_in_the_usual_folders(
    make_pictures, write, tmp_path, file, pictures, split
):
    make_pictures(f"{pictures}a.png", f"{pictures}b.png")
    loaded = load_captions(write(file, document((2, "a cat"), (1, "a dog"), (2, "a red cat\n"))))
    assert [(row["image"], row["texts"], row["split"]) for row in loaded] == [
        (str(tmp_path / f"{pictures}b.png"), ["a cat", "a red cat"], split),
        (str(tmp_path / f"{pictures}a.png"), ["a dog"], split),
    ]


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (document((1, "x"), (2, "y"), (3, "z")), "annotations[2]", "points at the picture 3"),
        (document((1, "x"), (2, "y"), ([1], "z")), "annotations[2]", "points at the picture [1]"),
        (document((1, "x"), (2, "y"), (1, 5)), "annotations[2]", "no caption as text"),
        (document((1, "x"), (2, "")), "annotations[1]", "empty caption"),
        (document((1, "x"), images=[{"id": 1, "file_name": "a.png"}, {"id": 2}]), "images[1]", "'file_name'"),
        (document((1, "x"), images=[{"id": 1, "file_name": "a.png"}, "b.png"]), "images[1]", "'file_name'"),
        (
            document((1, "x"), images=[{"id": 1, "file_name": n} for n in ("a.png", "b.png")]),
            "images[1]",
            "has the id 1",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_at_its_place(make_pictures, write, content, place, words):
    make_pictures("a.png", "b.png")
    path = write("captions_train.json", content)
    (problem,) = [problem for problem in check_captions(path) if problem.severity == "error"]
    assert problem.where == f"{path}:{place}"
    assert words in problem.what


def test_pictures_without_annotations_draw_a_warning(make_pictures, write):
    make_pictures("a.png", "b.png")
    path = write("captions_train.json", document((1, "x")))
    (problem,) = check_captions(path)
    assert (problem.where, problem.severity) == (f"{path}:images[1]", "warning")
