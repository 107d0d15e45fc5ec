"""Image folders: pictures with their captions in text files beside them, or in a `metadata` manifest.

The captions of `dog.jpg` are the lines of `dog.txt` (English), `dog.zh.txt` (Chinese) and so on. A folder that holds
`metadata.jsonl`, `metadata.csv` or `metadata.tsv` is described by it, subfolders included, as with Hugging Face's
`imagefolder`. Subfolders called `train`, `val` or `test` name the split of what they hold.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath

from foveal.data.manifest import read_manifest
from foveal.data.records import Entry, Item, PictureSource, Problem, unless_unreadable
from foveal.data.text_files import MAX_SIDECAR_BYTES, sidecar_captions
from foveal.data.vocabulary import DEFAULT_LANGUAGE, DEFAULT_SPLIT, LANGUAGES, split_of_folders

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")


def is_image_folder(root: Path) -> bool:
    """Tell whether a folder, or one below it, has a metadata file or a picture with captions beside it."""
    return any(
        _metadata(files) or any(_captioned(file, _pictures(files)) for file in files if file.suffix.lower() == ".txt")
        for _, files in _walk(root, (), set())
    )


def read_image_folder(root: Path) -> Iterator[Item]:
    """Yield the entries and problems of a folder of pictures, in the order of names, a folder before its subfolders.

    Raises:
        OSError: a folder cannot be read.
    """
    default = split_of_folders((root.resolve().name,), default=DEFAULT_SPLIT)
    for parts, files in _walk(root, (), set()):
        split = split_of_folders(parts, default=default)
        metadata = _metadata(files)
        for file in metadata:
            split_of_name = partial(_split_of_name, default=split)
            yield from unless_unreadable(file, read_manifest(file, split=split_of_name))
        if not metadata:
            yield from _read_sidecars(files, split)


def _walk(folder: Path, parts: tuple[str, ...], seen: set[str]) -> Iterator[tuple[tuple[str, ...], list[Path]]]:
    """Yield each folder's path below the root, as parts, with its files. Stops at metadata files and loops of links."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in found if path.is_file()]
    yield parts, files
    if not _metadata(files):
        for path in found:
            if path.is_dir():
                yield from _walk(path, (*parts, path.name), seen)


def _split_of_name(name: str, *, default: str) -> str:
    return split_of_folders(PurePath(name).parts[:-1], default=default)


def _metadata(files: list[Path]) -> list[Path]:
    return [file for file in files if file.name in METADATA_NAMES]


def _pictures(files: list[Path]) -> dict[str, list[Path]]:
    """Pictures by their name without its suffix."""
    pictures: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in PICTURE_SUFFIXES:
            pictures.setdefault(file.stem, []).append(file)
    return pictures


def _captioned(file: Path, pictures: dict[str, list[Path]]) -> tuple[str, str] | None:
    """Which picture a caption file belongs to, by name without suffix, and its language."""
    if file.stem in pictures:
        return file.stem, DEFAULT_LANGUAGE
    stem, _, language = file.stem.rpartition(".")
    if stem in pictures and language.lower() in LANGUAGES:
        return stem, language.lower()
    return None


def _read_sidecars(files: list[Path], split: str) -> Iterator[Item]:
    pictures = _pictures(files)
    captioned = set()
    for file in files:
        if file.suffix.lower() != ".txt":
            continue
        owner = _captioned(file, pictures)
        if owner is None:
            yield Problem(str(file), "is a text file without a picture of the same name, so it is left out", "warning")
            continue
        stem, language = owner
        captioned.add(stem)
        if len(pictures[stem]) > 1:
            names = ", ".join(picture.name for picture in pictures[stem])
            yield Problem(str(file), f"could caption each of {names}; give them different names")
        elif file.stat().st_size > MAX_SIDECAR_BYTES:
            yield Problem(str(file), f"is larger than {MAX_SIDECAR_BYTES} bytes, too large for one picture's captions")
        else:
            picture = PictureSource(os.path.abspath(pictures[stem][0]))
            yield from unless_unreadable(file, _read_sidecar(file, picture, language, split))
    for stem, paths in pictures.items():
        if stem not in captioned:
            for path in paths:
                yield Problem(str(path), f"has no captions in {stem}.txt beside it, so it is left out", "warning")


def _read_sidecar(file: Path, picture: PictureSource, language: str, split: str) -> Iterator[Item]:
    for caption in sidecar_captions(file.read_bytes(), where=str(file)):
        if isinstance(caption, Problem):
            yield caption
        else:
            where, text = caption
            yield Entry(where, picture, (text,), language, split)
