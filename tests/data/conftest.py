"""Tiny pictures and caption sets for the tests of `foveal.data`."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


def encode(number: int, form: str = "PNG") -> bytes:
    """An encoded picture of 5 x 4 pixels, different for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (number % 256, 100, 200)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def picture_bytes() -> Callable[[int], bytes]:
    """Makes an encoded picture, different for each number from 0 to 255."""
    return encode


@pytest.fixture
def make_pictures(tmp_path: Path) -> Callable[..., None]:
    """Writes pictures of these names under the test's folder, each of another colour."""
    made = iter(range(256))

    def make(*names: str) -> None:
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(next(made)))

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, object], Path]:
    """Writes a file under the test's folder: bytes, text, a list of records as JSON lines, or a JSON document."""

    def write_file(name: str, content: object) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        elif isinstance(content, list):
            file.write_text("".join(json.dumps(record) + "\n" for record in content), encoding="utf-8")
        else:
            file.write_text(json.dumps(content), encoding="utf-8")
        return file

    return write_file


@pytest.fixture
def make_shard(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tar shard of members given as `(name, bytes)`, or as ready `TarInfo`s without content."""

    def make(name: str, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member)
                else:
                    info = tarfile.TarInfo(member[0])
                    info.size = len(member[1])
                    archive.addfile(info, io.BytesIO(member[1]))
        return file

    return make
