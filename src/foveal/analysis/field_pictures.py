"""Receptive fields over a picture: the box that a unit can depend on, and how much it does (Luo et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from foveal.analysis.effective_field import FAINT as FAINT_HEAT
from foveal.analysis.effective_field import UnitField
from foveal.analysis.picture_panel import EDGE, FAINT, INK, PAPER, Box, Colour, Panel, font, sides_of
from foveal.analysis.svg_parts import printable, shortened

BRIGHT: tuple[Colour, ...] = ((255, 206, 64), (86, 204, 242), (255, 128, 171), (140, 220, 110), (255, 150, 70))
Words = tuple[Colour | None, str]
"""A line at the foot of a drawing, and the colour of the box that it tells of."""

SIDE, ROOM, LINE = 760, 16, 24
"""Of the drawing of a picture, of a margin, and of a line of words, in pixels."""

HEATS = ((10, 8, 32), (84, 22, 110), (184, 50, 92), (243, 132, 46), (252, 246, 170))
"""From nothing to the most, ever brighter, so that it can be read in grey too."""


def field_picture(field: UnitField | Sequence[UnitField], picture: Image.Image | None = None) -> Image.Image:
    """The box of a unit over a picture, or those of several layers, one in the other.

    A line is around what the unit can depend on; a dashed one goes on where the field reaches beyond the picture.

    Args:
        field: of a unit, or several of the same network and size.
        picture: to draw it over, cut to the sides' ratio; a neutral one by default.

    Returns:
        An RGB image with the numbers under the picture.

    Raises:
        ValueError: without a field, or for fields in pictures of different sizes.

    Example:
        >>> found = unit_field(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2)), "0", 32)
        >>> field_picture(found).width
        838
    """
    fields = [field] if isinstance(field, UnitField) else list(field)
    sizes = {tuple(one.heat.shape) for one in fields}
    if len(sizes) != 1:
        raise ValueError(f"fields in pictures of sizes {sorted(sizes)}; expected one or more, all in the same")
    height, width = fields[0].heat.shape
    region = _with_padding(fields, height, width)
    scale = SIDE / max(region[1] - region[0] + 1, region[3] - region[2] + 1)
    across, down = sides_of(region, scale)
    words: list[Words] = [(_colour(place), line) for place, one in enumerate(fields) for line in field_in_words(one)]
    if any(one.nominal != one.box for one in fields):
        words.append((None, "Dashed: the field goes on beyond the picture, where there is nothing but padding."))
    sheet = _sheet(EDGE + across + 2 * ROOM, ROOM + down + EDGE, words)
    panel = Panel(sheet, (EDGE + ROOM, ROOM), region, scale)
    seen = ImageOps.fit(picture.convert("RGB"), _fit(picture, height, width)) if picture else _neutral(height, width)
    panel.picture(seen, (height, width), smooth=picture is not None)
    for place, one in sorted(enumerate(fields), key=lambda item: -_area(item[1].nominal)):
        if one.nominal != one.box:
            panel.box(one.nominal, _colour(place), dashed=True)
        panel.box(one.box, _colour(place))
    middle = fields[0].nominal
    panel.cross((middle[0] + middle[1]) / 2, (middle[2] + middle[3]) / 2, _colour(0))
    panel.numbers()
    return sheet


def heat_picture(field: UnitField) -> Image.Image:
    """The effective receptive field as a map of heat, with the theoretical box over it and a scale.

    Where the box is small in the picture, a second map shows it enlarged.

    Args:
        field: of a unit.

    Returns:
        An RGB image with the numbers under the map.

    Example:
        >>> found = unit_field(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2)), "0", 32)
        >>> heat_picture(found).mode
        'RGB'
    """
    height, width = field.heat.shape
    regions: list[Box] = [(0, height - 1, 0, width - 1)]
    close = _around(field.box, height, width)
    if 0 < _area(close) < 0.3 * height * width:
        regions.append(close)
    side = SIDE if len(regions) == 1 else SIDE * 2 // 3
    scales = [side / max(region[1] - region[0] + 1, region[3] - region[2] + 1) for region in regions]
    places = [sides_of(region, scale) for region, scale in zip(regions, scales, strict=True)]
    across = sum(EDGE + place[0] + 2 * ROOM for place in places)
    down = max(place[1] for place in places)
    words: list[Words] = [(_colour(1), line) for line in field_in_words(field)]
    words += [(None, line) for line in _wrapped(effective_in_words(field), across)]
    sheet = _sheet(across + 96, ROOM + down + EDGE, words)
    hot = _coloured(field.heat.numpy())
    left = EDGE + ROOM
    for region, scale, place in zip(regions, scales, places, strict=True):
        panel = Panel(sheet, (left, ROOM), region, scale)
        panel.picture(hot, (height, width), smooth=False)
        panel.box(field.box, _colour(1), dashed=True, line=2)
        panel.numbers()
        left += place[0] + EDGE + 2 * ROOM
    _scale(sheet, left - EDGE - ROOM, ROOM, down)
    return sheet


def _coloured(heat: np.ndarray) -> Image.Image:
    """Colours go with the square root of the heat: most of a field is faint, and would be black."""
    shares = np.sqrt(np.clip(np.nan_to_num(heat), 0, 1)) * (len(HEATS) - 1)
    stops = np.arange(len(HEATS))
    bands = [np.interp(shares, stops, [colour[band] for colour in HEATS]) for band in range(3)]
    return Image.fromarray(np.stack(bands, -1).round().astype(np.uint8))


def _scale(sheet: Image.Image, left: int, top: int, height: int) -> None:
    pen = ImageDraw.Draw(sheet)
    ramp = _coloured(np.square(np.linspace(1, 0, height))[:, None])
    sheet.paste(ramp.resize((20, height)), (left, top))
    for heat in (1.0, 0.75, 0.5, 0.25, 0.1, FAINT_HEAT, 0.0):
        y = top + round((1 - heat**0.5) * (height - 1))
        pen.line([(left + 20, y), (left + 26, y)], fill=INK)
        pen.text((left + 30, y), f"{100 * heat:.3g} %", fill=INK, font=font(15), anchor="lm")


def field_in_words(field: UnitField) -> list[str]:
    """Where a unit is, and the pixels that it can depend on."""
    top, bottom, left, right = field.box
    name = shortened(printable(field.layer) or "(network)", 40)
    where = f"{name}, unit ({field.unit[0]}, {field.unit[1]}) of {field.grid[0]} x {field.grid[1]}"
    if top > bottom or left > right:
        return [f"{where}: no pixel"]
    seen = f"{bottom - top + 1} x {right - left + 1} pixels"
    if field.whole:
        seen += ", through attention or a pool over space"
    lines = [f"{where}: {seen}", f"rows {top} to {bottom}, columns {left} to {right}"]
    if field.nominal != field.box:
        top, bottom, left, right = field.nominal
        lines[1] += f"; with padding {bottom - top + 1} x {right - left + 1}, rows {top} to {bottom}"
        lines[1] += f", columns {left} to {right}"
    return lines


def effective_in_words(field: UnitField) -> str:
    """How much of it counts."""
    return " ".join(
        [
            f"Effective: {field.effective:.1f} pixels, the side of a square of as many as move the unit at least "
            f"{100 * FAINT_HEAT:.3g} % as much as the strongest.",
            *(f"{line[0].upper()}{line[1:]}." for line in caveats(field)),
        ]
    )


def caveats(field: UnitField) -> list[str]:
    """What one has to know about the weights to read the heat."""
    said = ["random weights; give --weights for what a taught network looks at"] if field.untaught else []
    if field.woken:
        said.append(f"{field.woken} gains that still start near 0 count as 1, or their branches would be silent")
    return said


def _sheet(width: int, height: int, words: list[Words]) -> Image.Image:
    """Paper with words at its foot, those of a box with its colour before their first line."""
    wide = max([width, *(EDGE + ROOM + 32 + int(font(17).getlength(line)) for _, line in words)])
    sheet = Image.new("RGB", (wide, height + LINE * len(words) + ROOM), PAPER)
    pen, last = ImageDraw.Draw(sheet), None
    for place, (colour, line) in enumerate(words):
        y, x = height + LINE * place, EDGE + ROOM
        if colour is not None and colour != last:
            pen.rectangle((x, y + 3, x + 14, y + 17), fill=colour, outline=INK)
        pen.text((x + 24, y), line, fill=FAINT if colour is not None and colour == last else INK, font=font(17))
        last = colour
    return sheet


def _wrapped(line: str, width: int) -> list[str]:
    lines = [""]
    for word in line.split():
        longer = f"{lines[-1]} {word}".strip()
        if font(17).getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _with_padding(fields: list[UnitField], height: int, width: int) -> Box:
    """The picture and what of the fields goes beyond, at most three quarters of its longer side."""
    most = max(height, width) * 3 // 4
    tops, bottoms, lefts, rights = zip(*(one.nominal for one in fields), strict=True)
    beyond = (-min(tops), max(bottoms) - height + 1, -min(lefts), max(rights) - width + 1)
    top, bottom, left, right = (min(pixels + 4, most) if pixels > 0 else 0 for pixels in beyond)
    return -top, height - 1 + bottom, -left, width - 1 + right


def _around(box: Box, height: int, width: int) -> Box:
    """A box with some pixels around it, within the picture."""
    room = max(2, (box[1] - box[0] + box[3] - box[2]) // 8)
    return (
        max(0, box[0] - room),
        min(height - 1, box[1] + room),
        max(0, box[2] - room),
        min(width - 1, box[3] + room),
    )


def _area(box: Box) -> int:
    return max(0, box[1] - box[0] + 1) * max(0, box[3] - box[2] + 1)


def _neutral(height: int, width: int) -> Image.Image:
    """Squares of two greys, about sixteen along the longer side."""
    side = max(1, round(max(height, width) / 16))
    rows, columns = np.arange(height)[:, None] // side, np.arange(width)[None] // side
    return Image.fromarray(np.where((rows + columns) % 2 == 0, 150, 166).astype(np.uint8)).convert("RGB")


def _fit(picture: Image.Image, height: int, width: int) -> tuple[int, int]:
    """The largest part of a picture with the sides' ratio."""
    many = min(picture.width / width, picture.height / height)
    return max(1, round(width * many)), max(1, round(height * many))


def _colour(place: int) -> Colour:
    return BRIGHT[place % len(BRIGHT)]
