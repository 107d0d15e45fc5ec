"""Numbers as the pages write them."""

from __future__ import annotations

from collections.abc import Iterable


def whole(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def short(number: float) -> str:
    """1234567 -> "1.23 M", three digits of it."""
    number = float(f"{number:.3g}")  # rounded first: 999,999 is 1 M
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


def decimal(number: float, digits: int = 2) -> str:
    """With at most so many digits behind the point, none of them a zero at the end; never "-0"."""
    return f"{round(number, digits) + 0.0:.{digits}f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """0.1234 -> "12.3 %"."""
    return f"{100 * share:.1f} %"


def grid(rows: Iterable[Iterable[float]], digits: int = 1) -> str:
    """A small map as lines of text, its columns aligned."""
    cells = [[decimal(value, digits) for value in row] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join(" ".join(cell.rjust(width) for cell in row) for row in cells)


def sides(height: int, width: int) -> str:
    """3, 5 -> "3 x 5"."""
    return f"{height} x {width}"
