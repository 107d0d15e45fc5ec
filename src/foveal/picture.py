"""Opens anything that holds a picture and reads boxes of its pixels.

Files and PIL images come out as the RGB that a viewer shows; arrays and tensors keep their values. What cannot be
read is refused with a `PictureError` that names the source and the reason.
"""

from __future__ import annotations

import operator
import os
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.arguments import whole_number
from foveal.large_files import large_picture
from foveal.picture_files import (
    EncodedPicture,
    PictureError,
    one_line,
    over_white,
    picture_bytes,
    picture_file,
    pil_pixels,
    refusing,
    to_8_bits,
)
from foveal.pyramid import Pyramid
from foveal.span import Span

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "PictureLike", "open_picture"]

MAX_PIXELS = 300_000_000
"""Files and PIL images of more pixels are refused from their header, unless the caller sets another limit."""


class _Source(Protocol):
    """Where pixels come from: what another back end has to offer. Boxes are already checked."""

    height: int
    width: int
    channels: int

    def read(self, top: int, left: int, height: int, width: int) -> Tensor: ...


@runtime_checkable
class _Shrinking(Protocol):
    """A source that can also be read smaller than it is."""

    sizes: dict[int, tuple[int, int]]

    def best_shrink(self, rows: Span, columns: Span) -> int: ...

    def hold(self, top: int, left: int, height: int, width: int, shrink: int) -> None: ...

    def read(self, top: int, left: int, height: int, width: int, shrink: int = 1) -> Tensor: ...


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
        self._shrinking = source if isinstance(source, _Shrinking) else None
        self.name = name
        self.height = source.height
        self.width = source.width
        self.channels = source.channels

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, height={self.height}, width={self.width}, channels={self.channels})"

    @property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """Height and width at every shrink at which the file itself can be read; 1 is as it is."""
        return {1: (self.height, self.width)} if self._shrinking is None else self._shrinking.sizes

    def best_shrink(self, rows: Span, columns: Span) -> int:
        """The shrink at which a window is best read.

        Args:
            rows: its cells, in pixels of the picture.
            columns: likewise.

        Returns:
            One of `sizes`, no larger than a cell; 1 for pictures that have no others.
        """
        return 1 if self._shrinking is None else self._shrinking.best_shrink(rows, columns)

    def pyramid(self) -> Picture:
        """The same picture with smaller copies of itself in memory, for many looks at it.

        A window whose cells are whole pixels of a copy is read from there, and holds the same averages up to rounding;
        any other is averaged from the picture itself, and so are all of pixels that gradients flow to. Copies are made
        when they are first needed, and stay as they are; all of them hold a third as many pixels as the picture, as
        floats. A file that stores its own pyramid keeps to that.

        Example:
            >>> open_picture(torch.rand(3, 100, 64)).pyramid().sizes
            {1: (100, 64), 2: (50, 32), 4: (25, 16), 8: (13, 8)}
        """
        if len(self.sizes) > 1:
            return self
        return Picture(Pyramid(self.read, self.channels, self.height, self.width), self.name)

    def hold(self, top: int, left: int, height: int, width: int, *, shrink: int) -> None:
        """Says that a box will be read in parts, one after the other: a file that has to be decoded from its beginning
        each time then does it once."""
        if self._shrinking is not None:
            self._shrinking.hold(top, left, height, width, shrink)

    def read(
        self,
        top: int = 0,
        left: int = 0,
        height: int | None = None,
        width: int | None = None,
        *,
        shrink: int = 1,
    ) -> Tensor:
        """Reads the box whose first pixel is `(top, left)`; without sizes, all that lies below and right of it.

        Args:
            top: first row, in pixels.
            left: first column, in pixels.
            height: rows, at least 1.
            width: columns, at least 1.
            shrink: one of `sizes`; the box is then one of the smaller picture, in its pixels.

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
        if shrink not in self.sizes:
            raise PictureError(f"{self.name}: cannot be read at a shrink of {shrink}; it has {sorted(self.sizes)}")
        tall, wide = self.sizes[shrink]
        height = tall - top if height is None else operator.index(height)
        width = wide - left if width is None else operator.index(width)
        rows, columns = top + height, left + width
        if not (0 <= top < rows <= tall and 0 <= left < columns <= wide):
            raise PictureError(
                f"{self.name}: the box of rows {top}:{rows} and columns {left}:{columns} is empty or leaves the "
                f"picture, which has {tall} rows and {wide} columns"
            )
        if self._shrinking is not None:
            return self._shrinking.read(top, left, height, width, shrink)
        return self._source.read(top, left, height, width)


PictureLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | bytes | IO[bytes] | Picture


def open_picture(
    source: PictureLike, *, name: str | None = None, max_pixels: int = MAX_PIXELS, exact: bool = False
) -> Picture:
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
        max_pixels: largest height times width of a file or PIL image, judged before anything is decoded. Tiled files
            that are read in parts may be larger.
        exact: of large files (16 million pixels, with pyvips installed) read every pixel, and leave the smaller copies
            that a pyramid stores, or that a JPEG can be decoded to, alone.

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
    max_pixels = whole_number(max_pixels, "max_pixels", 1)
    name = one_line(_name_of(source) if name is None else name)
    return Picture(_source_of(source, name, max_pixels, exact), name)


def _name_of(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, Image.Image):
        return os.fsdecode(getattr(source, "filename", "") or "PIL image")
    if isinstance(source, np.ndarray | Tensor):
        return "array" if isinstance(source, np.ndarray) else "tensor"
    name = getattr(source, "name", None)  # of a file made from a descriptor it is a number
    return name if hasattr(source, "read") and isinstance(name, str) else type(source).__name__


def _source_of(source: Any, name: str, max_pixels: int, exact: bool) -> _Source:
    if isinstance(source, np.ndarray):
        return _Memory(_from_array(source, name))
    if isinstance(source, Tensor):
        return _Memory(_from_tensor(source, name))
    if isinstance(source, Image.Image):
        return _Memory(pil_pixels(source, name, max_pixels))
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        opened = picture_file(path, name)  # what is no picture file is refused in our words
        return large_picture(path, name, max_pixels=max_pixels, exact=exact) or EncodedPicture(opened, name, max_pixels)
    if hasattr(source, "read"):
        with refusing(name, "cannot be read"):
            source = source.read()  # all of it now: it may be a pipe, and the caller may close it
    if not isinstance(source, bytes | bytearray | memoryview):
        raise PictureError(
            f"{name}: expected a path, bytes, a file object opened with 'rb', a PIL image, an array or a tensor, "
            f"not {type(source).__name__}"
        )
    return EncodedPicture(picture_bytes(source, name), name, max_pixels)


class _Memory:
    """Pixels that are there already: `(C, H, W)`."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.channels, self.height, self.width = pixels.shape

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        return self._pixels[:, top : top + height, left : left + width]


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
        array = to_8_bits(array)
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
        array = over_white(array)
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
