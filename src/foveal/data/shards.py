"""WebDataset tar shards: members that share a name up to its first dot are one sample.

A sample is a picture (`000001.jpg`) with `000001.txt` (one caption a line; `000001.zh.txt` for Chinese) or with
`000001.json` (`text` or `texts`, `split`, `language`). Nothing is ever unpacked: a picture is remembered as a stretch
of bytes of the shard, and read from there, so names inside the archive never become paths.
See Aizman et al., "High Performance I/O for Large Scale Deep Learning" (IEEE Big Data 2019).
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from foveal.data.fields import entries_of_fields
from foveal.data.folder import PICTURE_SUFFIXES
from foveal.data.records import Item, PictureSource, Problem, unless_unreadable
from foveal.data.text_files import MAX_SIDECAR_BYTES, parse_json, sidecar_captions
from foveal.data.vocabulary import DEFAULT_LANGUAGE, DEFAULT_SPLIT, normal_language, split_in, split_of_folders

_BLOCK = 512  # a tar archive is a row of blocks of this many bytes, the last two of them zero


def shard_files(folder: Path) -> list[Path]:
    """The `.tar` files of a folder and of its subfolders, one level deep, in the order of their names."""
    return sorted(path for pattern in ("*.tar", "*/*.tar") for path in folder.glob(pattern) if path.is_file())


def read_shards(path: Path) -> Iterator[Item]:
    """Yield the entries and problems of one shard, or of all in a folder.

    The split is what a sample's JSON says, else what the folder or the shard's name says (`val-0003.tar`), else train.
    """
    if not path.is_dir():
        yield from _read_shard(path, split_in(path.stem) or DEFAULT_SPLIT)
        return
    for shard in shard_files(path):
        folders = (*shard.relative_to(path).parts[:-1], path.resolve().name)
        split = split_in(shard.stem) or split_of_folders(folders, default=DEFAULT_SPLIT)
        yield from unless_unreadable(shard, _read_shard(shard, split))


@dataclass
class _Sample:
    """The members of one sample, by what they are."""

    pictures: list[tarfile.TarInfo] = field(default_factory=list)
    captions: list[tuple[tarfile.TarInfo, str]] = field(default_factory=list)
    fields: list[tarfile.TarInfo] = field(default_factory=list)


def _read_shard(shard: Path, split: str) -> Iterator[Item]:
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                problem = _sort_in(member, samples, shard)
                if problem is not None:
                    yield problem
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        yield Problem(str(shard), f"is a damaged tar archive, or compressed, which shards must not be: {error}")
    else:
        yield from _end_problems(shard, end)
    with open(shard, "rb") as file:
        for sample in samples.values():
            yield from _read_sample(sample, shard, file, split)


def _sort_in(member: tarfile.TarInfo, samples: dict[str, _Sample], shard: Path) -> Problem | None:
    """Put a member with its sample; what is no plain file is a problem."""
    if member.isdir():
        return None
    where = f"{shard}:{member.name}"
    if not member.isreg() or member.issparse():
        return Problem(where, "is no plain file but a link, a device or sparse, so it is left out", "warning")
    folder, name = os.path.split(member.name)
    stem, _, ending = name.partition(".")
    ending = ending.lower()
    if not stem or not ending:
        return None  # hidden files and such, which other tools leave in archives
    sample = samples.setdefault(f"{folder}/{stem}", _Sample())
    if f".{ending.rpartition('.')[2]}" in PICTURE_SUFFIXES:
        sample.pictures.append(member)
    elif ending == "json":
        sample.fields.append(member)
    elif ending == "txt":
        sample.captions.append((member, ""))  # the language of the JSON beside it, or the default
    elif ending.endswith(".txt"):
        sample.captions.append((member, normal_language(ending.removesuffix(".txt"))))
    return None


def _end_problems(shard: Path, end: int) -> Iterator[Problem]:
    """A reader stops without a word at a header that makes no sense, so look at what it stopped at."""
    with open(shard, "rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
    if block.strip(b"\0"):
        yield Problem(str(shard), f"is damaged at byte {end}, which is no tar header; write the shard again")
    elif not block:
        yield Problem(str(shard), "ends without the closing zero blocks; it may have been cut short", "warning")


def _read_sample(sample: _Sample, shard: Path, file: BinaryIO, split: str) -> Iterator[Item]:
    texts = [member for member, _ in sample.captions] + sample.fields
    if not sample.pictures:
        for member in texts:
            yield Problem(f"{shard}:{member.name}", "has no picture of the same name in this shard")
        return
    first, *others = sample.pictures
    for other in others:
        yield Problem(f"{shard}:{other.name}", f"is a second picture beside {first.name}, so it is left out", "warning")
    if not texts:
        yield Problem(f"{shard}:{first.name}", "has no .txt or .json in this shard, so it is left out", "warning")
        return
    absolute = os.path.abspath(shard)
    picture = PictureSource(f"{absolute}/{first.name}", absolute, first.offset_data, first.size)
    facts: dict[str, object] = {}
    captioned = False
    for member in sample.fields:
        where = f"{shard}:{member.name}"
        fields = _parse_fields(_read_text(file, member, where), where)
        if isinstance(fields, Problem):
            yield fields
            continue
        facts = fields
        # With captions in text files, the JSON may hold no more than facts about them.
        captioned = "text" in fields or "texts" in fields
        if captioned or not sample.captions:
            yield from _entries(fields, where, picture, split)
    for member, language in sample.captions:
        where = f"{shard}:{member.name}"
        data = _read_text(file, member, where)
        if isinstance(data, Problem):
            yield data
        elif captioned:
            yield Problem(where, "is left out, since the captions stand in the .json beside it", "warning")
        else:
            for caption in sidecar_captions(data, where=where):
                if isinstance(caption, Problem):
                    yield caption
                else:
                    chosen = {"split": facts.get("split"), "language": language or facts.get("language")}
                    yield from _entries({"text": caption[1], **chosen}, caption[0], picture, split)


def _entries(fields: dict[str, object], where: str, picture: PictureSource, split: str) -> Iterator[Item]:
    yield from entries_of_fields(
        fields, where=where, picture=picture, split=lambda name: split, language=DEFAULT_LANGUAGE
    )


def _read_text(file: BinaryIO, member: tarfile.TarInfo, where: str) -> bytes | Problem:
    if member.size > MAX_SIDECAR_BYTES:
        return Problem(where, f"is larger than {MAX_SIDECAR_BYTES} bytes, too large for one picture's captions")
    file.seek(member.offset_data)
    return file.read(member.size)


def _parse_fields(data: bytes | Problem, where: str) -> dict[str, object] | Problem:
    if isinstance(data, Problem):
        return data
    fields, problem = parse_json(data.decode("utf-8-sig", errors="surrogateescape"), where=where)
    if problem is not None:
        return problem
    return fields if isinstance(fields, dict) else Problem(where, 'is no JSON object such as {"text": ...}')
