"""A caption set as a Hugging Face data set: one row for each picture and language."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.data.check import first_error
from foveal.data.formats import read_captions
from foveal.data.records import Entry, PictureSource
from foveal.data.vocabulary import normal_language, normal_split

if TYPE_CHECKING:
    import datasets


def load_captions(
    path: str | os.PathLike[str], *, split: str | None = None, language: str | None = None
) -> "datasets.Dataset":
    """Load a caption set: a manifest, an image folder, tar shards, Karpathy or COCO JSON, or the Flickr8k files.

    Pictures stay where they are: a row says where, and `record_picture` gives what `foveal.open_picture` takes. All
    of the set's text is checked on the way, and that picture files exist; `check_captions` says more.

    Args:
        path: the file or folder; its format is told from its name and what it holds.
        split: keep only this one (`train`, `val` or `test`).
        language: keep only this one (ISO 639-1 code, such as `en`, `zh`).

    Returns:
        One row for each picture, language and split, in the order in which the set first names them, with the columns
        `image` (absolute path; for a shard its path and the member's name), `texts` (list of captions), `language`,
        `split`, and `shard`, `shard_offset`, `shard_size` (empty and 0 for a picture that is a file of its own).

    Raises:
        ImportError: the package `datasets` is missing.
        ValueError: something is wrong with the set (the message names the first error), or `split` and `language`
            leave nothing of it.

    Example:
        >>> rows = load_captions("shared/data/flickr8k", split="val", language="zh")  # doctest: +SKIP
        >>> foveal.open_picture(record_picture(rows[0])).read().shape  # doctest: +SKIP
        torch.Size([3, 224, 224])
    """
    datasets = _import_datasets()
    items = list(read_captions(Path(path)))
    error = first_error(items, str(path))
    if error is not None:
        raise ValueError(
            f"{error.where}: {error.what}\nThis is the first thing wrong with the caption set; "
            f"`foveal data check {path}` lists all."
        )
    captions: dict[tuple[PictureSource, str, str], list[str]] = {}
    for entry in items:
        if isinstance(entry, Entry):
            captions.setdefault((entry.picture, entry.language, entry.split), []).extend(entry.texts)
    rows = [
        {
            "image": picture.image,
            "texts": texts,
            "language": code,
            "split": name,
            "shard": picture.shard,
            "shard_offset": picture.offset,
            "shard_size": picture.size,
        }
        for (picture, code, name), texts in captions.items()
        if (split is None or name == normal_split(split)) and (language is None or code == normal_language(language))
    ]
    if not rows:
        wanted = " and ".join(f"{key} {value!r}" for key, value in [("split", split), ("language", language)] if value)
        there = ", ".join(sorted({f"{name} in {code}" for _, code, name in captions}))
        raise ValueError(f"{path} has no captions of {wanted}; it has: {there}")
    text, number = datasets.Value("string"), datasets.Value("int64")
    features = {**dict.fromkeys(rows[0], text), "texts": [text], "shard_offset": number, "shard_size": number}
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def record_picture(record: Mapping[str, Any]) -> str | bytes:
    """Give a row's picture as `foveal.open_picture` takes it: the path of a file, or encoded bytes out of a shard.

    Args:
        record: a row of `load_captions`, or any mapping with `image`.

    Raises:
        OSError: the shard cannot be read.
    """
    return PictureSource(
        record["image"], record.get("shard") or "", record.get("shard_offset") or 0, record.get("shard_size") or 0
    ).contents()


def _import_datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(
            "reading caption sets needs the package 'datasets', which is not installed: pip install 'foveal[train]'"
        ) from error
