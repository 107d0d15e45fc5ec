"""Tar shards are read in place: right captions and pictures, nothing unpacked, damage reported."""

import json
import os
import tarfile

import pytest

from foveal.data import check_captions, load_captions, record_picture
from foveal.picture import open_picture


def rows(path):
    return [
        (row["image"].partition(".tar/")[2], row["texts"], row["language"], row["split"]) for row in load_captions(path)
    ]


def said(path, severity="error"):
    return [problem.what for problem in check_captions(path) if problem.severity == severity]


def test_members_of_one_name_are_one_sample(make_shard, picture_bytes):
    shard = make_shard(
        "set.tar",
        ("0001.png", picture_bytes(1)),
        ("0001.txt", b"a dog\na brown dog\n"),
        ("0001.zh.txt", "一只狗".encode()),
        ("sub/0001.txt", b"a cat"),
        ("sub/0001.png", picture_bytes(2)),
        ("0002.json", json.dumps({"texts": ["x", "y"], "split": "val", "language": "de"}).encode()),
        ("0002.png", picture_bytes(3)),
    )
    assert rows(shard) == [
        ("0001.png", ["a dog", "a brown dog"], "en", "train"),
        ("0001.png", ["一只狗"], "zh", "train"),
        ("sub/0001.png", ["a cat"], "en", "train"),
        ("0002.png", ["x", "y"], "de", "val"),
    ]
    assert check_captions(shard) != []  # unlike numbers of captions
    assert said(shard) == []


def test_facts_in_json_hold_for_captions_in_text_files(make_shard, picture_bytes):
    facts = json.dumps({"split": "test", "language": "fr", "width": 5, "caption": None}).encode()
    shard = make_shard("set.tar", ("1.png", picture_bytes(1)), ("1.txt", b"un chien"), ("1.json", facts))
    assert rows(shard) == [("1.png", ["un chien"], "fr", "test")]


def test_pictures_come_out_of_the_shard_byte_for_byte(make_shard, picture_bytes):
    members = [(f"{i}.png", picture_bytes(i)) for i in range(4)]
    texts = [(f"{i}.txt", b"x") for i in range(4)]
    loaded = load_captions(make_shard("set.tar", *texts, *members))
    for i, row in enumerate(loaded):
        assert record_picture(row) == picture_bytes(i)
        assert open_picture(record_picture(row)).read()[:, 0, 0].tolist() == [i, 100, 200]


def test_a_folder_of_shards_takes_splits_from_their_names_and_folders(make_shard, picture_bytes, tmp_path):
    for i, name in enumerate(["train-0000.tar", "val-0000.tar", "test/0000.tar", "0001.tar"]):
        make_shard(f"set/{name}", ("1.png", picture_bytes(i)), ("1.txt", b"x"))
    splits = {os.path.relpath(row["shard"], tmp_path / "set"): row["split"] for row in load_captions(tmp_path / "set")}
    assert splits == {"train-0000.tar": "train", "val-0000.tar": "val", "test/0000.tar": "test", "0001.tar": "train"}


def test_names_that_point_outside_are_never_followed(make_shard, picture_bytes, tmp_path):
    inside = tmp_path / "set" / "deep"
    shard = make_shard(
        "set/deep/set.tar",
        ("../../escape.png", picture_bytes(1)),
        ("../../escape.txt", b"x"),
        (f"{tmp_path}/absolute.png", picture_bytes(2)),
        (f"{tmp_path}/absolute.txt", b"y"),
    )
    loaded = load_captions(shard)
    check_captions(shard)
    assert [record_picture(row) for row in loaded] == [picture_bytes(1), picture_bytes(2)]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "set", "set.tar"]
    assert list(inside.iterdir()) == [shard]


def test_links_and_devices_are_left_out_with_a_warning(make_shard, picture_bytes):
    link, device = tarfile.TarInfo("2.png"), tarfile.TarInfo("3.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    shard = make_shard("set.tar", ("1.png", picture_bytes(1)), ("1.txt", b"x"), link, device)
    assert [what.split(",")[0] for what in said(shard, "warning")] == ["is no plain file but a link"] * 2
    assert len(load_captions(shard)) == 1


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("2.txt", b"x")], "no picture of the same name"),
        ([("2.json", b"{}")], "no picture of the same name"),
        ([("2.png", b"\x89PNG"), ("2.txt", b"x")], "/2.png: "),
        ([("2.png", b""), ("2.txt", b"x")], "/2.png: "),
        ([("2.png", None), ("2.json", b"{")], "not JSON"),
        ([("2.png", None), ("2.json", b"[]")], "no JSON object"),
        ([("2.png", None), ("2.json", b'{"caption": "x"}')], "no 'text' or 'texts'"),
        ([("2.png", None), ("2.txt", b"\n")], "no caption"),
        ([("2.png", None), ("2.txt", b"caf\xe9")], "not valid UTF-8"),
        ([("2.png", None), ("2.xx.txt", b"x")], "unknown language 'xx'"),
        ([("2.png", None), ("2.txt", b"x" * (1 << 20) + b"x")], "too large"),
    ],
)
def test_a_bad_sample_is_an_error_that_names_its_member(make_shard, picture_bytes, members, words):
    filled = [(name, picture_bytes(9) if data is None else data) for name, data in members]
    shard = make_shard("set.tar", ("1.png", picture_bytes(1)), ("1.txt", b"x"), *filled)
    (problem,) = [problem for problem in check_captions(shard) if problem.severity == "error"]
    assert words in problem.what
    assert f"{shard}:2." in problem.where


def test_samples_without_captions_and_second_pictures_draw_warnings(make_shard, picture_bytes):
    shard = make_shard(
        "set.tar",
        ("1.png", picture_bytes(1)),
        ("1.jpg", picture_bytes(2)),
        ("1.json", b'{"text": "x"}'),
        ("1.txt", b"y"),
        ("2.png", picture_bytes(3)),
    )
    warnings = said(shard, "warning")
    assert [any(words in what for what in warnings) for words in ("second picture", "in the .json", "no .txt")] == [
        True
    ] * 3
    assert rows(shard) == [("1.png", ["x"], "en", "train")]


def test_a_shard_cut_short_or_overwritten_is_reported_and_its_sound_part_still_read(make_shard, picture_bytes):
    members = [("1.png", picture_bytes(1)), ("1.txt", b" "), ("2.png", picture_bytes(2)), ("2.txt", b"x")]
    shard = make_shard("set.tar", *members)
    whole = shard.read_bytes()
    with tarfile.open(shard) as archive:
        third, last = archive.getmembers()[2], archive.getmembers()[3]

    shard.write_bytes(whole[: third.offset_data + 10])
    found = said(shard)
    assert "damaged tar" in found[0]
    assert any("no caption" in what for what in found)

    shard.write_bytes(whole[: third.offset] + b"\x01" * 512 + whole[third.offset + 512 :])
    assert f"damaged at byte {third.offset}" in said(shard)[0]

    shard.write_bytes(whole[: last.offset_data + 512])
    assert "cut short" in said(shard, "warning")[0]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_tar_archive_is_one_error(write, content):
    assert len(said(write("set.tar", content))) == 1


def test_a_sample_name_that_is_not_utf8_is_reported_printably(make_shard, picture_bytes):
    shard = make_shard("set.tar", ("caf\udce9.png", picture_bytes(1)), ("caf\udce9.txt", b"x"))
    problems = check_captions(shard)
    assert any("not valid UTF-8" in problem.what for problem in problems)
    for problem in problems:
        str(problem).encode("utf-8")
