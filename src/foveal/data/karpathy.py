"""Karpathy-split JSON (`dataset_coco.json`, `dataset_flickr30k.json`, ...): one document of pictures and sentences.

From Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (CVPR 2015). Of each
picture `filename`, `filepath`, `split` and `sentences[].raw` are read; the split `restval` counts as train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from foveal.data.records import Entry, Item, PictureSource, Problem, find_picture
from foveal.data.text_files import one_line
from foveal.data.vocabulary import DEFAULT_LANGUAGE, DEFAULT_SPLIT, normal_split


def is_karpathy(document: object) -> bool:
    """Tell whether a JSON document is of this format: its pictures carry their sentences."""
    images = document.get("images") if isinstance(document, Mapping) else None
    return isinstance(images, list) and any(isinstance(image, Mapping) and "sentences" in image for image in images)


def read_karpathy(path: Path, document: Mapping[str, object]) -> Iterator[Item]:
    """Yield the entries and problems of a document; pictures lie beside it, in `images/`, or where `filepath` says."""
    images = document["images"]
    assert isinstance(images, list)
    for index, image in enumerate(images):
        where = f"{path}:images[{index}]"
        if not isinstance(image, Mapping):
            yield Problem(where, "is no JSON object; expected one with 'filename', 'split' and 'sentences'")
            continue
        name, folder, split = image.get("filename"), image.get("filepath", ""), image.get("split", DEFAULT_SPLIT)
        sentences = image.get("sentences")
        if not isinstance(name, str) or not name.strip():
            yield Problem(where, "has no 'filename'")
        elif not isinstance(folder, str) or not isinstance(split, str):
            yield Problem(where, "'filepath' and 'split' must be text")
        elif not isinstance(sentences, list) or not sentences:
            yield Problem(where, "has no list 'sentences' with at least one caption")
        else:
            picture = find_picture(_folders(path.parent, folder), name)
            yield from _sentences(sentences, where, picture, normal_split(split))


def _sentences(sentences: list[object], where: str, picture: PictureSource, split: str) -> Iterator[Item]:
    for index, sentence in enumerate(sentences):
        place = f"{where}.sentences[{index}]"
        raw = sentence.get("raw") if isinstance(sentence, Mapping) else None
        if not isinstance(raw, str):
            yield Problem(place, "has no caption as text under 'raw'")
        else:
            yield Entry(place, picture, (one_line(raw),), DEFAULT_LANGUAGE, split)


def _folders(base: Path, folder: str) -> list[Path]:
    return [base / folder, base / "images" / folder, base, base / "images"]
