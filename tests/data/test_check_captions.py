"""`check_captions` finds each kind of trouble, at its line, without stopping and without raising."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from foveal.data import Problem, check_captions


def found(path, **options):
    """Line numbers (0 for the whole set), severities and words of all problems."""
    problems = check_captions(path, **options)
    lines = [problem.where.removeprefix(str(path)).removeprefix(":") or "0" for problem in problems]
    return [(int(line), problem.severity, problem.what) for line, problem in zip(lines, problems, strict=True)]


def test_a_sound_set_has_no_problem(make_pictures, write):
    make_pictures("a.png", "b.png")
    records = [{"image": "a.png", "text": "x"}, {"image": "b.png", "text": "x", "split": "val"}]
    assert check_captions(write("m.jsonl", records)) == []


def test_all_problems_are_found_in_the_order_of_the_lines(make_pictures, write, tmp_path):
    make_pictures("a.png", "c.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    path = write(
        "m.jsonl",
        [
            {"image": "a.png", "text": "x"},
            {"image": "lost.png", "text": "x"},
            {"image": "cut.png", "text": "x"},
            {"image": "text.png", "text": "x"},
            {"image": "empty.png", "text": "x"},
            {"image": "a.png", "text": ""},
            {"image": "c.png", "text": "y" * 401},
            {"image": "c.png", "text": "y", "language": "xx", "split": "holdout"},
        ],
    )
    problems = [(line, severity) for line, severity, _ in found(path) if line]
    assert problems == [
        (2, "error"),
        (3, "error"),
        (4, "error"),
        (5, "error"),
        (6, "error"),
        (7, "warning"),
        (8, "error"),
        (8, "error"),
    ]


def test_without_pictures_only_missing_files_are_looked_for(make_pictures, write, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    path = write("m.jsonl", [{"image": "text.png", "text": "x"}, {"image": "lost.png", "text": "x"}])
    assert [line for line, _, _ in found(path, pictures=False)] == [2]
    assert [line for line, _, _ in found(path)] == [1, 2]


def test_a_bad_picture_is_reported_once_at_its_first_line(write):
    path = write("m.jsonl", [{"image": "lost.png", "text": text} for text in "abc"])
    assert [line for line, _, _ in found(path)] == [1]


def test_the_same_picture_in_two_splits_is_an_error_that_names_both_lines(make_pictures, write):
    make_pictures("a.png")
    path = write(
        "m.jsonl", [{"image": "a.png", "text": t, "split": s} for t, s in [("x", "train"), ("y", "val"), ("z", "val")]]
    )
    ((line, severity, what),) = [one for one in found(path) if one[0]]
    assert (line, severity) == (2, "error")
    assert f"in train at {path}:1" in what


def test_a_copy_of_a_picture_in_another_split_is_found_by_its_bytes(make_pictures, write, tmp_path):
    make_pictures("a.png")
    for copy in ("copy.png", "twin.png"):
        (tmp_path / copy).write_bytes((tmp_path / "a.png").read_bytes())
    path = write(
        "m.jsonl",
        [
            {"image": "a.png", "text": "x"},
            {"image": "twin.png", "text": "x"},
            {"image": "copy.png", "text": "x", "split": "val"},
        ],
    )
    ((line, severity, what),) = found(path)
    assert (line, severity) == (3, "error")
    assert "byte for byte" in what
    assert "a.png" in what


def test_a_copy_in_another_shard_is_found_by_its_bytes(make_shard, picture_bytes, tmp_path):
    for split in ("train", "val"):
        make_shard(f"set/{split}.tar", ("1.png", picture_bytes(1)), ("1.txt", b"x"))
    (problem,) = check_captions(tmp_path / "set")
    assert "byte for byte" in problem.what


def test_repeated_captions_draw_a_warning_at_the_second_line(make_pictures, write):
    make_pictures("a.png", "b.png")
    path = write(
        "m.jsonl",
        [
            {"image": "a.png", "texts": ["a dog", "a  dog"]},
            {"image": "b.png", "text": "a dog"},
            {"image": "b.png", "text": "a dog"},
        ],
    )
    assert [(line, severity) for line, severity, what in found(path) if "repeats" in what] == [
        (1, "warning"),
        (3, "warning"),
    ]


def test_the_longest_caption_allowed_can_be_chosen(make_pictures, write):
    make_pictures("a.png")
    path = write("m.jsonl", [{"image": "a.png", "text": "12345"}])
    assert found(path, max_characters=5) == []
    assert [severity for _, severity, _ in found(path, max_characters=4)] == ["warning"]


def test_a_caption_of_stops_draws_a_warning(make_pictures, write):
    make_pictures("a.png")
    path = write("m.jsonl", [{"image": "a.png", "text": " . ."}])
    ((line, severity, what),) = found(path)
    assert (line, severity) == (1, "warning")
    assert "training keeps nothing" in what


def test_a_set_without_train_split_draws_a_warning_for_the_whole(make_pictures, write):
    make_pictures("a.png")
    ((line, severity, what),) = found(write("m.jsonl", [{"image": "a.png", "text": "x", "split": "test"}]))
    assert (line, severity) == (0, "warning")
    assert "no train split (only test)" in what


def test_unlike_numbers_of_captions_draw_one_warning_a_language(make_pictures, write):
    make_pictures("a.png", "b.png", "c.png")
    records = [{"image": f"{name}.png", "texts": list(texts)} for name, texts in [("a", "xy"), ("b", "x"), ("c", "xy")]]
    path = write("m.jsonl", records + [{**record, "texts": ["z"], "language": "zh"} for record in records])
    ((line, severity, what),) = found(path)
    assert (line, severity) == (0, "warning")
    assert "'en': 2 for most, another number for 1 of 3" in what
    assert f"{path}:2" in what


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_set_without_any_caption_is_an_error(write, content):
    assert [(line, severity) for line, severity, _ in found(write("m.jsonl", content))] == [(0, "error")]


def test_a_picture_past_the_limit_of_pixels_is_an_error_not_a_crash(write, tmp_path, monkeypatch):
    # A header that claims 60,000 x 60,000 pixels on a file of a few bytes.
    Image.new("L", (1, 1)).save(tmp_path / "bomb.bmp")
    data = bytearray((tmp_path / "bomb.bmp").read_bytes())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(bytes(data))
    assert [line for line, _, _ in found(write("m.jsonl", [{"image": "bomb.bmp", "text": "x"}]))] == [1]


def test_progress_is_told_after_every_picture(make_pictures, write):
    make_pictures("a.png", "b.png")
    path = write("m.jsonl", [{"image": f"{name}.png", "text": text} for name in "ab" for text in "xy"])
    told = []
    check_captions(path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_problems_print_on_one_line_whatever_names_hold():
    problem = Problem("a\n\x1b[31m\udce9", "b\x07", "warning")
    assert str(problem) == r"a\n\x1b[31m\udce9: warning: b\x07"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    b'{"image": "a.png", "text": "x"}',
                    b'"',
                    b"image,text",
                    b"a.png,x",
                    b"\t",
                    b"{",
                    b"[",
                    b"\xff",
                    b"\0",
                    b"\r\n",
                ]
            ),
            max_size=8,
        ).map(b"\n".join),
    ),
    name=st.sampled_from(["m.jsonl", "m.csv", "m.tsv", "captions_en.tsv", "dataset_x.json", "s.tar"]),
)
def test_no_content_of_a_file_makes_the_check_raise(write, make_pictures, tmp_path, content, name):
    if not (tmp_path / "a.png").exists():
        make_pictures("a.png")
    for problem in check_captions(write(name, content)):
        str(problem).encode("utf-8")
