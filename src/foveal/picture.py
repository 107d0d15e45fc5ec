"""Opens anything that holds a picture and reads boxes of its pixels.

Files and PIL images come out as the RGB that a viewer shows; arrays and tensors keep their values. What cannot be
read is refused with a `PictureError` that names the source and the reason. Colour profiles are not applied.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "PictureLike", "open_picture"]

MAX_PIXELS = 300_000_000
"""Files and PIL images of more pixels are refused from their header, unless the caller sets another limit."""

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


class _Source(Protocol):
    """Where pixels come from: what another back end has to offer. Boxes are already checked."""

    height: int
    width: int
    channels: int

    def read(self, top: int, left: int, height: int, width: int) -> Tensor: ...


class Picture:
    """A picture of any origin, whose pixels are read as boxes. Made by `open_picture`; safe to share among threads.

    Attributes:
        name: what messages call it: the file, or "array", "tensor", "PIL image", else the source's type.
        height: in pixels, as a viewer shows it (after EXIF orientation).
        width: likewise.
        channels: 3 (RGB), or the number that a tensor came with.
    """

    def __init__(self, source: _Source, name: str) -> None:
        self._source = source
        self.name = name
        self.height = source.height
        self.width = source.width
        self.channels = source.channels

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, height={self.height}, width={self.width}, channels={self.channels})"

    def read(self, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> Tensor:
        """Reads the box whose first pixel is `(top, left)`; without sizes, all that lies below and right of it.

        Args:
            top: first row, in pixels.
            left: first column, in pixels.
            height: rows, at least 1.
            width: columns, at least 1.

        Returns:
            `(C, height, width)`, uint8 or the source's own float dtype. A view where possible: do not write into it.

        Raises:
            PictureError: the box leaves the picture, or the file turns out to be truncated or damaged.

        Example:
            >>> open_picture(torch.arange(12.0).view(3, 4)).read(1, 2, height=2, width=1)
            tensor([[[ 6.],
                     [10.]]])
        """
        top, left = operator.index(top), operator.index(left)
        height = self.height - top if height is None else operator.index(height)
        width = self.width - left if width is None else operator.index(width)
        rows, columns = top + height, left + width
        if not (0 <= top < rows <= self.height and 0 <= left < columns <= self.width):
            raise PictureError(
                f"{self.name}: the box of rows {top}:{rows} and columns {left}:{columns} is empty or leaves the "
                f"picture, which has {self.height} rows and {self.width} columns"
            )
        return self._source.read(top, left, height, width)


PictureLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | bytes | IO[bytes] | Picture


def open_picture(source: PictureLike, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Opens a picture. Of a file only the header is read here; its pixels are decoded once, at the first `read`.

    Files, bytes, binary file objects and PIL images become uint8 RGB: turned by their EXIF orientation, transparency
    over white, the first frame of an animation, 16-bit grey scaled so that 65535 is white.

    Arrays have channels last: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` with alpha (0 to 1 for floats), and
    become RGB likewise. uint8 stays as it is, uint16 and bool become uint8, floats keep their dtype and values.

    Tensors have channels first: `(H, W)` or `(C, H, W)`. uint8 and floats pass through with device, values, any
    number of channels and gradients; bool becomes uint8 (0 or 255).

    Args:
        source: path, encoded bytes, binary file object, PIL image, array, tensor, or a `Picture`, which is returned
            as it is.
        name: what messages call the picture, if not by its own name.
        max_pixels: largest height times width of a file or PIL image, judged before anything is decoded.

    Returns:
        The picture.

    Raises:
        PictureError: missing, unreadable, empty, not a picture, too large, without area, or of a shape or dtype not
            listed above. A file whose header is sound but whose pixels are damaged raises at the first `read`.

    Example:
        >>> picture = open_picture(np.zeros((480, 640), dtype=np.uint8))
        >>> picture.read(0, 0, 64, 64).shape
        torch.Size([3, 64, 64])
    """
    if isinstance(source, Picture):
        return source
    name = _one_line(_name_of(source) if name is None else name)
    return Picture(_source_of(source, name, max_pixels), name)


def _name_of(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, Image.Image):
        return os.fsdecode(getattr(source, "filename", "") or "PIL image")
    if isinstance(source, np.ndarray | Tensor):
        return "array" if isinstance(source, np.ndarray) else "tensor"
    name = getattr(source, "name", None)  # of a file made from a descriptor it is a number
    return name if hasattr(source, "read") and isinstance(name, str) else type(source).__name__


def _source_of(source: Any, name: str, max_pixels: int) -> _Source:
    if isinstance(source, np.ndarray):
        return _Memory(_from_array(source, name))
    if isinstance(source, Tensor):
        return _Memory(_from_tensor(source, name))
    if isinstance(source, Image.Image):
        _check_size(source.height, source.width, name, max_pixels)
        with _refusing(name, "cannot be decoded"):
            source.load()
            return _Memory(_as_rgb(source, _orientation(source)))
    if isinstance(source, str | os.PathLike):
        return _Encoded(_from_path(os.fsdecode(source), name), name, max_pixels)
    if hasattr(source, "read"):
        with _refusing(name, "cannot be read"):
            source = source.read()  # all of it now: it may be a pipe, and the caller may close it
    if not isinstance(source, bytes | bytearray | memoryview):
        raise PictureError(
            f"{name}: expected a path, bytes, a file object opened with 'rb', a PIL image, an array or a tensor, "
            f"not {type(source).__name__}"
        )
    if len(source) == 0:
        raise PictureError(f"{name}: is empty (0 bytes)")
    return _Encoded(partial(io.BytesIO, bytes(source)), name, max_pixels)


class _Memory:
    """Pixels that are there already: `(C, H, W)`."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.channels, self.height, self.width = pixels.shape

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        return self._pixels[:, top : top + height, left : left + width]


class _Encoded:
    """An encoded picture, which Pillow decodes whole when its first box is read."""

    channels = 3

    def __init__(self, opened: Callable[[], BinaryIO], name: str, max_pixels: int) -> None:
        self._opened, self._name, self._max_pixels = opened, name, max_pixels
        self._lock = threading.Lock()
        self._decoded: _Memory | None = None
        with _refusing(name, "cannot be opened"), opened() as file:
            image = self._header(file)
            if image.format == "PNG":
                _walk_png(image, file, name)
            self.height, self.width, self._orientation = _shown(image)

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        with self._lock:  # one thread decodes, the others wait for it
            if self._decoded is None:
                self._decoded = self._decode()
                del self._opened  # and with it the encoded bytes
        return self._decoded.read(top, left, height, width)

    def _header(self, file: BinaryIO) -> Image.Image:
        image = _identify(file, self._name)
        _check_size(image.height, image.width, self._name, self._max_pixels)
        return image

    def _decode(self) -> _Memory:
        with _refusing(self._name, "cannot be decoded"), self._opened() as file:
            image = self._header(file)
            _scale_transparency(image)
            image.load()
            decoded = _Memory(_as_rgb(image, self._orientation))
        if (decoded.height, decoded.width) != (self.height, self.width):
            raise PictureError(
                f"{self._name}: was opened as {self.height} x {self.width} pixels, but holds {decoded.height} x "
                f"{decoded.width}; it is damaged or has changed since"
            )
        return decoded


def _from_path(path: str, name: str) -> Callable[[], BinaryIO]:
    with _refusing(name, "cannot be opened"):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{name}: is a directory, expected a picture file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait for ever
        raise PictureError(f"{name}: is not a regular file; open it yourself and pass the file object")
    if status.st_size == 0:
        raise PictureError(f"{name}: the file is empty (0 bytes)")
    path = os.path.abspath(path)  # the working directory may change before the pixels are read
    return lambda: open(path, "rb")


def _from_array(array: np.ndarray, name: str) -> Tensor:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (grey or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PictureError(
            f"{name}: shape {array.shape} is none of (H, W), (H, W, 1), (H, W, 3), (H, W, 4); "
            f"with channels first, pass torch.from_numpy(array)"
        )
    if array.size == 0:
        raise PictureError(f"{name}: shape {array.shape} has no area, expected at least 1 x 1 pixel")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = _to_8_bits(array)
    elif array.dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise PictureError(f"{name}: dtype {array.dtype}, expected uint8, uint16, bool, float16, float32 or float64")
    if array.dtype != np.uint8 and not np.isfinite(array).all():
        raise PictureError(f"{name}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite; replace them")
    if array.shape[2:] == (4,):
        if array.dtype != np.uint8 and not 0 <= array[..., 3].min() <= array[..., 3].max() <= 1:
            raise PictureError(
                f"{name}: alpha from {array[..., 3].min()} to {array[..., 3].max()}, expected 0 to 1 in a float array; "
                f"scale it, or drop it with array[..., :3]"
            )
        array = _over_white(array)
    if not array.flags.writeable or any(step < 0 or step % array.itemsize for step in array.strides):
        array = array.copy()  # torch takes neither read-only memory nor such strides
    pixels = torch.from_numpy(array)
    if grey:
        return pixels.reshape(array.shape[:2]).expand(3, -1, -1)
    return pixels.permute(2, 0, 1)


def _from_tensor(tensor: Tensor, name: str) -> Tensor:
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3):
        raise PictureError(
            f"{name}: shape {shape}, expected (C, H, W) or (H, W); open the pictures of a batch one by one"
        )
    if 0 in shape:
        raise PictureError(f"{name}: shape {shape} has no area, expected at least 1 x 1 pixel and one channel")
    if tensor.layout != torch.strided:
        raise PictureError(f"{name}: layout {tensor.layout}, expected a dense tensor; call to_dense() first")
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8) * 255
    elif tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise PictureError(f"{name}: dtype {tensor.dtype}, expected uint8, bool or a float; convert and scale it first")
    return tensor if tensor.ndim == 3 else tensor[None]


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
        _one_line(f"{name}: is not a picture of a known format ({'; '.join(reasons) or 'no format fits'})")
    )


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise PictureError(f"{name}: {height} x {width} pixels have no area, expected at least 1 x 1")
    if height * width > max_pixels:
        raise PictureError(
            f"{name}: {height} x {width} = {height * width} pixels are more than the limit of {max_pixels}; "
            f"if you trust it, pass a larger max_pixels"
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
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    width, height = image.size
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        rgb[top:bottom] = _strip_as_rgb(image if rows >= height else image.crop((0, top, width, bottom)))
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _strip_as_rgb(strip: Image.Image) -> np.ndarray:
    """`(h, w, 3)` uint8, or `(h, w, 1)` where that means the same."""
    if strip.mode == "F":
        raise ValueError("float pixels have no agreed white; scale them yourself and pass the array")
    if strip.mode.startswith("I"):  # 16-bit grey, which older versions of Pillow hold in 32 bits
        grey = np.asarray(strip)[..., None]
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"grey from {grey.min()} to {grey.max()}, expected 0 to 65535; scale it and pass the array"
            )
        return np.where(grey == strip.info.get("transparency", -1), np.uint8(255), _to_8_bits(grey))
    if strip.has_transparency_data:
        return _over_white(np.asarray(strip.convert("RGBA")))
    return np.asarray(strip.convert("RGB"))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """uint16 range to uint8, rounded: 65535 becomes 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """`(H, W, 4)` to `(H, W, 3)` of the same dtype; white is 255 in uint8, 1 in floats."""
    if rgba.dtype != np.uint8:
        return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
    rgba = rgba.astype(np.uint16)  # wide enough: 255 * 255 + 127 is the largest sum
    return ((rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255).astype(np.uint8)


@contextlib.contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """Drivers raise nearly every type of exception on hostile files; they all leave here as `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(_one_line(f"{name}: {what}: {reason}")) from error


def _one_line(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
