"""Pictures that Pillow decodes: files, encoded bytes and PIL images, as the RGB that a viewer shows.

Whatever a hostile file makes a driver do leaves here as a `PictureError`. Colour profiles are not applied.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor

_STRIP_PIXELS = 1 << 22  # pixels converted at a time, so that temporaries stay small beside a large picture
_DRAWINGS = ("EPS", "WMF")  # Pillow draws these through another program, which a picture must not be able to start
_TURNS = {  # from the pixels as stored to the picture as shown, for each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class PictureError(ValueError):
    """A picture cannot be read. The message is one line: the source's name, then the reason."""


def pil_pixels(image: Image.Image, name: str, max_pixels: int) -> Tensor:
    """`(3, H, W)` uint8 of a PIL image."""
    _check_size(image.height, image.width, name, max_pixels)
    with refusing(name, "cannot be decoded"):
        image.load()
        return _as_rgb(image, _orientation(image))


def picture_file(path: str, name: str) -> Callable[[], BinaryIO]:
    """Opens a file, from wherever the working directory has moved to."""
    with refusing(name, "cannot be opened"):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{name}: is a directory, expected a picture file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait for ever
        raise PictureError(f"{name}: is not a regular file; open it yourself and pass the file object")
    if status.st_size == 0:
        raise PictureError(f"{name}: the file is empty (0 bytes)")
    path = os.path.abspath(path)  # the working directory may change before the pixels are read
    return lambda: open(path, "rb")


def is_small(path: str, pixels: int) -> bool:
    """Whether a file's header says that it has fewer pixels; False where Pillow cannot read it."""
    try:
        with open(path, "rb") as file:
            image = _identify(file, path)
            return image.width * image.height < pixels
    except Exception:
        return False


def picture_bytes(data: bytes | bytearray | memoryview, name: str) -> Callable[[], BinaryIO]:
    """Opens encoded bytes."""
    if len(data) == 0:
        raise PictureError(f"{name}: is empty (0 bytes)")
    return partial(io.BytesIO, bytes(data))


class EncodedPicture:
    """An encoded picture, which Pillow decodes whole when its first box is read."""

    channels = 3

    def __init__(self, opened: Callable[[], BinaryIO], name: str, max_pixels: int) -> None:
        self._opened, self._name, self._max_pixels = opened, name, max_pixels
        self._lock = threading.Lock()
        self._decoded: Tensor | None = None
        with refusing(name, "cannot be opened"), opened() as file:
            image = self._header(file)
            if image.format == "PNG":
                _walk_png(image, file, name)
            self.height, self.width, self._orientation = _shown(image)

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        with self._lock:  # one thread decodes, the others wait for it
            if self._decoded is None:
                self._decoded = self._decode()
                del self._opened  # and with it the encoded bytes
        return self._decoded[:, top : top + height, left : left + width]

    def _header(self, file: BinaryIO) -> Image.Image:
        image = _identify(file, self._name)
        _check_size(image.height, image.width, self._name, self._max_pixels)
        return image

    def _decode(self) -> Tensor:
        with refusing(self._name, "cannot be decoded"), self._opened() as file:
            image = self._header(file)
            _scale_transparency(image)
            image.load()
            decoded = _as_rgb(image, self._orientation)
        height, width = decoded.shape[1:]
        if (height, width) != (self.height, self.width):
            raise PictureError(
                f"{self._name}: was opened as {self.height} x {self.width} pixels, but holds {height} x "
                f"{width}; it is damaged or has changed since"
            )
        return decoded


def _identify(file: BinaryIO, name: str) -> Image.Image:
    """Reads the header as `Image.open` does, but leaves judging the size to the caller.

    Pillow's own limit is global and speaks through a warning, and a warning cannot be silenced for one thread alone.
    """
    start = file.read(16)
    reasons = []
    tried: set[str] = set()
    for load_drivers in (Image.preinit, Image.init):  # the common formats first
        load_drivers()
        for kind in [kind for kind in Image.ID if kind not in tried]:
            tried.add(kind)
            driver, accepts = Image.OPEN[kind]
            try:
                accepted = accepts is None or accepts(start)
                if isinstance(accepted, str):  # a format that this build of Pillow leaves out
                    reasons.append(accepted)
                elif accepted and kind in _DRAWINGS:
                    reasons.append(f"{kind} is a drawing, export it as PNG")
                elif accepted:
                    file.seek(0)
                    return driver(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                if accepts is not None:
                    reasons.append(f"it starts like {kind}, but its header is damaged or has no area: {error}")
    raise PictureError(
        one_line(f"{name}: is not a picture of a known format ({'; '.join(reasons) or 'no format fits'})")
    )


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise PictureError(f"{name}: {height} x {width} pixels have no area, expected at least 1 x 1")
    if height * width > max_pixels:
        raise PictureError(
            f"{name}: {height} x {width} = {height * width} pixels are more than the limit of {max_pixels}; "
            f"shrink it first, or, if you trust it, open it in Python with a larger max_pixels"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Damaged EXIF counts as none, as in viewers."""
    value = None
    with contextlib.suppress(Exception):
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)  # PNG's own getexif would decode
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _shown(image: Any) -> tuple[int, int, int]:
    """Height and width as shown, and the turn that is left to do once `image` is loaded."""
    width, height = image.size
    orientation = _orientation(image)
    if image.format == "TIFF":  # Pillow turns these when it loads them; some versions report the turned size before
        width, height = image.tag_v2[256], image.tag_v2[257]
    if orientation >= 5:
        height, width = width, height
    return height, width, 1 if image.format == "TIFF" else orientation


def _walk_png(image: Image.Image, file: BinaryIO, name: str) -> None:
    """Steps over the chunks of a PNG to its end: EXIF data may follow the pixels, and a truncated file shows itself."""
    file.seek(8)
    while True:
        header = file.read(8)
        length, kind = struct.unpack(">I4s", header) if len(header) == 8 else (0, b"")
        if kind == b"eXIf" and length < 1 << 20:
            image.info.setdefault("exif", b"Exif\0\0" + file.read(length))
        else:
            file.seek(length, os.SEEK_CUR)
        if len(file.read(4)) < 4:  # the checksum
            raise PictureError(f"{name}: the file is truncated, its end is missing")
        if kind == b"IEND":
            return


def _scale_transparency(image: Any) -> None:
    """Pillow scales grey of 2 and 4 bits and RGB of 16 bits to 8, but not the value that a PNG declares transparent."""
    value = image.info.get("transparency")
    if image.format == "PNG" and value is not None and image.tile:
        rawmode = image.tile[0][3]
        if rawmode in ("L;2", "L;4"):
            image.info["transparency"] = value * {"L;2": 85, "L;4": 17}[rawmode]
        elif rawmode == "RGB;16B":
            image.info["transparency"] = tuple(part >> 8 for part in value)


def _as_rgb(image: Image.Image, orientation: int) -> Tensor:
    """`(3, H, W)` uint8 of a loaded image, turned by its EXIF orientation."""
    inverted = _is_inverted(image)  # known to the file's own image alone, not to what is cut or turned from it
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    width, height = image.size
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        rgb[top:bottom] = _strip_as_rgb(
            image if rows >= height else image.crop((0, top, width, bottom)), inverted=inverted
        )
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _is_inverted(image: Any) -> bool:
    """Whether 0 is white in the values that Pillow gives of a TIFF: it turns 8 bits round, but not 16.

    Raises:
        ValueError: for negative values of 8 bits, which Pillow gives as if they were bright.
    """
    if image.format != "TIFF":
        return False
    if image.mode == "L" and tuple(image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, ())) == (2,):
        grey = np.asarray(image).view(np.int8)
        if grey.min() < 0:
            raise ValueError(f"grey from {grey.min()} to {grey.max()}, expected 0 to 255; scale it and pass the array")
    inverted: bool = image.mode == "I;16" and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return inverted


def _strip_as_rgb(strip: Image.Image, *, inverted: bool) -> np.ndarray:
    """`(h, w, 3)` uint8, or `(h, w, 1)` where that means the same."""
    if strip.mode == "F":
        raise ValueError("float pixels have no agreed white; scale them yourself and pass the array")
    if strip.mode.startswith("I"):  # 16-bit grey, which older versions of Pillow hold in 32 bits
        grey = np.asarray(strip)[..., None]
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"grey from {grey.min()} to {grey.max()}, expected 0 to 65535; scale it and pass the array"
            )
        if inverted:
            grey = 65535 - grey
        return np.where(grey == strip.info.get("transparency", -1), np.uint8(255), to_8_bits(grey))
    if strip.has_transparency_data:
        return over_white(np.asarray(strip.convert("RGBA")))
    return np.asarray(strip.convert("RGB"))


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """uint16 range to uint8, rounded: 65535 becomes 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """`(H, W, 4)` to `(H, W, 3)` of the same dtype; white is 255 in uint8, 1 in floats."""
    if rgba.dtype != np.uint8:
        return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
    rgba = rgba.astype(np.uint16)  # wide enough: 255 * 255 + 127 is the largest sum
    return ((rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255).astype(np.uint8)


@contextlib.contextmanager
def refusing(name: str, what: str) -> Iterator[None]:
    """Drivers raise nearly every type of exception on hostile files; they all leave here as `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(one_line(f"{name}: {what}: {reason}")) from error


def one_line(text: str) -> str:
    """The text with what could break a line, or a terminal, written as escapes."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
