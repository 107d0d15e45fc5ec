"""What plots in SVG are put together from: no library, small, and sharp at any size.

Colours stand as attributes, so that a file shows them everywhere, and every part has a class besides, through which a
page gives it the colours of its theme.
"""

from __future__ import annotations

import math
import re
from html import escape

COLOURS = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "faint": "#667079",
    "line": "#d5d9de",
    "one": "#2f6fb3",
    "two": "#a85c10",
    "three": "#2f7a41",
    "four": "#8a5ab5",
    "band": "#efe6f6",
    "mark": "#b3261e",
}
"""Of each class, on white paper."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Without what no XML may hold, or what would turn the text around; names come from outside."""
    return _UNPRINTABLE.sub("\ufffd", text)


def shortened(text: str, most: int) -> str:
    """Its end, where a path differs from its neighbours'."""
    return text if len(text) <= most else "\u2026" + text[1 - most :]


def svg(width: float, height: float, parts: list[str], *, label: str) -> str:
    """A document that says in `label` what can be seen."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'font-family="system-ui, sans-serif" role="img" aria-label="{escape(printable(label))}">',
            rect(0, 0, width, height, "paper"),
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, kind: str = "ink") -> str:
    """Words whose line stands at (x, y)."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {_fill(kind)}>{_said(words)}</text>'
    )


def rect(x: float, y: float, width: float, height: float, kind: str, *, title: str = "") -> str:
    """A filled box; `title` shows under a pointer."""
    start = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {_fill(kind)}'
    return f"{start}><title>{_said(title)}</title></rect>" if title else f"{start}/>"


def dot(at: tuple[float, float], kind: str, *, title: str) -> str:
    """A point of a curve; `title` shows under a pointer."""
    x, y = at
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {_fill(kind)}><title>{_said(title)}</title></circle>'


def path(points: list[tuple[float, float]], kind: str, *, width: float = 1, dashed: bool = False) -> str:
    """A line through points."""
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    pen = f'class="stroke-{kind}" stroke="{COLOURS[kind]}" stroke-width="{width:g}"{dashes}'
    return f'<path d="M{way}" fill="none" {pen}/>'


def round_steps(most: float, about: int = 5) -> list[float]:
    """0 and on in steps of 1, 2 or 5 times a power of ten, up to `most`."""
    if most <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(most / about))
    step = next((f * power for f in (1, 2, 5) if f * power * about >= most), 10 * power)
    return [step * place for place in range(math.floor(most / step + 1e-9) + 1)]


def _fill(kind: str) -> str:
    return f'class="{kind}" fill="{COLOURS[kind]}"'


def _said(words: str) -> str:
    return escape(printable(words))
