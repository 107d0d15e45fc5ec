"""Where to look as a person says it: a word, or a point."""

from __future__ import annotations

from typing import Literal, TypeAlias

Fixation: TypeAlias = Literal["center", "auto"] | tuple[float, float]
"""Where to look: the centre, where a policy says, or the point (y, x), relative to the picture."""


def parse_fixation(text: str) -> Fixation:
    """Reads "center", "auto" or "Y,X", each from 0 (top, left) to 1 (bottom, right).

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse_fixation("0.25, 0.5")
        (0.25, 0.5)
    """
    word = text.strip().lower()
    if word in ("center", "centre"):
        return "center"
    if word == "auto":
        return "auto"
    try:
        y, x = (float(part) for part in word.split(","))
    except ValueError:
        raise ValueError(
            f"fixation {text!r}: expected center, auto, or two numbers Y,X from 0 to 1, for example 0.3,0.7"
        ) from None
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise ValueError(f"fixation {text!r} lies outside the picture; Y (down) and X (right) go from 0 to 1")
    return y, x
