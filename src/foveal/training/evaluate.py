"""How good a model's captions are on a caption set, and the floors that it has to stand above."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foveal.data import load_captions, record_picture
from foveal.data.text import clean_caption
from foveal.models.generation import BEAMS, Describer, load_describer, together
from foveal.picture import open_picture
from foveal.training.metrics import score_captions, score_each
from foveal.whole_file import whole_file

PER_CAPTION = (".jsonl", ".csv")


def evaluate(
    model: Describer | str | os.PathLike[str] | None,
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    language: str = "en",
    beams: int = BEAMS,
    batch: int = 32,
    shuffle: bool = False,
    captions_file: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Describes every picture of a split and scores the captions against those that people wrote.

    Args:
        model: folder, or None for the one that comes with the package.
        data: a caption set, as `load_captions` reads it.
        split: train, val or test.
        language: of the captions.
        beams: width of the beam search.
        batch: pictures that go through the network together.
        shuffle: give each picture's place to another picture's caption: what a model scores that writes well but does
            not look at this picture.
        captions_file: FILE.jsonl or FILE.csv, to which every picture's captions and scores are written.
        limit: only the first so many pictures.
        progress: called with (pictures described, pictures in all) after each batch.

    Returns:
        The scores of `score_captions`, and what they are of: pictures, split, language, beams, shuffle, seconds.

    Raises:
        ModelError: if the model cannot be loaded.
        PictureError: if a picture cannot be read: a score of the others would not be the set's.
        ValueError: if the set has nothing of this split and language, or an option is impossible.

    Example:
        >>> evaluate(None, "data/flickr8k", language="zh")["cider_d"]
        0.8727
    """
    if beams < 1 or batch < 1:
        raise ValueError(f"beams is {beams} and batch {batch}; both must be 1 or more")
    _refuse_other_suffixes(captions_file)
    describer = load_describer(model)
    describer.refuse_unknown(language)
    records = _records(data, split, language, limit)
    if shuffle and len(records) < 2:
        raise ValueError("one picture cannot be shuffled; take at least 2")
    started = time.perf_counter()
    candidates: list[str] = []
    for group in _groups(records, batch):
        # One by one: of a picture only its glimpse is kept, which is small.
        looks = [describer.look([open_picture(record_picture(record), name=record["image"])]) for record in group]
        candidates += describer.write(together(looks), language=language, beams=beams)
        if progress is not None:
            progress(len(candidates), len(records))
    seconds = time.perf_counter() - started
    if shuffle:
        candidates = rolled(candidates)
    return {
        **_scores(records, candidates, language, captions_file),
        "pictures": len(records),
        "split": split,
        "language": language,
        "beams": beams,
        "shuffle": shuffle,
        "seconds": round(seconds, 3),
    }


def most_frequent(
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    language: str = "en",
    captions_file: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The floor of a model that sees nothing: the most frequent caption of the train split, for every picture.

    Arguments, result and errors are those of `evaluate`; `caption` in the result is the caption. Captions count as
    the same as `clean_caption` leaves them; of equally frequent ones the first in the set is taken.
    """
    _refuse_other_suffixes(captions_file)
    records = _records(data, split, language, limit)
    taught = load_captions(data, split="train", language=language)
    counts = Counter(clean_caption(text, language) for record in taught for text in record["texts"])
    caption = counts.most_common(1)[0][0]
    return {
        **_scores(records, [caption] * len(records), language, captions_file),
        "pictures": len(records),
        "split": split,
        "language": language,
        "caption": caption,
    }


def rolled(texts: Sequence[str]) -> list[str]:
    """Every text at another place than its own, half the list away: the same for the same number of texts."""
    shift = len(texts) // 2
    return [*texts[shift:], *texts[:shift]]


def _records(data: str | os.PathLike[str], split: str, language: str, limit: int | None) -> Sequence[dict[str, Any]]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected 1 or more")
    records = load_captions(data, split=split, language=language)
    return [dict(record) for record in records.select(range(min(limit or len(records), len(records))))]


def _groups(records: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


def _scores(
    records: Sequence[dict[str, Any]],
    candidates: Sequence[str],
    language: str,
    captions_file: str | os.PathLike[str] | None,
) -> dict[str, float]:
    references = [record["texts"] for record in records]
    if captions_file is not None:
        each = score_each(candidates, references, language=language)
        rows = [
            {"image": record["image"], "candidate": candidate, "references": record["texts"], **scores}
            for record, candidate, scores in zip(records, candidates, each, strict=True)
        ]
        _write_rows(Path(captions_file), rows)
    return score_captions(candidates, references, language=language)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line a picture; in a CSV the references are one cell, a line each."""
    if path.suffix.lower() == ".jsonl":
        with whole_file(path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    with whole_file(path, newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "references": "\n".join(row["references"])} for row in rows)


def _refuse_other_suffixes(captions_file: str | os.PathLike[str] | None) -> None:
    if captions_file is not None and Path(captions_file).suffix.lower() not in PER_CAPTION:
        raise ValueError(f"{captions_file}: the captions' file is written as .jsonl or .csv; give it such a name")
