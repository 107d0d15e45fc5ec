"""A glimpse as an image: what was seen, with the borders of its windows."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from foveal.retina import Glimpse

FOVEA, PERIPHERY, SHADE = (255, 206, 64, 255), (255, 255, 255, 150), (0, 0, 0, 90)
FINER = 4  # borders are drawn at so many times the size and shrunk, so that the ring at the fixation is round


def draw_glimpse(glimpse: Glimpse, *, picture: tuple[int, int] | None = None, longer_side: int = 1024) -> Image.Image:
    """Draws the first picture of a glimpse, with thin borders around its windows and a ring where it looked.

    Args:
        glimpse: of 3 channels.
        picture: its height and width, which the drawing follows; those at which it was read by default.
        longer_side: of the drawing, in pixels.

    Returns:
        An RGB image.

    Raises:
        ValueError: if the glimpse has no 3 channels.

    Example:
        >>> draw_glimpse(Retina(64, 3)(torch.rand(3, 300, 400))).size
        (1024, 768)
    """
    if glimpse.pixels.shape[2] != 3:
        raise ValueError(f"a glimpse of {glimpse.pixels.shape[2]} channels cannot be drawn; expected 3")
    sides = picture or glimpse.layout.pictures[0].tolist()
    height, width = (max(1, round(side * longer_side / max(sides))) for side in sides)
    seen = glimpse.render(height, width)[0].detach().clamp(0, 1)
    image = Image.fromarray((seen * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    return Image.alpha_composite(image.convert("RGBA"), _borders(glimpse, height, width)).convert("RGB")


def _borders(glimpse: Glimpse, height: int, width: int) -> Image.Image:
    """A transparent sheet with the windows' borders, the widest first, so that the fovea's lies on top."""
    layout = glimpse.layout
    down, across = (
        side * FINER / read for side, read in zip((height, width), layout.pictures[0].tolist(), strict=True)
    )
    sheet = Image.new("RGBA", (width * FINER, height * FINER))
    pen = ImageDraw.Draw(sheet)
    rows = zip(layout.levels[0].tolist(), layout.origins[0].tolist(), layout.valid[0].tolist(), strict=True)
    for level, (top, left), valid in sorted(rows, key=lambda row: -row[0]):
        side = layout.size << level
        whole = top <= 0 and left <= 0 and top + side >= layout.pictures[0, 0] and left + side >= layout.pictures[0, 1]
        if not valid or whole:  # a window that holds the whole picture has the drawing's own border
            continue
        corners = [(left, top), (left + side, top + side)]
        box = [round(value * to) for corner in corners for value, to in zip(corner, (across, down), strict=True)]
        for grow, colour in ((2, SHADE), (0, PERIPHERY if level else FOVEA)):
            line = (3 if level else 4) + grow  # in half pixels of the drawing
            pen.rectangle(_grown(box, grow * FINER // 4), outline=colour, width=line * FINER // 2)
    for y, x in layout.fixations[0].tolist():
        for radius, colour, line in ((9, SHADE, 4), (8, FOVEA, 2)):
            circle = [(x * width - radius) * FINER, (y * height - radius) * FINER]
            circle += [(x * width + radius) * FINER, (y * height + radius) * FINER]
            pen.ellipse(circle, outline=colour, width=line * FINER)
    return sheet.resize((width, height), Image.Resampling.BOX)


def _grown(box: list[int], by: int) -> list[int]:
    return [box[0] - by, box[1] - by, box[2] + by, box[3] + by]
