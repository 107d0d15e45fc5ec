import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from foveal.data import picture_set
from foveal.data.picture_set import PictureSet
from foveal.picture import PictureError, open_picture


@pytest.fixture
def make_archive(tmp_path: Path, picture_bytes: Callable[[int], bytes]) -> Callable[..., Path]:
    """Writes a zip archive of pictures of these names, each of another colour."""

    def make(name: str, *members: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for number, member in enumerate(members):
                archive.writestr(member, picture_bytes(number))
        return tmp_path / name

    return make


def colours(pictures: PictureSet) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


def test_files_folders_and_archives_are_one_sequence_in_name_order(
    tmp_path: Path, make_pictures: Callable[..., None], make_archive: Callable[..., Path]
) -> None:
    make_pictures("one/b.png", "one/deep/a.png", "one/a.png", "alone.png")  # colours 0, 1, 2, 3
    archive = make_archive("more.zip", "z.png", "folder/a.png")  # colours 0, 1

    pictures = PictureSet([tmp_path / "alone.png", tmp_path / "one", archive])

    assert len(pictures) == 6
    assert colours(pictures) == [3, 2, 0, 1, 1, 0]
    assert pictures[0].shape == (3, 4, 5)
    assert pictures[0].dtype == torch.uint8


def test_an_item_is_what_the_file_holds(tmp_path: Path) -> None:
    picture = torch.randint(0, 256, (3, 7, 9), dtype=torch.uint8)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "noise.png")

    assert torch.equal(PictureSet([tmp_path])[0], picture)


def test_a_path_given_twice_counts_twice_and_is_decoded_once(
    tmp_path: Path, make_pictures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures("a.png", "b.png")
    opened: list[object] = []
    monkeypatch.setattr(picture_set, "open_picture", lambda path, **how: opened.append(path) or open_picture(path))

    pictures = PictureSet([tmp_path, tmp_path])

    assert colours(pictures) == [0, 1, 0, 1]
    assert len(opened) == 2


def test_places_count_from_both_ends_and_end_where_the_set_ends(
    tmp_path: Path, make_pictures: Callable[..., None]
) -> None:
    make_pictures("a.png", "b.png")
    pictures = PictureSet([tmp_path])

    assert torch.equal(pictures[-1], pictures[1])
    with pytest.raises(IndexError):
        pictures[2]


def test_hidden_files_and_other_files_are_no_pictures(
    tmp_path: Path, make_pictures: Callable[..., None], make_archive: Callable[..., Path]
) -> None:
    make_pictures("in/a.png", "in/._a.png", "in/.hidden/b.png", "in/c.PNG")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "folder.png").mkdir()
    archive = make_archive("more.zip", "a.png", "__MACOSX/._a.png", "notes.txt")

    assert len(PictureSet([tmp_path / "in"])) == 2
    assert len(PictureSet([archive])) == 1


@pytest.mark.parametrize(("keep", "decoded"), [(True, 2), (False, 4)])
def test_pictures_are_decoded_once_unless_they_are_not_kept(
    keep: bool, decoded: int, tmp_path: Path, make_pictures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures("a.png", "b.png")
    opened = []
    monkeypatch.setattr(
        picture_set, "open_picture", lambda *args, **how: opened.append(1) or open_picture(*args, **how)
    )
    pictures = PictureSet([tmp_path], keep=keep)

    assert colours(pictures) == colours(pictures) == [0, 1]
    assert len(opened) == decoded


def test_no_more_is_kept_than_there_is_room_for(
    tmp_path: Path, make_pictures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures("a.png", "b.png", "c.png")
    monkeypatch.setattr(picture_set, "KEPT", 2 * 3 * 4 * 5)
    pictures = PictureSet([tmp_path])

    assert colours(pictures) == colours(pictures) == [0, 1, 2]
    assert len(pictures._kept) == 2


def test_a_stamp_changes_with_its_picture_alone(
    tmp_path: Path, make_pictures: Callable[..., None], make_archive: Callable[..., Path]
) -> None:
    make_pictures("in/a.png", "in/b.png")
    archive = make_archive("more.zip", "a.png", "b.png")
    paths = [tmp_path / "in", archive]
    before = PictureSet(paths).stamps()
    assert PictureSet(paths).stamps() == before

    (tmp_path / "in" / "a.png").write_bytes((tmp_path / "in" / "b.png").read_bytes())
    os.utime(tmp_path / "in" / "a.png", ns=(1, 1))
    make_archive("more.zip", "b.png", "a.png")  # the same names, the colours exchanged

    after = PictureSet(paths).stamps()
    assert [was == now for was, now in zip(before, after, strict=True)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent: no pictures there"),
        ("absent.zip", r"absent\.zip: no pictures there"),
        ("empty", "empty: no pictures there; expected a picture, a folder of pictures or a .zip of them"),
        ("broken.zip", r"broken\.zip: cannot be read as a .zip archive"),
    ],
)
def test_paths_without_pictures_are_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"no archive")

    with pytest.raises(PictureError, match=message):
        PictureSet([tmp_path / name])


def test_no_paths_are_refused() -> None:
    with pytest.raises(PictureError, match="no paths were given"):
        PictureSet([])


def test_a_picture_that_cannot_be_read_is_named(
    tmp_path: Path, make_archive: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    archive = make_archive("more.zip", "a.png")
    raw = bytearray(archive.read_bytes())
    raw[60] ^= 255  # inside the picture, so that its checksum does not hold
    (tmp_path / "damaged.zip").write_bytes(raw)
    pictures = PictureSet([tmp_path / "text.png", tmp_path / "damaged.zip", archive])

    with pytest.raises(PictureError, match=r"text\.png"):
        pictures[0]
    with pytest.raises(PictureError, match=r"damaged\.zip:a\.png: cannot be unpacked"):
        pictures[1]
    monkeypatch.setattr(picture_set, "LARGEST", 10)
    with pytest.raises(PictureError, match=r"more\.zip:a\.png: is larger than"):
        pictures[2]
