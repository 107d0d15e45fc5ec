"""A part of a picture on a sheet: everything is placed in the picture's own pixels, whatever size it is drawn at."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from foveal.analysis.svg_parts import round_steps

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

PAPER, INK, FAINT, OUTSIDE, SHADE = (255, 255, 255), (31, 35, 40), (96, 105, 114), (214, 217, 222), (20, 20, 24)
EDGE = 46
"""Room on a sheet, left of a panel and under it, for the numbers of its pixels."""


class Panel:
    """Draws on a sheet.

    Args:
        sheet: an RGB image, drawn on in place.
        corner: (x, y) of the panel's upper left corner on the sheet.
        region: what of the picture it shows, as first and last row, first and last column; it may go beyond.
        scale: pixels of the sheet for one of the picture.
    """

    def __init__(self, sheet: Image.Image, corner: tuple[int, int], region: Box, scale: float) -> None:
        self.sheet, self.corner, self.region, self.scale = sheet, corner, region, scale
        self.pen = ImageDraw.Draw(sheet)
        self.width, self.height = sides_of(region, scale)
        self.pen.rectangle(self._on_sheet(region), fill=OUTSIDE)

    def picture(self, image: Image.Image, size: tuple[int, int], *, smooth: bool) -> None:
        """Lays down the picture, of `size` = height and width in pixels, as far as the panel shows it."""
        top, bottom, left, right = self._shown((0, size[0] - 1, 0, size[1] - 1))
        box = (left, top, right + 1, bottom + 1)
        across, down = image.width / size[1], image.height / size[0]
        source = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        at = self._on_sheet((top, bottom, left, right))
        how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        self.sheet.paste(image.resize((at[2] - at[0] + 1, at[3] - at[1] + 1), how, box=source), (at[0], at[1]))

    def box(self, box: Box, colour: Colour, *, dashed: bool = False, line: int = 3) -> None:
        """A border around pixels, dark at both sides so that it shows on any picture."""
        for grow, ink, thick in ((1, SHADE, line + 2), (0, colour, line)):
            for start, end in self._sides(box, grow):
                self._line(start, end, ink, thick, 10 if dashed else 0)

    def cross(self, y: float, x: float, colour: Colour) -> None:
        """Marks a place, in pixels whose centres are whole numbers."""
        column, row = self._x(x + 0.5), self._y(y + 0.5)
        for ink, thick, reach in ((SHADE, 5, 9), (colour, 3, 8)):
            self.pen.line([(column - reach, row), (column + reach, row)], fill=ink, width=thick)
            self.pen.line([(column, row - reach), (column, row + reach)], fill=ink, width=thick)

    def numbers(self) -> None:
        """Rows and columns of the picture, at its left and under it."""
        top, bottom, left, right = self.region
        pen, small = self.pen, font(15)
        for tick in _ticks(left, right):
            at = (self._x(tick + 0.5), self.corner[1] + self.height)
            pen.line([at, (at[0], at[1] + 6)], fill=FAINT)
            pen.text((at[0], at[1] + 9), str(tick), fill=FAINT, font=small, anchor="ma")
        for tick in _ticks(top, bottom):
            at = (self.corner[0], self._y(tick + 0.5))
            pen.line([at, (at[0] - 6, at[1])], fill=FAINT)
            pen.text((at[0] - 9, at[1]), str(tick), fill=FAINT, font=small, anchor="rm")

    def _shown(self, box: Box) -> Box:
        top, bottom, left, right = self.region
        return max(box[0], top), min(box[1], bottom), max(box[2], left), min(box[3], right)

    def _x(self, column: float) -> int:
        return self.corner[0] + round((column - self.region[2]) * self.scale)

    def _y(self, row: float) -> int:
        return self.corner[1] + round((row - self.region[0]) * self.scale)

    def _on_sheet(self, box: Box) -> Box:
        top, bottom, left, right = box
        return self._x(left), self._y(top), self._x(right + 1) - 1, self._y(bottom + 1) - 1

    def _sides(self, box: Box, grow: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Those of its four sides that lie within the panel, cut at its edge."""
        left, top, right, bottom = self._on_sheet(box)
        x, y = self.corner
        from_x, to_x, from_y, to_y = x, x + self.width - 1, y, y + self.height - 1
        a, b = max(left - grow, from_x), min(right + grow, to_x)
        c, d = max(top - grow, from_y), min(bottom + grow, to_y)
        lying = [((a, side), (b, side)) for side in (top, bottom) if from_y <= side <= to_y]
        return lying + [((side, c), (side, d)) for side in (left, right) if from_x <= side <= to_x]

    def _line(self, start: tuple[int, int], end: tuple[int, int], ink: Colour, thick: int, dash: int) -> None:
        long = abs(end[0] - start[0]) + abs(end[1] - start[1])
        along = (int(end[0] > start[0]), int(end[1] > start[1]))
        for place in range(0, max(1, long), 2 * dash) if dash else (0,):
            until = min(long, place + dash) if dash else long
            ends = [(start[0] + along[0] * at, start[1] + along[1] * at) for at in (place, until)]
            self.pen.line(ends, fill=ink, width=thick)


def sides_of(region: Box, scale: float) -> tuple[int, int]:
    """Width and height on a sheet of a part of a picture."""
    width, height = region[3] - region[2] + 1, region[1] - region[0] + 1
    return max(1, round(width * scale)), max(1, round(height * scale))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one that Pillow brings along, so that a drawing is alike on every machine."""
    return ImageFont.load_default(size)


def _ticks(first: int, last: int) -> range:
    step = max(1, int([*round_steps(last - first), 1.0][1]))
    return range(-(-first // step) * step, last + 1, step)
