"""Captions as a model learns them, and what it writes as a reader wants it."""

from __future__ import annotations

import re

# Quotes set apart from what they hold, as " ' stop ' ": one that closes after one that opens.
_QUOTED = re.compile(r"(?<!\S)(['\u2019]) ([^'\u2019]+?) (['\u2019])(?!\w)")
# An apostrophe belongs to what stands before it only as a contraction or a closing quote: "dog 's", but "called 'rex'".
_SPACE_BEFORE = re.compile(r"\s+([,.;:!?%)]|['\u2019](?=(?:s|t|m|d|re|ve|ll)?(?:\W|$)))")


def clean_caption(text: str, language: str = "en") -> str:
    """One spelling for what means the same: lower case, single spaces, no stop at the end.

    Example:
        >>> clean_caption("A dog , running  . ")
        'a dog, running'
        >>> clean_caption("两只狗在草地上玩。", "zh")
        '两只狗在草地上玩'
    """
    text = _QUOTED.sub(r"\1\2\3", " ".join(text.split()).lower())
    text = _SPACE_BEFORE.sub(r"\1", text)
    if language == "zh":
        text = text.replace(" ", "")
    text = text.strip(" .。")
    if text.count('"') == 2 and text[0] == text[-1] == '"':  # all of it is quoted
        text = text.strip('" .。')
    return text


def as_sentence(text: str, language: str = "en") -> str:
    """A caption as a sentence: a capital at the start, a stop at the end.

    Example:
        >>> as_sentence("a dog runs")
        'A dog runs.'
        >>> as_sentence("狗在跑", "zh")
        '狗在跑。'
    """
    text = text.strip()
    if not text:
        return ""
    stop = "。" if language == "zh" else "."
    return text[0].upper() + text[1:] + ("" if text[-1] in ".。!?！？" else stop)
