"""Which format a caption set is in, told from its path, and the one way to read them all."""

from collections.abc import Iterator
from pathlib import Path

from foveal.data.coco import is_coco, read_coco
from foveal.data.flickr8k import caption_files, is_caption_file, read_flickr8k
from foveal.data.folder import is_image_folder, read_image_folder
from foveal.data.karpathy import is_karpathy, read_karpathy
from foveal.data.manifest import MANIFEST_SUFFIXES, read_manifest
from foveal.data.records import Item, Problem, unless_unreadable
from foveal.data.shards import read_shards, shard_files
from foveal.data.text_files import read_json

UNDERSTOOD = (
    "understood are a manifest (.jsonl, .csv or .tsv with the columns image and text), a folder of pictures with "
    "captions in NAME.txt beside them or in a metadata.jsonl, WebDataset shards (.tar), Karpathy-split or COCO "
    "captions JSON, and the folder of Flickr8k"
)


def read_captions(path: Path) -> Iterator[Item]:
    """Yield every entry and every problem of a caption set, in the order of its files, whatever its format.

    Nothing is raised on a bad set: a path that is missing, unreadable or of no known format is one `Problem`.
    """
    yield from unless_unreadable(path, _read(path))


def _read(path: Path) -> Iterator[Item]:
    if path.is_dir():
        yield from _read_folder(path)
        return
    if not path.is_file():
        yield Problem(str(path), "is no file or folder" if path.exists() else "does not exist")
        return
    suffix = path.suffix.lower()
    if suffix == ".tar":
        yield from read_shards(path)
    elif suffix == ".json":
        yield from _read_document(path)
    elif is_caption_file(path):
        yield from read_flickr8k(path)
    elif suffix in MANIFEST_SUFFIXES:
        yield from read_manifest(path)
    else:
        yield Problem(str(path), f"is of no known format; {UNDERSTOOD}")


def _read_folder(path: Path) -> Iterator[Item]:
    if any(map(is_caption_file, caption_files(path))):
        yield from read_flickr8k(path)
    elif shard_files(path):
        yield from read_shards(path)
    elif is_image_folder(path):
        yield from read_image_folder(path)
    else:
        inside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in (*MANIFEST_SUFFIXES, ".json"))
        hint = f"did you mean {path / inside[0]}?; " if inside else ""
        yield Problem(str(path), f"is a folder of no known format; {hint}{UNDERSTOOD}")


def _read_document(path: Path) -> Iterator[Item]:
    document, problem = read_json(path)
    if problem is not None:
        yield problem
    elif isinstance(document, dict) and is_karpathy(document):
        yield from read_karpathy(path, document)
    elif isinstance(document, dict) and is_coco(document):
        yield from read_coco(path, document)
    else:
        yield Problem(str(path), f"is JSON of no known format; {UNDERSTOOD}")
