"""Flickr8k's files: `captions_LANG.tsv` without a header, beside `images/SPLIT/FILE`.

Pictures and English captions are Hodosh et al., "Framing Image Description as a Ranking Task" (JAIR 2013); Chinese
captions are Li et al., "Adding Chinese Captions to Images" (ICMR 2016). Columns: file, caption number, split, text.
"""

from collections.abc import Iterator
from pathlib import Path

from foveal.data.records import Entry, Item, PictureSource, Problem, find_picture, unless_unreadable
from foveal.data.text_files import numbered_lines, one_line
from foveal.data.vocabulary import DEFAULT_LANGUAGE, normal_language, normal_split


def caption_files(folder: Path) -> list[Path]:
    """The files `captions_*.tsv` of a folder, in the order of their names."""
    return sorted(file for file in folder.glob("captions_*.tsv") if file.is_file())


def is_caption_file(path: Path) -> bool:
    """Tell a headerless caption file from a TSV manifest: by its name, and by a number in the second column."""
    if not (path.name.startswith("captions_") and path.suffix.lower() == ".tsv"):
        return False
    cells = next((line.split("\t") for _, line in numbered_lines(path) if line.strip()), [])
    return len(cells) >= 2 and cells[1].strip().isdecimal()


def read_flickr8k(path: Path) -> Iterator[Item]:
    """Yield the entries and problems of one caption file, or of all in a folder, in the order of their names."""
    for file in caption_files(path) if path.is_dir() else [path]:
        words = file.stem.split("_")  # captions_zh_human: the language, then whose captions they are
        language = normal_language(words[1]) if len(words) > 1 and words[1] else DEFAULT_LANGUAGE
        yield from unless_unreadable(file, _read_file(file, language))


def _read_file(file: Path, language: str) -> Iterator[Item]:
    images = file.parent / "images"
    pictures: dict[tuple[str, str], PictureSource] = {}
    for number, line in numbered_lines(file):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != 4:
            yield Problem(where, f"has {len(cells)} columns; expected 4 between tabs: file, number, split, text")
        elif not cells[0].strip():
            yield Problem(where, "names no picture in its first column")
        else:
            name, folder = cells[0].strip(), cells[2].strip()
            picture = pictures.get((name, folder)) or find_picture([images / folder, images], name)
            pictures[name, folder] = picture
            yield Entry(where, picture, (one_line(cells[3]),), language, normal_split(folder))
