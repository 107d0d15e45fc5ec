"""`load_captions` gives a data set of stable columns and order, and refuses what is broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from foveal.data import load_captions, record_picture

COLUMNS = {"image", "texts", "language", "split", "shard", "shard_offset", "shard_size"}


@pytest.fixture
def manifest(make_pictures, write):
    make_pictures("a.png", "b.png")
    return write(
        "m.jsonl",
        [
            {"image": "b.png", "text": "x", "split": "val"},
            {"image": "a.png", "text": "y"},
            {"image": "b.png", "text": "z", "split": "val", "language": "zh"},
        ],
    )


def test_columns_are_the_same_for_files_and_shards(manifest, make_shard, picture_bytes):
    shard = make_shard("s.tar", ("1.png", picture_bytes(1)), ("1.txt", b"x"))
    files, shards = load_captions(manifest), load_captions(shard)
    assert set(files.column_names) == COLUMNS
    assert files.features == shards.features


def test_rows_keep_the_order_of_the_set(manifest):
    assert load_captions(manifest)["texts"][:] == [["x"], ["y"], ["z"]]


def test_split_and_language_keep_what_is_asked_for(manifest):
    assert load_captions(manifest, split="val")["texts"][:] == [["x"], ["z"]]
    assert load_captions(manifest, split="validation", language="ZH")["texts"][:] == [["z"]]


def test_asking_for_what_is_not_there_says_what_is(manifest):
    with pytest.raises(ValueError, match=r"split 'test' and language 'zh'; it has: train in en, val in en, val in zh"):
        load_captions(manifest, split="test", language="zh")


def test_a_broken_set_is_refused_with_its_first_error_and_the_way_to_see_all(manifest):
    with open(manifest, "a") as file:
        file.write("{broken\n{also broken\n")
    with pytest.raises(ValueError, match="not JSON") as caught:
        load_captions(manifest)
    assert f"{manifest}:4: " in str(caught.value)
    assert f"`foveal data check {manifest}`" in str(caught.value)


def test_warnings_alone_do_not_keep_a_set_from_loading(make_pictures, write):
    make_pictures("a.png")
    path = write("m.jsonl", [{"image": "a.png", "text": "x" * 1000, "split": "val"}] * 2)
    assert len(load_captions(path)[0]["texts"]) == 2


def test_a_missing_picture_and_a_leak_between_splits_are_refused(make_pictures, write):
    make_pictures("a.png")
    with pytest.raises(ValueError, match=r"lost\.png does not exist"):
        load_captions(write("lost.jsonl", [{"image": "lost.png", "text": "x"}]))
    with pytest.raises(ValueError, match="it is in train at"):
        load_captions(write("leak.jsonl", [{"image": "a.png", "text": "x", "split": s} for s in ("train", "val")]))


def test_a_plain_record_with_an_image_is_enough_for_record_picture():
    assert record_picture({"image": "somewhere/a.png"}) == "somewhere/a.png"


def test_a_relative_path_gives_absolute_pictures(manifest, monkeypatch):
    monkeypatch.chdir(manifest.parent)
    assert load_captions("m.jsonl")["image"][0] == str(manifest.parent / "b.png")


def test_without_the_package_datasets_the_error_names_the_extra(manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'foveal\[train\]'"):
        load_captions(manifest)


def test_importing_the_room_does_not_import_datasets():
    source = Path(__file__).parents[2] / "src"
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import foveal.data; assert 'datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
