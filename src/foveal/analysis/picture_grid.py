"""Small pictures with labels, side by side on one sheet; and numbers as colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (24, 24, 27), (92, 92, 100), (255, 255, 255)
GAP, TITLE, LABEL = 12, 17, 13  # pixels between tiles; heights of letters

# Dark to bright, each step equally visible (after viridis of Smith and van der Walt 2015); blue, white, red.
_RISING = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_SIGNED = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))


@dataclass(frozen=True)
class Tile:
    """A picture on a sheet.

    Args:
        image: of any size; scaled to fit, in whole steps without smoothing where it is much smaller than its place.
        label: lines of text under it; one too long for the tile is cut in its middle.
    """

    image: Image.Image
    label: str = ""


def draw_grid(tiles: Sequence[Tile], *, title: str, columns: int, side: int) -> Image.Image:
    """Draws tiles row by row, with a title over them.

    Args:
        tiles: at least one.
        title: lines of text; broken where they are too long.
        columns: tiles in a row, at most.
        side: pixels of a tile's longer side.

    Returns:
        An RGB image.

    Raises:
        ValueError: if there is no tile.

    Example:
        >>> draw_grid([Tile(Image.new("L", (8, 4)), "one")], title="t", columns=3, side=100).width
        124
    """
    if not tiles:
        raise ValueError("there is nothing to draw: no tiles were given")
    columns = min(columns, len(tiles))
    fitted = [_fitted(tile.image, side) for tile in tiles]
    wide, high = max(image.width for image in fitted), max(image.height for image in fitted)
    lines = max(len(tile.label.split("\n")) for tile in tiles if tile.label) if any(t.label for t in tiles) else 0
    step = high + lines * (LABEL + 4) + GAP
    width = GAP + columns * (wide + GAP)
    heading = _broken(title, ImageFont.load_default(TITLE), width - 2 * GAP)
    top = GAP + len(heading) * (TITLE + 6) + (GAP // 2 if heading else 0)
    sheet = Image.new("RGB", (width, top + -(-len(tiles) // columns) * step), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(heading):
        pen.text((GAP, GAP + number * (TITLE + 6)), line, INK, ImageFont.load_default(TITLE))
    font = ImageFont.load_default(LABEL)
    for number, (tile, image) in enumerate(zip(tiles, fitted, strict=True)):
        left, above = GAP + number % columns * (wide + GAP), top + number // columns * step
        sheet.paste(image, (left, above))
        for row, line in enumerate(tile.label.split("\n")):
            pen.text((left, above + high + 2 + row * (LABEL + 4)), _cut(line, font, wide), FAINT, font)
    return sheet


def rising(values: np.ndarray, top: float | None = None) -> Image.Image:
    """A map (h, w) of numbers from 0 to `top` (its largest by default), dark to bright."""
    top = float(values.max()) if top is None else top
    return _coloured(values / top if top > 0 else np.zeros_like(values), _RISING)


def signed(values: np.ndarray) -> Image.Image:
    """A map (h, w) of numbers on both sides of 0: blue below, white at 0, red above."""
    top = float(np.abs(values).max())
    return _coloured(0.5 + values / (2 * top) if top > 0 else np.full_like(values, 0.5), _SIGNED)


def _coloured(shares: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    places = np.linspace(0, 1, len(colours))
    bands = [np.interp(shares, places, [colour[band] for colour in colours]) for band in range(3)]
    return Image.fromarray(np.stack(bands, -1).round().astype(np.uint8))


def _fitted(image: Image.Image, side: int) -> Image.Image:
    image = image.convert("RGB")
    share = side / max(image.size)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.NEAREST if share >= 2 else Image.Resampling.LANCZOS)


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n") if text else []:
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}".strip()
            if line and font.getlength(joined) > width:
                lines.append(line)
                joined = word
            line = joined
        lines.append(_cut(line, font, width))
    return lines


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its middle left out where it is too long: both ends of a layer's name tell most."""
    kept = len(text)
    shown = text
    while font.getlength(shown) > width and kept > 2:
        kept -= 1
        shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    return shown
