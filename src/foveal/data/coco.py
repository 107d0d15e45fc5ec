"""COCO captions JSON (`captions_train2017.json`, ...): a list of pictures and a list of annotations that point at them.

From Chen et al., "Microsoft COCO Captions" (2015). The split is read from the file's name. Pictures are looked for
beside the file, in `images/`, and in a folder called as the file is after `captions_` (`train2017`), there or one up.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from foveal.data.records import Entry, Item, PictureSource, Problem, find_picture
from foveal.data.text_files import one_line
from foveal.data.vocabulary import DEFAULT_LANGUAGE, DEFAULT_SPLIT, split_in


def is_coco(document: object) -> bool:
    """Tell whether a JSON document is of this format."""
    if not isinstance(document, Mapping):
        return False
    return isinstance(document.get("images"), list) and isinstance(document.get("annotations"), list)


def read_coco(path: Path, document: Mapping[str, object]) -> Iterator[Item]:
    """Yield the problems of the pictures, then the entries and problems of the annotations, then unused pictures."""
    images, annotations = document["images"], document["annotations"]
    assert isinstance(images, list)
    assert isinstance(annotations, list)
    split = split_in(path.stem) or DEFAULT_SPLIT
    folders = _folders(path)
    pictures: dict[object, tuple[PictureSource, str]] = {}
    for index, image in enumerate(images):
        where = f"{path}:images[{index}]"
        name = image.get("file_name") if isinstance(image, Mapping) else None
        if not isinstance(name, str) or not name.strip() or not isinstance(image.get("id"), int | str):
            yield Problem(where, "needs an 'id' and a 'file_name' as text")
        elif image["id"] in pictures:
            yield Problem(where, f"has the id {image['id']!a}, as {pictures[image['id']][1]} has")
        else:
            pictures[image["id"]] = find_picture(folders, name), where
    unused = dict(pictures)
    for index, annotation in enumerate(annotations):
        where = f"{path}:annotations[{index}]"
        caption = annotation.get("caption") if isinstance(annotation, Mapping) else None
        if not isinstance(caption, str):
            yield Problem(where, "has no caption as text under 'caption'")
            continue
        key = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in pictures:
            yield Problem(where, f"points at the picture {key!a}, which 'images' does not list")
            continue
        unused.pop(key, None)
        yield Entry(where, pictures[key][0], (one_line(caption),), DEFAULT_LANGUAGE, split)
    for _, where in unused.values():
        yield Problem(where, "has no caption in 'annotations', so it is left out", "warning")


def _folders(path: Path) -> list[Path]:
    base, named = path.parent, path.stem.removeprefix("captions_")
    places = [base, base / "images", base / named, base / "images" / named]
    return [*places, base.parent / named, base.parent / "images" / named]
