"""Large files read in parts through libvips: single tiles of tiled and pyramid TIFF and of slides, JPEG and WebP at the
shrink that they can be decoded at. What is decoded at once stays small, however large the picture is.

Pillow, which reads all other files, decodes a picture whole.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.picture_files import PictureError, is_small, over_white, refusing
from foveal.span import Span

LARGE = 16_000_000
"""Pixels from which on a file is read through libvips, where that is installed."""

NEAR = 1 << 19
"""A box of so few pixels is read from a JPEG as it is, so that the windows at the fixation share one pass over it."""

_STRICT = {"fail_on": "truncated"}  # libvips would paint what is missing grey

_DECODED = (1, 2, 4, 8)  # what the inverse cosine transform of a JPEG can leave out


def vips_is_there() -> bool:
    """Whether pyvips is installed."""
    return importlib.util.find_spec("pyvips") is not None


def large_picture(path: str, name: str, *, max_pixels: int, exact: bool = False) -> VipsPicture | None:
    """The file as a picture that is read in parts, if it is one of those that can be; else None.

    Args:
        path: of the file.
        name: what messages call it.
        max_pixels: for formats that are decoded from their beginning. Tiles are not limited: only those that are
            looked at are decoded.
        exact: read every pixel, and no smaller copy.
    """
    if not vips_is_there() or is_small(path, LARGE):
        return None
    import pyvips

    try:
        header = pyvips.Image.new_from_file(path, access="sequential")
    except pyvips.Error:
        return None  # Pillow may know it, or can say what is wrong
    loader, pixels = header.get("vips-loader"), header.width * header.height
    plain = header.format == "uchar" and header.bands in (1, 3, 4) and header.interpretation in ("srgb", "b-w")
    if pixels < LARGE or not plain:
        return None
    tiled = loader == "openslideload" or (loader == "tiffload" and header.get_typeof("tile-width"))
    levels: list[dict[str, Any]]
    if loader == "openslideload":
        levels = [{"level": level} for level in range(int(header.get("openslide.level-count")))]
    elif tiled:
        levels = _tiff_levels(header)
    elif loader in ("jpegload", "webpload") and pixels <= max_pixels:
        levels = [{"shrink": shrink} if loader == "jpegload" else {"scale": 1 / shrink} for shrink in _DECODED]
    else:
        return None
    return VipsPicture(path, name, levels[:1] if exact else levels, tiled=bool(tiled))


def _tiff_levels(header: Any) -> list[dict[str, Any]]:
    """What to ask for each level of a pyramid; a TIFF of several pages that do not halve is no pyramid."""
    import pyvips

    if header.get_typeof("n-subifds") and header.get("n-subifds") > 0:
        asked = [{}, *({"subifd": number} for number in range(int(header.get("n-subifds"))))]
    else:
        asked = [{"page": number} for number in range(int(header.get("n-pages")))]
    levels: list[dict[str, Any]] = []
    width, height = header.width, header.height
    for options in asked:
        try:
            image = pyvips.Image.new_from_file(header.filename, **options)
        except pyvips.Error:
            break
        halved = abs(image.width - width) <= 1 and abs(image.height - height) <= 1
        if not halved or image.bands != header.bands:
            break
        levels.append(options)
        width, height = (image.width + 1) // 2, (image.height + 1) // 2
    return levels


class VipsPicture:
    """A large file whose boxes are read one by one; made by `large_picture`."""

    channels = 3

    def __init__(self, path: str, name: str, levels: list[dict[str, Any]], *, tiled: bool) -> None:
        self._path, self._name, self._tiled = str(Path(path).resolve()), name, tiled
        self._options = levels
        self._images: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[tuple[int, int, int, int], Tensor]] = {}
        with refusing(name, "cannot be opened"):
            sizes = [self._image(number) for number in range(len(levels))]
            orientation = sizes[0].get("orientation") if sizes[0].get_typeof("orientation") else 1
        self._orientation = orientation if 1 <= orientation <= 8 else 1
        turned = self._orientation >= 5
        self._sizes = [(image.width, image.height) if turned else (image.height, image.width) for image in sizes]
        self.height, self.width = self._sizes[0]
        longer = max(self.height, self.width)  # the shorter side may be a pixel in all of them
        self.sizes = {round(longer / max(sides)): sides for sides in reversed(self._sizes)}

    def best_shrink(self, rows: Span, columns: Span) -> int:
        """The shrink at which a window is read best: its cells average more pixels than that anyway."""
        if not self._tiled and max(1, rows.last - rows.first) * max(1, columns.last - columns.first) <= NEAR:
            return 1
        step = min(rows.step, columns.step)
        return max((shrink for shrink in self.sizes if shrink <= step + 1e-9), default=1)

    def hold(self, top: int, left: int, height: int, width: int, shrink: int) -> None:
        """Decodes a box that will be read in parts, if each part would mean decoding from the beginning."""
        if not self._tiled:
            self.read(top, left, height, width, shrink)

    def read(self, top: int, left: int, height: int, width: int, shrink: int = 1) -> Tensor:
        box = (top, left, height, width)
        with self._lock:  # libvips shares its tiles among threads; what is kept here is not shared by itself
            kept = self._kept.get(shrink)
            if kept is not None and _holds(kept[0], box):
                (above, before, _, _), pixels = kept
                return pixels[:, top - above : top - above + height, left - before : left - before + width]
            with refusing(self._name, "cannot be decoded"):
                pixels = self._decoded(shrink, box)
            if not self._tiled:
                self._kept[shrink] = (box, pixels)
        return pixels

    def _image(self, number: int) -> Any:
        import pyvips

        if self._tiled:
            if number not in self._images:
                self._images[number] = pyvips.Image.new_from_file(self._path, **_STRICT, **self._options[number])
            return self._images[number]
        return pyvips.Image.new_from_file(self._path, access="sequential", **_STRICT, **self._options[number])

    def _decoded(self, shrink: int, box: tuple[int, int, int, int]) -> Tensor:
        import pyvips

        number = self._sizes.index(self.sizes[shrink])
        image = self._image(number)
        stored = (image.width, image.height) if self._orientation >= 5 else (image.height, image.width)
        if stored != self._sizes[number]:
            raise PictureError(f"{self._name}: has changed since it was opened")
        top, left, height, width = _stored_box(box, self._sizes[number], self._orientation)
        try:
            memory = image.crop(left, top, width, height).write_to_memory()
        except pyvips.Error as error:
            raise PictureError(f"{self._name}: cannot be decoded: {' '.join(str(error).split())[:200]}") from error
        pixels = np.frombuffer(memory, dtype=np.uint8).reshape(height, width, image.bands)
        pixels = over_white(pixels) if image.bands == 4 else pixels
        shown = _turned(torch.from_numpy(pixels.copy()).permute(2, 0, 1), self._orientation)
        return shown.expand(3, -1, -1)


def _holds(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return all(
        start <= first and first + side <= start + length
        for start, length, first, side in zip(outer[:2], outer[2:], inner[:2], inner[2:], strict=True)
    )


def _stored_box(box: tuple[int, int, int, int], size: tuple[int, int], orientation: int) -> tuple[int, int, int, int]:
    """Where a box of the picture as it is shown lies in the file; orientations as in EXIF, 1 to 8."""
    top, left, height, width = box
    tall, wide = size
    top = tall - top - height if orientation in (3, 4, 7, 8) else top
    left = wide - left - width if orientation in (2, 3, 6, 7) else left
    return (left, top, width, height) if orientation >= 5 else (top, left, height, width)


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """(C, h, w) as stored -> as shown."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    return pixels
