"""What every format's reader yields: entries (captions of one picture, with their place) and problems."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a caption set, and where.

    Attributes:
        where: the place, as `file:line`; inside a JSON document `file:images[3]`, inside a shard `shard.tar:member`.
        what: one sentence of what was found and, where it helps, what was expected.
        severity: "error" where the set cannot be used as it is, else "warning".
    """

    where: str
    what: str
    severity: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        # Names and captions come from outside: what would garble a terminal, or cannot be encoded, is shown escaped.
        object.__setattr__(self, "where", _printable(self.where).replace("\n", "\\n"))
        object.__setattr__(self, "what", _printable(self.what))

    def __str__(self) -> str:
        return f"{self.where}: {self.severity}: {self.what}"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


@dataclass(frozen=True)
class PictureSource:
    """Where a picture's encoded bytes lie: a file, or a stretch of an uncompressed tar shard.

    Attributes:
        image: absolute path of the file; for a shard, the shard's path and the member's name, joined by `/`.
        shard: absolute path of the shard, empty for a plain file.
        offset: first byte in the shard.
        size: number of bytes in the shard.
    """

    image: str
    shard: str = ""
    offset: int = 0
    size: int = 0

    def contents(self) -> str | bytes:
        """Give what `foveal.open_picture` takes: the path, or the bytes read from the shard.

        Raises:
            OSError: the shard cannot be read.
        """
        if not self.shard:
            return self.image
        with open(self.shard, "rb") as shard:
            shard.seek(self.offset)
            return shard.read(self.size)


@dataclass(frozen=True)
class Entry:
    """One or more captions of one picture in one language, from one place of a set."""

    where: str
    picture: PictureSource
    texts: tuple[str, ...]
    language: str
    split: str


Item: TypeAlias = Entry | Problem
"""What readers yield, in the order of the file."""


def file_source(folder: Path, name: str) -> PictureSource:
    """Name a picture file by its path relative to a folder (an absolute name stays)."""
    return PictureSource(os.path.abspath(folder / name))


def find_picture(folders: Iterable[Path], name: str) -> PictureSource:
    """Name a picture file in the first folder that has it; where none has, in the first."""
    sources = [file_source(folder, name) for folder in folders]
    return next((source for source in sources if os.path.isfile(source.image)), sources[0])


def unless_unreadable(path: Path, items: Iterable[Item]) -> Iterator[Item]:
    """Yield what is read from one file; a failure to read it becomes a problem, so that others are still read."""
    try:
        yield from items
    except OSError as error:
        yield Problem(str(error.filename or path), f"cannot be read: {error.strerror or error}")
