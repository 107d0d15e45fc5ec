"""Pictures without captions: folders and zip archives read as one sequence, decoded once and kept."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from foveal.picture import PictureError, open_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".avif", ".jp2")
KEPT = 8 << 30  # bytes
LARGEST = 512 << 20  # bytes of one picture in an archive, unpacked: what says more wants to fill the memory


class PictureSet(Sequence[Tensor]):
    """All pictures of some files, folders and zip archives, in name order; each item is (3, H, W) uint8.

    Args:
        paths: of pictures, folders (read through) and `.zip` archives. Hidden files are no pictures. A path that is
            given twice counts twice.
        keep: hold decoded pictures in memory, as far as 8 GiB go, so that later epochs decode nothing.

    Raises:
        PictureError: if a path does not exist or holds no picture; when an item cannot be read.

    Example:
        >>> len(PictureSet(["photos/", "more.zip"]))
        128
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, keep: bool = True) -> None:
        self.places = [place for path in paths for place in _places(Path(path))]
        if not self.places:
            raise PictureError("no paths were given; expected pictures, folders of pictures or .zip archives of them")
        self._kept: dict[tuple[str | None, str], Tensor] = {}
        self._room = KEPT if keep else 0
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        index = range(len(self.places))[index]  # negative ones count from the end, and one beyond it ends a loop
        place = archive, member = self.places[index]
        if place in self._kept:
            return self._kept[place]
        if archive is None:
            pixels = open_picture(member).read()
        else:
            pixels = open_picture(self._unpacked(archive, member), name=f"{archive}:{member}").read()
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._kept[place] = pixels
        return pixels

    def stamps(self) -> list[list[str | int | None]]:
        """What tells each picture from one that takes its place: archive, name, size, and time or checksum."""
        stamps: list[list[str | int | None]] = []
        for archive, member in self.places:
            if archive is None:
                status = os.stat(member)
                stamps.append([None, member, status.st_size, status.st_mtime_ns])
            else:
                info = self._archive(archive).getinfo(member)
                stamps.append([archive, member, info.file_size, info.CRC])
        return stamps

    def _archive(self, path: str) -> zipfile.ZipFile:
        if path not in self._archives:
            self._archives[path] = _opened(path)
        return self._archives[path]

    def _unpacked(self, archive: str, member: str) -> bytes:
        try:
            with self._lock:
                if self._archive(archive).getinfo(member).file_size > LARGEST:
                    raise PictureError(f"{archive}:{member}: is larger than {LARGEST >> 20} MiB; unpack it to a file")
                return self._archive(archive).read(member)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise PictureError(f"{archive}:{member}: cannot be unpacked ({error}); make the archive anew") from error


def _opened(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise PictureError(f"{path}: cannot be read as a .zip archive ({error})") from error


def _places(path: Path) -> list[tuple[str | None, str]]:
    found: list[tuple[str | None, str]]
    if path.suffix.lower() == ".zip" and path.is_file():
        with _opened(path) as archive:
            members = sorted(name for name in archive.namelist() if is_picture_name(PurePosixPath(name)))
        found = [(str(path), member) for member in members]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if is_picture_name(file.relative_to(path)) and file.is_file())
        found = [(None, str(file)) for file in files]
    else:
        found = [(None, str(path))] if path.is_file() else []
    if not found:
        raise PictureError(f"{path}: no pictures there; expected a picture, a folder of pictures or a .zip of them")
    return found


def is_picture_name(path: Path | PurePosixPath) -> bool:
    """Whether a file within a folder or archive is named as a picture is, and not hidden."""
    # macOS puts a "._photo.jpg" that is none beside each photo.jpg.
    return path.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in path.parts)
