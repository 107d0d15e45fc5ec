"""Image folders: captions beside pictures, metadata files, and splits by the names of subfolders."""

import os

import pytest

from foveal.data import check_captions, load_captions


def rows(path, root):
    return [
        (os.path.relpath(row["image"], root), row["texts"], row["language"], row["split"])
        for row in load_captions(path)
    ]


def test_captions_lie_in_text_files_beside_the_pictures_one_a_line(make_pictures, write, tmp_path):
    make_pictures("set/a.png", "set/b.v2.PNG")
    write("set/a.txt", "a dog\n\n a brown dog \r\n")
    write("set/a.zh.txt", "一只狗")
    write("set/b.v2.txt", "\ufeffa cat")
    assert rows(tmp_path / "set", tmp_path / "set") == [
        ("a.png", ["a dog", "a brown dog"], "en", "train"),
        ("a.png", ["一只狗"], "zh", "train"),
        ("b.v2.PNG", ["a cat"], "en", "train"),
    ]


def test_subfolders_called_train_val_and_test_name_the_split(make_pictures, write, tmp_path):
    for folder in ("train/dogs", "validation", "test", "other"):
        make_pictures(f"set/{folder}/a.png")
        write(f"set/{folder}/a.txt", "x")
    found = {row[0]: row[3] for row in rows(tmp_path / "set", tmp_path / "set")}
    assert found == {
        "train/dogs/a.png": "train",
        "validation/a.png": "val",
        "test/a.png": "test",
        "other/a.png": "train",
    }


def test_a_folder_that_is_itself_called_val_is_the_val_split(make_pictures, write, tmp_path):
    make_pictures("val/a.png")
    write("val/a.txt", "x")
    assert rows(tmp_path / "val", tmp_path) == [("val/a.png", ["x"], "en", "val")]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_metadata_file_describes_its_folder_with_splits_by_path(make_pictures, write, tmp_path, kind):
    make_pictures("set/train/a.png", "set/val/b.png", "set/c.png")
    records = [("train/a.png", "one"), ("val/b.png", "two"), ("c.png", "three")]
    if kind == "jsonl":
        write("set/metadata.jsonl", [{"file_name": name, "text": text} for name, text in records])
    else:
        write("set/metadata.csv", "file_name,text\n" + "".join(f"{name},{text}\n" for name, text in records))
    assert [(row[0], row[1], row[3]) for row in rows(tmp_path / "set", tmp_path / "set")] == [
        ("train/a.png", ["one"], "train"),
        ("val/b.png", ["two"], "val"),
        ("c.png", ["three"], "train"),
    ]


def test_metadata_inside_a_split_folder_takes_that_split(make_pictures, write, tmp_path):
    make_pictures("set/train/a.png", "set/val/a.png")
    for split in ("train", "val"):
        write(f"set/{split}/metadata.jsonl", [{"image": "a.png", "texts": ["x"]}])
    assert [(row[0], row[3]) for row in rows(tmp_path / "set", tmp_path / "set")] == [
        ("train/a.png", "train"),
        ("val/a.png", "val"),
    ]


def test_pictures_without_captions_and_texts_without_pictures_draw_warnings(make_pictures, write, tmp_path):
    make_pictures("set/a.png", "set/lonely.png")
    write("set/a.txt", "x")
    write("set/readme.txt", "about this set")
    found = {os.path.basename(problem.where): problem.severity for problem in check_captions(tmp_path / "set")}
    assert found == {"lonely.png": "warning", "readme.txt": "warning"}


def test_an_empty_caption_file_is_an_error_at_its_first_line(make_pictures, write, tmp_path):
    make_pictures("set/a.png", "set/b.png")
    write("set/a.txt", " \n\n")
    write("set/b.txt", "fine")
    (problem,) = check_captions(tmp_path / "set")
    assert problem.where.endswith("a.txt:1")
    assert "no caption" in problem.what


def test_two_pictures_that_share_a_caption_file_are_an_error(make_pictures, write, tmp_path):
    make_pictures("set/a.png", "set/a.jpg")
    write("set/a.txt", "x")
    with pytest.raises(ValueError, match=r"a\.jpg, a\.png"):
        load_captions(tmp_path / "set")


def test_hidden_files_are_passed_over(make_pictures, write, tmp_path):
    make_pictures("set/a.png", "set/._a.png", "set/.cache/b.png")
    write("set/a.txt", "x")
    write("set/._a.txt", "y")
    assert check_captions(tmp_path / "set") == []
    assert len(load_captions(tmp_path / "set")) == 1


def test_a_loop_of_links_is_walked_once(make_pictures, write, tmp_path):
    make_pictures("set/a.png")
    write("set/a.txt", "x")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set", target_is_directory=True)
    assert len(load_captions(tmp_path / "set")) == 1


def test_a_caption_file_too_large_for_one_picture_is_not_read(make_pictures, write, tmp_path):
    make_pictures("set/a.png")
    write("set/a.txt", "x" * (1 << 20) + "x")
    (problem,) = [problem for problem in check_captions(tmp_path / "set") if problem.severity == "error"]
    assert "too large" in problem.what
