"""A plot of curves on two logarithmic axes, as SVG: no library, small, and sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 190, 40, 60
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf", "#7f7f7f")

Points = Sequence[tuple[float, float]]


def loglog_plot(curves: Mapping[str, Points], *, title: str, across: str, up: str) -> str:
    """Draws curves of positive points.

    Args:
        curves: name -> its points (x, y), all above 0; empty ones are left out.
        title: over the plot.
        across: name of the horizontal axis; likewise `up`.

    Returns:
        An SVG document.

    Raises:
        ValueError: if there is nothing to draw, or a number that has no logarithm.

    Example:
        >>> loglog_plot({"a": [(1, 1), (10, 100)]}, title="t", across="x", up="y").startswith("<svg")
        True
    """
    curves = {name: points for name, points in curves.items() if points}
    numbers = [number for points in curves.values() for point in points for number in point]
    if not numbers or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError("a plot on logarithmic axes needs points, with all numbers above 0")
    xs, ys = ([point[axis] for points in curves.values() for point in points] for axis in (0, 1))
    spans = [_decades(values) for values in (xs, ys)]

    def place(x: float, y: float) -> tuple[float, float]:
        shares = ((math.log10(v) - low) / (high - low) for v, (low, high) in zip((x, y), spans, strict=True))
        along, above = shares
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text((LEFT + WIDTH - RIGHT) / 2, 22, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, across),
        f'<g transform="translate(20 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, up)}</g>',
    ]
    for axis, (low, high) in enumerate(spans):
        own = sorted(set(xs)) if axis == 0 else []  # a few sides are better named than round numbers beside them
        for tick in own if 0 < len(own) <= 8 else _ticks(low, high):
            x, y = place(tick, 10 ** spans[1][0]) if axis == 0 else place(10 ** spans[0][0], tick)
            end = (x, TOP) if axis == 0 else (WIDTH - RIGHT, y)
            parts.append(f'<path d="M{x:.1f} {y:.1f}L{end[0]:.1f} {end[1]:.1f}" stroke="#ddd"/>')
            label = (x, y + 18, "middle") if axis == 0 else (x - 6, y + 4, "end")
            parts.append(_text(label[0], label[1], f"{tick:g}", anchor=label[2]))
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(*point) for point in sorted(points)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        top = TOP + 14 + 22 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{top - 8}" width="16" height="4" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 38, top, name, anchor="start"))
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.05, 0.06 * (high - low))
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the span; only the powers where it is wide."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [f * 10.0**p for p in powers for f in factors if low <= math.log10(f * 10.0**p) <= high]


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
