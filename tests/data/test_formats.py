"""A set's format is told from its path; where it cannot be, the message lists what is understood."""

import pytest

from foveal.data import UNDERSTOOD, check_captions, load_captions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.xml", "<a/>"),
        ("captions.pkl", b"\x80\x04N."),
        ("captions.parquet", b"PAR1"),
        ("set.tar.gz", b"\x1f\x8b"),
        ("other.json", {"captions": []}),
        ("list.json", "[]"),
        ("folder/notes.md", "nothing here"),
    ],
)
def test_an_unknown_format_is_refused_with_the_list_of_known_ones(write, tmp_path, name, content):
    path = write(name, content)
    path = tmp_path / "folder" if name.startswith("folder") else path
    (problem,) = check_captions(path)
    assert problem.where == str(path)
    assert UNDERSTOOD in problem.what
    with pytest.raises(ValueError, match="understood are"):
        load_captions(path)


def test_a_folder_around_a_manifest_points_at_the_manifest(make_pictures, write, tmp_path):
    make_pictures("set/images/a.png")
    manifest = write("set/manifest.jsonl", [{"image": "images/a.png", "text": "x"}])
    (problem,) = check_captions(tmp_path / "set")
    assert f"did you mean {manifest}?" in problem.what


def test_broken_json_names_the_line(write):
    path = write("dataset_x.json", '{"images": [\n{"filename": "a.png",}\n]}')
    (problem,) = check_captions(path)
    assert problem.where == f"{path}:2"


@pytest.mark.parametrize("path", ["no/such/set", "no/such/set.jsonl", "nul\0byte", "long" * 2000])
def test_a_path_that_does_not_exist_is_a_problem_and_not_a_crash(path):
    (problem,) = check_captions(path)
    assert problem.severity == "error"
    with pytest.raises(ValueError, match=r"does not exist|too long"):
        load_captions(path)


def test_a_tsv_with_a_header_is_a_manifest_even_where_it_is_called_like_flickr8k(make_pictures, write):
    make_pictures("a.png")
    path = write("captions_mine.tsv", "image\ttext\na.png\tx\n")
    assert load_captions(path)["texts"][0] == ["x"]
