"""What is wrong with a caption set, line by line, before anything is trained on it."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foveal.data.formats import read_captions
from foveal.data.records import Entry, Item, PictureSource, Problem
from foveal.data.text import clean_caption
from foveal.data.text_files import NOT_UTF8, broken_characters
from foveal.data.vocabulary import DEFAULT_SPLIT, SPLITS, language_fault, split_fault
from foveal.picture import PictureError, open_picture

MAX_CHARACTERS = 400
"""A caption of more characters draws a warning: people describe a picture in fewer, and a model would cut it."""


def check_captions(
    path: str | os.PathLike[str],
    *,
    pictures: bool = True,
    max_characters: int = MAX_CHARACTERS,
    progress: Callable[[int, int], object] | None = None,
) -> list[Problem]:
    """Find everything that is wrong with a caption set.

    Errors: what cannot be parsed, missing columns, bytes that are not UTF-8, empty captions, unknown languages and
    splits, pictures that are missing, damaged or without area, one picture (by path, or byte for byte) in two splits,
    a set without captions. Warnings: captions that are repeated, very long or nothing but stops, no train split, unlike
    numbers of captions a picture, files that are left out.

    Args:
        path: a caption set in any format that `load_captions` reads.
        pictures: whether to decode every picture; without it only missing files are found, in a fraction of the time.
        max_characters: captions with more draw a warning.
        progress: called with (pictures looked at, pictures in all) after each picture.

    Returns:
        The problems in the order of the set, those of the set as a whole last; empty when nothing is wrong. A bad file
        never raises: it is a problem.

    Example:
        >>> check_captions("no/such/set.jsonl")
        [Problem(where='no/such/set.jsonl', what='does not exist', severity='error')]
    """
    items = list(read_captions(Path(path)))
    looks = _Looks(decode=pictures)
    total = len({item.picture for item in items if isinstance(item, Entry)})

    def look(picture: PictureSource) -> str | None:
        fault = looks(picture)
        if progress is not None:
            progress(looks.number, total)
        return fault

    return list(find_problems(items, str(path), look=look, digests=looks.digests, max_characters=max_characters))


def first_error(items: Iterable[Item], path: str) -> Problem | None:
    """Find the first thing that keeps a set from being used, without opening its pictures."""
    problems = find_problems(items, path, look=_Looks(decode=False), digests={}, max_characters=MAX_CHARACTERS)
    return next((problem for problem in problems if problem.severity == "error"), None)


def find_problems(
    items: Iterable[Item],
    path: str,
    *,
    look: Callable[[PictureSource], str | None],
    digests: dict[PictureSource, bytes],
    max_characters: int,
) -> Iterator[Problem]:
    """Yield the problems among a set's items, and those that only the items together show.

    Args:
        items: what `read_captions` yields.
        path: the set's name, as the place of problems of the whole.
        look: says what is wrong with a picture, or None; called once for each.
        digests: of the pictures' bytes, as far as `look` has filled them in.
        max_characters: captions with more draw a warning.
    """
    seen = _Seen()
    for item in items:
        if isinstance(item, Problem):
            seen.errors += item.severity == "error"
            yield item
            continue
        yield from _entry_problems(item, max_characters)
        if item.picture not in seen.splits:
            fault = look(item.picture)
            if fault is not None:
                yield Problem(item.where, fault)
        yield from seen.add(item, digests.get(item.picture))
    yield from seen.problems_of_the_whole(path)


def _entry_problems(entry: Entry, max_characters: int) -> Iterator[Problem]:
    if any(map(broken_characters, (entry.picture.image, *entry.texts))):
        yield Problem(entry.where, f"holds a caption or a picture's name that is {NOT_UTF8}")
    for text in entry.texts:
        if not text:
            yield Problem(entry.where, "has an empty caption")
        elif not clean_caption(text, entry.language):
            what = f"has a caption of which training keeps nothing, only white space and stops: '{text[:40]}'"
            yield Problem(entry.where, what, "warning")
        elif len(text) > max_characters:
            what = f"has a caption of {len(text)} characters, more than {max_characters}: '{text[:40]}...'"
            yield Problem(entry.where, what, "warning")
    for fault in (language_fault(entry.language), split_fault(entry.split)):
        if fault is not None:
            yield Problem(entry.where, fault)


@dataclass
class _Seen:
    """What the entries so far said, for the problems that take two of them."""

    errors: int = 0
    splits: dict[PictureSource, dict[str, str]] = field(default_factory=dict)  # picture -> split -> first place
    twins: dict[bytes, tuple[PictureSource, str, str]] = field(default_factory=dict)  # digest -> picture, split, place
    captions: dict[tuple[PictureSource, str, str], str] = field(default_factory=dict)  # caption -> first place
    counts: dict[str, Counter[PictureSource]] = field(default_factory=dict)  # language -> captions of each picture
    places: dict[tuple[str, PictureSource], str] = field(default_factory=dict)

    def add(self, entry: Entry, digest: bytes | None) -> Iterator[Problem]:
        """Remember an entry, yielding its conflicts with earlier ones."""
        picture, where = entry.picture, entry.where
        splits = self.splits.setdefault(picture, {})
        if entry.split in SPLITS and entry.split not in splits:
            for split, place in splits.items():
                yield Problem(where, f"has the picture {picture.image} in {entry.split}; it is in {split} at {place}")
            splits[entry.split] = where
            if digest is not None:
                twin, split, place = self.twins.setdefault(digest, (picture, entry.split, where))
                if twin != picture and split != entry.split:
                    yield Problem(
                        where,
                        f"has the picture {picture.image} in {entry.split}; byte for byte it is {twin.image}, "
                        f"in {split} at {place}",
                    )
        for text in entry.texts:
            first = self.captions.get((picture, entry.language, text))
            if first is None:
                self.captions[picture, entry.language, text] = where
            elif text:
                yield Problem(where, f"repeats a caption of the same picture from {first}: '{text[:40]}'", "warning")
        self.counts.setdefault(entry.language, Counter())[picture] += len(entry.texts)
        self.places.setdefault((entry.language, picture), where)

    def problems_of_the_whole(self, path: str) -> Iterator[Problem]:
        """Yield what only the whole set shows."""
        if not self.splits:
            if not self.errors:
                yield Problem(path, "holds no captions")
            return
        names = sorted({split for splits in self.splits.values() for split in splits})
        if names and DEFAULT_SPLIT not in names:
            what = f"has no train split (only {', '.join(names)}): it can be evaluated on but not trained on"
            yield Problem(path, what, "warning")
        for language, counts in self.counts.items():
            usual = Counter(counts.values()).most_common(1)[0][0]
            odd = [picture for picture, count in counts.items() if count != usual]
            if odd:
                place = self.places[language, odd[0]]
                what = (
                    f"has unlike numbers of captions a picture in {language!r}: {usual} for most, another number for "
                    f"{len(odd)} of {len(counts)}, first {counts[odd[0]]} at {place}"
                )
                yield Problem(path, what, "warning")


class _Looks:
    """Looks at pictures, one by one, and remembers how many it has seen and what their bytes add up to."""

    def __init__(self, *, decode: bool) -> None:
        self.decode = decode
        self.number = 0
        self.digests: dict[PictureSource, bytes] = {}

    def __call__(self, picture: PictureSource) -> str | None:
        """Say what is wrong with a picture, or None."""
        self.number += 1
        if not self.decode:
            there = os.path.isfile(picture.shard or picture.image)
            return None if there else f"the picture {picture.image} does not exist"
        try:
            contents = picture.contents()
            open_picture(contents, name=picture.image).read()
            self.digests[picture] = _digest(contents)
        except PictureError as error:
            return f"the picture {error}"
        except (OSError, ValueError, MemoryError) as error:  # a file that goes away meanwhile, or is past this machine
            return f"the picture {picture.image} cannot be read: {error or type(error).__name__}"
        return None


def _digest(contents: str | bytes) -> bytes:
    if isinstance(contents, bytes):
        return hashlib.sha256(contents).digest()
    with open(contents, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
