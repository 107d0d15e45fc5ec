"""The Flickr8k files: headerless captions by language, pictures by split; the real ones where they are present."""

from collections import Counter

from foveal.data import check_captions, flickr8k, load_captions, record_picture
from foveal.picture import open_picture


def test_languages_come_from_the_names_of_the_caption_files(make_pictures, write, tmp_path):
    make_pictures("images/train/a.png", "images/val/b.png", "images/c.png")
    write(
        "captions_en.tsv",
        'a.png\t0\ttrain\tA "good" dog .\na.png\t1\ttrain\tA dog runs .\n'
        "b.png\t0\tval\tA cat .\nc.png\t0\ttrain\tA cup .\n",
    )
    write("captions_zh_human.tsv", "b.png\t0\tval\t一只猫。\n")
    assert [(row["image"], row["texts"], row["language"], row["split"]) for row in load_captions(tmp_path)] == [
        (str(tmp_path / "images/train/a.png"), ['A "good" dog .', "A dog runs ."], "en", "train"),
        (str(tmp_path / "images/val/b.png"), ["A cat ."], "en", "val"),
        (str(tmp_path / "images/c.png"), ["A cup ."], "en", "train"),
        (str(tmp_path / "images/val/b.png"), ["一只猫。"], "zh", "val"),
    ]
    assert len(load_captions(tmp_path / "captions_zh_human.tsv")) == 1


def test_bad_lines_are_named_in_every_file(make_pictures, write, tmp_path):
    make_pictures("images/train/a.png", "images/train/d.png")
    write("captions_en.tsv", "a.png\t0\ttrain\tx\na.png\t1\ttrain\n\t0\ttrain\tx\nlost.png\t0\ttrain\tx\n")
    write("captions_xx.tsv", b"a.png\t0\ttrain\tcaf\xe9\nd.png\t0\ttrian\ty\n")
    found = [(problem.where.rsplit("_", 1)[1], problem.what) for problem in check_captions(tmp_path)]
    for place, words in [
        ("en.tsv:2", "has 3 columns"),
        ("en.tsv:3", "names no picture"),
        ("en.tsv:4", "lost.png"),
        ("xx.tsv:1", "not valid UTF-8"),
        ("xx.tsv:1", "unknown language 'xx'"),
        ("xx.tsv:2", "unknown split 'trian'"),
    ]:
        assert any(where == place and words in what for where, what in found), (place, words)


def test_a_file_that_cannot_be_read_does_not_stop_the_next(make_pictures, write, tmp_path, monkeypatch):
    make_pictures("images/train/a.png")
    write("captions_en.tsv", "a.png\t0\ttrain\tx\n")
    write("captions_zh.tsv", "a.png\t0\ttrain\t\n")
    whole = flickr8k._read_file

    def failing(file, language):
        if file.name == "captions_en.tsv":
            raise PermissionError(13, "Permission denied", str(file))
        yield from whole(file, language)

    monkeypatch.setattr(flickr8k, "_read_file", failing)
    found = [problem.what for problem in check_captions(tmp_path) if problem.severity == "error"]
    assert found == ["cannot be read: Permission denied", "has an empty caption"]


def test_the_real_flickr8k_files_load_whole_in_both_languages(shared_data):
    loaded = load_captions(shared_data / "flickr8k")
    counts = Counter(zip(loaded["language"], loaded["split"], strict=True))
    assert counts == {("en", "train"): 6000, ("en", "val"): 1000, ("zh", "train"): 6000, ("zh", "val"): 1000}
    assert {len(texts) for texts in loaded["texts"]} == {5}
    chinese = load_captions(shared_data / "flickr8k", split="val", language="zh")
    assert len(chinese) == 1000
    assert open_picture(record_picture(chinese[0])).read().shape == (3, 224, 224)


def test_the_real_flickr8k_files_hold_no_error(shared_data):
    problems = check_captions(shared_data / "flickr8k", pictures=False)
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert all("repeats a caption" in problem.what for problem in problems)
