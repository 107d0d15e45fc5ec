"""Files that are there whole or not at all: written beside their place, renamed into it once they are complete."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w", *, newline: str | None = "\n") -> Iterator[IO[Any]]:
    r"""Opens a file for writing that takes its place only when the block ends without an error.

    Args:
        path: of the file; what is there already stays until then. A device or a pipe is written to as it is.
        mode: "w" for text (UTF-8) or "wb" for bytes.
        newline: line ends of a text; "" leaves them to the writer, as `csv` wants it.

    Raises:
        OSError: it cannot be written; nothing is left behind.

    Example:
        >>> with whole_file("scores.json") as file:
        ...     _ = file.write("{}\n")
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": newline}
    if os.path.exists(path) and not os.path.isfile(path):  # to rename over /dev/null would replace the device
        with open(path, mode, **text) as file:
            yield file
        return
    place = Path(os.path.realpath(path))  # behind a link, so that the link stays
    beside = place.with_name(f".{secrets.token_hex(8)}.part")  # a name longer than its own might be too long
    try:
        with open(beside, mode, **text) as file:
            yield file
        os.replace(beside, place)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == str(beside):
            error.filename = str(path)  # the name that is known outside
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def why_not_writable(path: str | os.PathLike[str]) -> str | None:
    """Says why a file cannot be written there, before long work that would end in it; None if it can."""
    place = Path(os.path.realpath(path))
    if os.path.isdir(place):
        return f"{path} is a folder; give a file in it"
    if not os.path.isdir(place.parent):
        return f"{path} cannot be written: there is no folder {place.parent}"
    try:
        os.lstat(place)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long for the disk, above all
        return f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
    if not os.access(place if os.path.exists(place) else place.parent, os.W_OK):
        return f"{path} cannot be written: permission denied"
    return None
