"""Reading text that may be damaged: bytes that are not UTF-8 become lone surrogates, to be reported in their line."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from foveal.data.records import Problem

NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"

_SURROGATE = re.compile("[\ud800-\udfff]")

MAX_SIDECAR_BYTES = 1 << 20
"""A file of captions beside one picture that is larger than this is not read."""


def one_line(text: str) -> str:
    """A caption as one line: runs of white space become single spaces, none at the ends."""
    return " ".join(text.split())


def broken_characters(text: str) -> bool:
    """Tell whether text holds lone surrogates: bytes that were not UTF-8, or half a pair escaped in JSON."""
    return _SURROGATE.search(text) is not None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers from 1, without line ends. A byte-order mark is dropped."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\n")


def parse_json(text: str, *, where: str) -> tuple[object, Problem | None]:
    """Parse JSON; on failure the problem names the place. With `where` a file, its line is added."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        if broken_characters(text):
            return None, Problem(f"{where}:{error.lineno}", f"is {NOT_UTF8}")
        return None, Problem(f"{where}:{error.lineno}", f"is not JSON: {error.msg} (column {error.colno})")
    except RecursionError:
        return None, Problem(where, "is JSON nested too deeply to be a caption set")
    except ValueError as error:  # an integer of thousands of digits
        return None, Problem(where, f"is JSON that cannot be read: {error}")


def read_json(path: Path) -> tuple[object, Problem | None]:
    """Parse a whole JSON file, with the problem and its line on failure."""
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    return parse_json(text, where=str(path))


def sidecar_captions(data: bytes, *, where: str) -> Iterator[tuple[str, str] | Problem]:
    """Yield `(place, caption)` for each line of a caption file beside a picture; blank lines are skipped.

    Args:
        data: the file's bytes.
        where: the file's name, to which the line is added.
    """
    text, empty = data.decode("utf-8-sig", errors="surrogateescape"), True
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        place, caption = f"{where}:{number}", one_line(line)
        if not caption:
            continue
        empty = False
        yield place, caption
    if empty:
        yield Problem(f"{where}:1", "holds no caption; write one a line")
