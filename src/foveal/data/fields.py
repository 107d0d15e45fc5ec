"""One record's named fields, as a JSON object or a table's row has them, made into an entry of a caption set."""

from collections.abc import Callable, Iterator, Mapping

from foveal.data.records import Entry, Item, PictureSource, Problem
from foveal.data.text_files import one_line
from foveal.data.vocabulary import normal_language, normal_split


def entries_of_fields(
    fields: Mapping[str, object],
    *,
    where: str,
    picture: PictureSource | Callable[[str], PictureSource],
    split: Callable[[str], str],
    language: str,
) -> Iterator[Item]:
    """Turn one record's named fields (a JSON object, a row of a table) into its entry, or into its problems.

    Args:
        fields: `image` (or `file_name`) where `picture` is a function; `text` and / or `texts`; `split`, `language`.
            Others are left alone; an absent, null or empty split or language takes its default.
        where: the record's place.
        picture: the picture itself, or what finds it by the record's name for it.
        split: gives the split of a record without one, from its name for the picture.
        language: of a record without one.

    Yields:
        One `Entry`, or the `Problem`s that stand in its way.
    """
    problems = []
    name = ""
    if not isinstance(picture, PictureSource):
        named = fields.get("image", fields.get("file_name"))
        if isinstance(named, str) and named.strip():
            name = named.strip()
        else:
            problems.append(_wanted("image", named, "the picture's path as text", fields))
    texts: list[str] = []
    text, several = fields.get("text"), fields.get("texts")
    if text is None and several is None:
        problems.append(_wanted("text' or 'texts", None, "the caption as text, or a list of captions", fields))
    if isinstance(text, str):
        texts.append(text)
    elif text is not None:
        problems.append(_wanted("text", text, "the caption as text (a list of captions is called 'texts')", fields))
    if isinstance(several, list) and all(isinstance(one, str) for one in several) and several:
        texts.extend(several)
    elif several is not None:
        problems.append(_wanted("texts", several, "a list of at least one caption, each as text", fields))
    chosen = {}
    for key in ("split", "language"):
        value = fields.get(key)
        if value is not None and not isinstance(value, str):
            problems.append(_wanted(key, value, "text", fields))
        elif value is not None and value.strip():
            chosen[key] = value
    if problems:
        yield from (Problem(where, problem) for problem in problems)
        return
    yield Entry(
        where,
        picture if isinstance(picture, PictureSource) else picture(name),
        tuple(one_line(text) for text in texts),
        normal_language(chosen.get("language", language)),
        normal_split(chosen["split"]) if "split" in chosen else split(name),
    )


def _wanted(key: str, value: object, wanted: str, fields: Mapping[str, object]) -> str:
    if value is None:
        return f"has no '{key}' ({wanted}); it has: {', '.join(map(ascii, fields)) or 'nothing'}"
    shown = ascii(value)
    return f"'{key}' is {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {wanted}"
