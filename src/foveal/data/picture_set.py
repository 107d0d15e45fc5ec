"""Pictures without captions: folders and zip archives read as one sequence, decoded once and kept."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from foveal.picture import PictureError, open_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class PictureSet(Sequence[Tensor]):
    """All pictures of some files, folders and zip archives, in name order; each item is (3, H, W) uint8.

    Args:
        paths: of pictures, folders (read through) and `.zip` archives.
        keep: hold decoded pictures in memory, so that later epochs decode nothing.

    Raises:
        PictureError: if a path does not exist or holds no picture; when an item cannot be read.

    Example:
        >>> len(PictureSet(["photos/", "more.zip"]))
        128
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, keep: bool = True) -> None:
        self.places = [place for path in paths for place in _places(Path(path))]
        self._keep, self._kept = keep, {}  # type: ignore[var-annotated]
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if index in self._kept:
            return self._kept[index]
        archive, member = self.places[index]
        if archive is None:
            pixels = open_picture(member).read()
        else:
            with self._lock:
                if archive not in self._archives:
                    self._archives[archive] = zipfile.ZipFile(archive)
                raw = self._archives[archive].read(member)
            pixels = open_picture(raw, name=f"{archive}:{member}").read()
        if self._keep:
            self._kept[index] = pixels
        return pixels


def _places(path: Path) -> list[tuple[str | None, str]]:
    if path.suffix.lower() == ".zip" and path.is_file():
        with zipfile.ZipFile(path) as archive:
            members = sorted(name for name in archive.namelist() if name.lower().endswith(SUFFIXES))
        found: list[tuple[str | None, str]] = [(str(path), member) for member in members]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        found = [(None, str(file)) for file in files]
    else:
        found = [(None, str(path))] if path.is_file() else []
    if not found:
        raise PictureError(f"{path}: no pictures there; expected a picture, a folder of pictures or a .zip of them")
    return found
