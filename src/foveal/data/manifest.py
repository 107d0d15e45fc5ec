"""Manifests: one line a record, as JSON objects (JSONL) or as a table with a header (CSV, TSV).

Columns are `image` (or `file_name`, as in Hugging Face's image folders), `text` or `texts`, and optionally `split` and
`language`. Paths are relative to the manifest. In a table, `texts` is a JSON list. CSV is quoted as in RFC 4180; a TSV
field is taken as it stands, quotes and all.
"""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from foveal.data.fields import entries_of_fields
from foveal.data.records import Item, Problem, file_source
from foveal.data.text_files import NOT_UTF8, broken_characters, numbered_lines, parse_json
from foveal.data.vocabulary import DEFAULT_LANGUAGE, DEFAULT_SPLIT

MANIFEST_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")


def read_manifest(path: Path, *, split: Callable[[str], str] = lambda name: DEFAULT_SPLIT) -> Iterator[Item]:
    """Yield the entries and problems of a manifest, told apart by its suffix.

    Args:
        path: a file whose name ends in one of `MANIFEST_SUFFIXES`.
        split: gives the split of a record that names none, from the record's own name for its picture.

    Raises:
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _read_json_lines(path, split)
    else:
        yield from _read_table(path, split, tabs=suffix == ".tsv")


def _read_json_lines(path: Path, split: Callable[[str], str]) -> Iterator[Item]:
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        fields, problem = parse_json(line, where=str(path))
        if problem is not None:
            yield Problem(where, problem.what, problem.severity)
        elif not isinstance(fields, dict):
            yield Problem(where, f'is a JSON {_kind(fields)}; expected an object such as {{"image": ..., "text": ...}}')
        else:
            yield from _entries(fields, path, where, split)


def _kind(value: object) -> str:
    return {list: "list", str: "string", bool: "truth value", type(None): "null"}.get(type(value), "number")


def _read_table(path: Path, split: Callable[[str], str], *, tabs: bool) -> Iterator[Item]:
    header: list[str] | None = None
    for number, row in _tab_rows(path) if tabs else _comma_rows(path):
        where = f"{path}:{number}"
        if isinstance(row, Problem):
            yield row
        elif not any(cell.strip() for cell in row):
            continue
        elif header is None:
            header = [cell.strip() for cell in row]
            fault = _header_fault(header, tabs=tabs)
            if fault:
                yield Problem(where, fault)
                return
        elif len(row) != len(header):
            yield Problem(where, f"has {len(row)} columns; the header names {len(header)}: {', '.join(header)}")
        else:
            yield from _table_entries(dict(zip(header, row, strict=True)), path, where, split)


def _header_fault(header: list[str], *, tabs: bool) -> str | None:
    if broken_characters("".join(header)):
        return f"the header is {NOT_UTF8}"
    wanted = []
    if not {"image", "file_name"} & set(header):
        wanted.append("'image'")
    if not {"text", "texts"} & set(header):
        wanted.append("'text' (or 'texts')")
    if wanted:
        found = ", ".join(map(ascii, header))
        kind = "tabs" if tabs else "commas"
        return f"the header has no column {' and no column '.join(wanted)}; separated by {kind} it names: {found[:200]}"
    twice = sorted({name for name in header if name and header.count(name) > 1})
    return f"the header names {', '.join(map(ascii, twice))} more than once" if twice else None


def _table_entries(row: dict[str, str], path: Path, where: str, split: Callable[[str], str]) -> Iterator[Item]:
    fields: dict[str, object] = dict(row)
    if row.get("texts", "").strip():
        texts, problem = parse_json(row["texts"], where=where)
        if problem is not None:
            yield Problem(where, f'\'texts\' {problem.what}; expected a list such as ["a dog", "a brown dog"]')
            return
        fields["texts"] = texts
        if not row.get("text", "").strip():
            fields.pop("text", None)  # a table with both columns fills one of them
    elif "text" in fields:
        fields.pop("texts", None)
    yield from _entries(fields, path, where, split)


def _entries(fields: dict[str, object], path: Path, where: str, split: Callable[[str], str]) -> Iterator[Item]:
    picture = partial(file_source, path.parent)
    yield from entries_of_fields(fields, where=where, picture=picture, split=split, language=DEFAULT_LANGUAGE)


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str] | Problem]]:
    for number, line in numbered_lines(path):
        yield number, line.split("\t")


def _comma_rows(path: Path) -> Iterator[tuple[int, list[str] | Problem]]:
    """Yield rows with the line where each begins; a quoted field may run over several lines."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, strict=True)
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                hint = "; a quoted field that begins here is not closed" if "unexpected end" in str(error) else ""
                yield number, Problem(f"{path}:{number}", f"is not CSV: {error}{hint}")
            else:
                yield number, row
