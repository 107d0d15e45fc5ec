"""Manifests as JSON lines, CSV and TSV give the same captions, and say which line is wrong."""

import pytest

from foveal.data import check_captions, load_captions


def rows(path, **kept):
    return [
        (row["image"].rsplit("/", 1)[1], row["texts"], row["language"], row["split"])
        for row in load_captions(path, **kept)
    ]


EXPECTED = [
    ("a.png", ["a dog", "a brown dog, running"], "en", "train"),
    ("a.png", ["一只狗"], "zh", "train"),
    ("b.png", ['a "red" cat'], "en", "val"),
]

JSON_LINES = """
{"image": "a.png", "text": "a dog"}
{"image": "a.png", "text": "一只狗", "language": "zh", "split": null}

{"image": "b.png", "texts": ["a \\"red\\" cat"], "split": "validation"}
{"image": "a.png", "texts": ["a  brown\\ndog, running "], "split": "train", "language": "EN", "source": "me"}
"""

COMMA = """split,image,text,language
,a.png,a dog,
train,a.png,一只狗,zh
dev,b.png,"a ""red"" cat",en

train,a.png,"a brown
dog, running",en
"""

TABS = """image\ttexts\tsplit\tlanguage
a.png\t["a dog"]\ttrain\ten
a.png\t["一只狗"]\ttrain\tzh
b.png\t["a \\"red\\" cat"]\tval\ten
a.png\t["a brown dog, running"]\ttrain\ten
"""


@pytest.mark.parametrize(("name", "content"), [("m.jsonl", JSON_LINES), ("m.csv", COMMA), ("m.tsv", TABS)])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_every_kind_of_manifest_gives_one_row_for_each_picture_and_language(make_pictures, write, name, content, mark):
    make_pictures("a.png", "b.png")
    path = write(name, mark + content)
    assert rows(path) == EXPECTED
    assert [problem for problem in check_captions(path) if problem.severity == "error"] == []


def test_windows_line_ends_are_read_as_others(make_pictures, write):
    make_pictures("a.png", "b.png")
    assert rows(write("m.csv", COMMA.replace("\n", "\r\n"))) == EXPECTED


def test_a_tsv_keeps_quotes_as_they_stand(make_pictures, write):
    make_pictures("a.png")
    path = write("m.tsv", 'image\ttext\na.png\t"Stop" on a sign\na.png\t"unclosed\n')
    assert rows(path) == [("a.png", ['"Stop" on a sign', '"unclosed'], "en", "train")]


def test_pictures_lie_relative_to_the_manifest_or_at_absolute_paths(make_pictures, write, tmp_path):
    make_pictures("pictures/a.png")
    path = write(
        "sets/m.jsonl",
        [
            {"image": "../pictures/a.png", "text": "x"},
            {"file_name": str(tmp_path / "pictures" / "a.png"), "text": "y"},
        ],
    )
    (row,) = load_captions(path)
    assert row["image"] == str(tmp_path / "pictures" / "a.png")
    assert row["texts"] == ["x", "y"]


def lines_of(problems):
    return [(int(problem.where.rsplit(":", 1)[1]), problem.what) for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"image": "a.png", "text": "x"', "not JSON"),
        ("[1, 2]", "a JSON list"),
        ('"x"', "a JSON string"),
        ("null", "a JSON null"),
        ("[" * 100_000, "nested too deeply"),
        ('{"image": "a.png"}', "no 'text' or 'texts'"),
        ('{"text": "x"}', "no 'image'"),
        ('{"image": 3, "text": "x"}', "'image' is 3"),
        ('{"image": " ", "text": "x"}', "'image' is ' '"),
        ('{"image": "a.png", "text": ["x"]}', "is called 'texts'"),
        ('{"image": "a.png", "texts": "x"}', "'texts' is 'x'"),
        ('{"image": "a.png", "texts": []}', "'texts' is []"),
        ('{"image": "a.png", "texts": ["x", 1]}', "'texts' is ['x', 1]"),
        ('{"image": "a.png", "text": ""}', "empty caption"),
        ('{"image": "a.png", "texts": ["x", " "]}', "empty caption"),
        ('{"image": "a.png", "text": "x", "split": 1}', "'split' is 1"),
        ('{"image": "a.png", "text": "x", "split": "trian"}', "did you mean 'train'"),
        ('{"image": "a.png", "text": "x", "language": "cn"}', "did you mean 'zh'"),
        ('{"image": "a.png", "text": "half \\ud83d a pair"}', "not valid UTF-8"),
        ('{"image": "lost.png", "text": "x"}', "lost.png"),
        ('{"image": "a\\u0000.png", "text": "x"}', r"a\x00.png"),
        (f'{{"image": "{"long" * 200}", "text": "x"}}', "longlong"),
    ],
)
@pytest.mark.parametrize("pictures", [True, False])
def test_a_bad_json_line_is_named_and_the_lines_after_it_are_still_read(make_pictures, write, line, said, pictures):
    make_pictures("a.png")
    good = '{"image": "a.png", "text": "good"}'
    path = write("m.jsonl", f'{good}\n{line}\n{good[:-1]}, "split": 7}}\n')
    first, last = lines_of(check_captions(path, pictures=pictures))
    assert first[0] == 2
    assert said in first[1]
    assert last == (3, "'split' is 7; expected text")


def test_bytes_that_are_not_utf8_are_named_by_line_in_json_and_in_tables(make_pictures, write):
    make_pictures("a.png")
    lines = b'{"image": "a.png", "text": "ok"}\n{"image": "a.png", "text": "caf\xe9"}\n\xff\xfe\n'
    assert [line for line, what in lines_of(check_captions(write("m.jsonl", lines))) if "UTF-8" in what] == [2, 3]
    table = b"image,text\na.png,ok\na.png,caf\xe9\n"
    assert [line for line, what in lines_of(check_captions(write("m.csv", table))) if "UTF-8" in what] == [3]
    wide = "image\ttext\na.png\tx\n".encode("utf-16")
    assert [line for line, what in lines_of(check_captions(write("m.tsv", wide))) if "UTF-8" in what] == [1]


def test_a_header_without_the_needed_columns_is_one_problem(write):
    ((line, what),) = lines_of(check_captions(write("m.csv", "\npicture,caption\na.png,x\nb.png,y\n")))
    assert line == 2
    assert "'image'" in what
    assert "'text' (or 'texts')" in what
    assert "'picture', 'caption'" in what


def test_a_table_separated_by_the_wrong_character_is_explained(write):
    ((_, what),) = lines_of(check_captions(write("m.tsv", "image,text\na.png,x\n")))
    assert "separated by tabs it names: 'image,text'" in what


def test_a_header_that_names_a_column_twice_is_refused(write):
    ((_, what),) = lines_of(check_captions(write("m.csv", "image,text,text\na.png,x,y\n")))
    assert "'text' more than once" in what


def test_a_row_with_another_number_of_columns_is_named_with_both_numbers(make_pictures, write):
    make_pictures("a.png")
    path = write("m.csv", "image,text\na.png,a dog, running\na.png\na.png,fine\n")
    assert [(line, what[:13]) for line, what in lines_of(check_captions(path))] == [
        (2, "has 3 columns"),
        (3, "has 1 columns"),
    ]


def test_a_quote_that_is_never_closed_is_named_at_the_line_where_it_opens(make_pictures, write):
    make_pictures("a.png")
    path = write("m.csv", 'image,text\na.png,fine\na.png,"open\na.png,lost\n')
    ((line, what),) = lines_of(check_captions(path))
    assert line == 3
    assert "not closed" in what


def test_after_a_field_that_runs_over_lines_the_numbers_are_those_of_the_file(make_pictures, write):
    make_pictures("a.png")
    path = write("m.csv", 'image,text\na.png,"one\ntwo"\nlost.png,x\n')
    assert [line for line, _ in lines_of(check_captions(path))] == [4]


def test_texts_in_a_table_that_are_no_json_list_are_named(make_pictures, write):
    make_pictures("a.png")
    path = write("m.tsv", 'image\ttexts\na.png\ta dog|a cat\na.png\t"a dog"\na.png\t["a dog"]\n')
    found = lines_of(check_captions(path))
    assert [line for line, _ in found] == [2, 3]
    assert "expected a list such as" in found[0][1]
