"""Everything that a picture can come from, and everything that must be refused."""

import contextlib
import doctest
import io
import os
import struct
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import foveal.picture as picture_module
import foveal.picture_files as picture_files_module
from foveal.picture import MAX_PIXELS, Picture, PictureError, open_picture

NOISE = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)

# Where the EXIF standard puts the stored row 0 and column 0 of each orientation on the shown picture.
EXIF_SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_shown(stored, orientation):
    """The picture that the standard's table describes, pixel by pixel."""
    rows, columns, _ = stored.shape
    row_side, column_side = EXIF_SIDES[orientation]
    height, width = (rows, columns) if row_side in ("top", "bottom") else (columns, rows)
    shown = np.zeros((height, width, 3), np.uint8)
    for r in range(rows):
        for c in range(columns):
            place = {}
            for side, step in ((row_side, r), (column_side, c)):
                axis = "y" if side in ("top", "bottom") else "x"
                last = (height if axis == "y" else width) - 1
                place[axis] = step if side in ("top", "left") else last - step
            shown[place["y"], place["x"]] = stored[r, c]
    return shown


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, before=(), after=()):
    """A PNG written by hand; `rows` are the packed bytes of each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + b"".join(after) + chunk(b"IEND", b"")


def pixels(source, **options):
    """What is read, as `(H, W, 3)`, after checking what every picture promises."""
    picture = open_picture(source, **options)
    read = picture.read()
    assert read.shape == (picture.channels, picture.height, picture.width)
    return read.permute(1, 2, 0).numpy()


def refused(source, *parts, **options):
    """Opens and reads, and checks that this ends in one line that holds all the parts. Returns that line."""
    with pytest.raises(PictureError) as caught:
        open_picture(source, **options).read()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


# ---------------------------------------------------------------------------------------------- files and PIL images


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_lossless_files_come_back_pixel_for_pixel(kind, tmp_path):
    image = Image.fromarray(NOISE)
    if kind == "GIF":
        image = image.quantize(64)
    path = tmp_path / f"noise.{kind.lower()}"
    image.save(path, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    picture = open_picture(path)
    assert (picture.height, picture.width, picture.channels, picture.name) == (23, 31, 3, str(path))
    read = picture.read()
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read.permute(1, 2, 0), np.asarray(image.convert("RGB")))


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    path = tmp_path / "noise.png"
    path.write_bytes(encode(Image.fromarray(NOISE), "PNG"))
    with open(path, "rb") as file:
        opened = open_picture(file)
    for source in (str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes()), opened, Image.open(path)):
        np.testing.assert_array_equal(pixels(source), NOISE)
    assert opened.name == str(path)
    assert open_picture(opened) is opened
    assert open_picture(io.BytesIO(path.read_bytes())).name == "BytesIO"
    assert open_picture(path.read_bytes()).name == "bytes"
    assert open_picture(Image.fromarray(NOISE)).name == "PIL image"
    assert open_picture(path.read_bytes(), name="upload 7").name == "upload 7"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF LZW"])
def test_exif_orientation_is_applied(kind, orientation):
    image = Image.fromarray(NOISE)
    options = {"WEBP": {"lossless": True, "exact": True}, "TIFF LZW": {"compression": "tiff_lzw"}}.get(kind, {})
    kind = kind.split()[0]
    stored = np.asarray(Image.open(io.BytesIO(encode(image, kind, **options))).convert("RGB"))
    data = encode(image, kind, exif=exif(orientation), **options)
    expected = as_shown(stored, orientation)
    picture = open_picture(data)
    assert (picture.height, picture.width) == expected.shape[:2]
    np.testing.assert_array_equal(pixels(data), expected)
    unloaded = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(pixels(unloaded), expected)
    np.testing.assert_array_equal(pixels(unloaded), expected, "a PIL image is turned twice when it is opened twice")


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_pictures_converted_in_strips_are_the_same(orientation, monkeypatch):
    rgba = np.dstack([NOISE, NOISE[..., :1]])
    sources = [encode(Image.fromarray(a), "PNG", exif=exif(orientation)) for a in (NOISE, rgba)]
    sources.append(encode(Image.fromarray(NOISE).quantize(9), "PNG", exif=exif(orientation), transparency=3))
    whole = [pixels(source) for source in sources]
    monkeypatch.setattr(picture_files_module, "_STRIP_PIXELS", 31 * 5)
    for source, expected in zip(sources, whole, strict=True):
        np.testing.assert_array_equal(pixels(source), expected)


def test_exif_that_follows_the_pixels_of_a_png_is_applied():
    rows = [NOISE[r].tobytes() for r in range(23)]
    late = png(31, 23, 8, 2, rows, after=[chunk(b"eXIf", exif(6).tobytes()[6:])])
    picture = open_picture(late)
    assert (picture.height, picture.width) == (31, 23)
    np.testing.assert_array_equal(pixels(late), as_shown(NOISE, 6))


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_impossible_orientation_counts_as_none(orientation):
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(NOISE), "PNG", exif=exif(orientation))), NOISE)


def test_damaged_exif_counts_as_none():
    rows = [NOISE[r].tobytes() for r in range(23)]
    np.testing.assert_array_equal(pixels(png(31, 23, 8, 2, rows, before=[chunk(b"eXIf", b"nonsense" * 9)])), NOISE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(mode):
    levels = np.arange(256, dtype=np.uint8)
    alpha = np.broadcast_to(levels[:, None], (256, 256))
    colour = np.broadcast_to(levels[None], (256, 256))
    channels = [colour, 255 - colour, colour // 2] if mode == "RGBA" else [colour]
    data = encode(Image.fromarray(np.dstack([*channels, alpha]), mode), "PNG")
    weight = alpha[..., None] / 255
    exact = np.dstack(channels) * weight + 255 * (1 - weight)
    np.testing.assert_array_equal(pixels(data), np.broadcast_to(np.rint(exact), (256, 256, 3)))


def test_palettes_give_their_colours_and_transparent_entries_give_white():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    assert pixels(image).tolist() == [[[*red], [*green], [*blue]]]
    assert pixels(encode(image, "PNG")).tolist() == [[[*red], [*green], [*blue]]]
    assert pixels(encode(image, "PNG", transparency=1)).tolist() == [[[*red], [*white], [*blue]]]
    half = encode(image, "PNG", transparency=bytes([255, 0, 51]))
    assert pixels(half).tolist() == [[[*red], [*white], [204, 204, 255]]]
    assert pixels(encode(image, "GIF", transparency=1)).tolist() == [[[*red], [*white], [*blue]]]


@pytest.mark.parametrize("source", ["file", "PIL image"])
def test_cmyk_jpegs_show_their_inks(source):
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): (255, 0, 0)}
    for ink, shown in {**inks, (0, 0, 0, 255): (0, 0, 0)}.items():
        data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        read = pixels(data if source == "file" else Image.open(io.BytesIO(data)))
        np.testing.assert_allclose(read.astype(int), np.broadcast_to(shown, (16, 16, 3)), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "I;16", "I;16B", "I"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind):
    grey = np.array([[0, 128, 129, 255, 256], [257, 32768, 40000, 65406, 65535]], np.uint16)
    if kind == "PNG":
        source = png(5, 2, 16, 0, [row.astype(">u2").tobytes() for row in grey])
    elif kind == "PPM":
        source = b"P5 5 2 65535\n" + grey.astype(">u2").tobytes()
    elif kind == "I;16B":
        source = Image.frombytes("I;16B", (5, 2), grey.astype(">u2").tobytes())
    elif kind == "I":
        source = Image.fromarray(grey.astype(np.int32))
    else:
        source = Image.fromarray(grey)
        source = encode(source, "TIFF") if kind == "TIFF" else source
    expected = np.rint(grey / 65535 * 255).astype(np.uint8)
    assert expected.max() == 255
    np.testing.assert_array_equal(pixels(source), np.broadcast_to(expected[..., None], (2, 5, 3)))


def grey_tiff(values, photometric, sample_format):
    """A TIFF of one strip, which Pillow cannot write so."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 8 * values.itemsize), (259, 1), (262, photometric), (273, 0), (277, 1)]
    tags += [(278, height), (279, values.nbytes), (339, sample_format)]
    at = 8 + 2 + 12 * len(tags) + 4
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, at if tag == 273 else value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + rows + bytes(4) + values.tobytes()


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("source", ["file", "PIL"])
def test_a_tiff_whose_white_is_zero_is_shown_so(dtype, source, monkeypatch):
    most = np.iinfo(dtype).max
    grey = np.array([[0, most, most // 3], [most // 2, 1, most - 1], [0, 0, most]], dtype)
    expected = np.rint((most - grey.astype(float)) / most * 255).astype(np.uint8)[..., None]
    for strip in (1 << 22, 3):  # in one, and row by row
        monkeypatch.setattr("foveal.picture_files._STRIP_PIXELS", strip)
        data = grey_tiff(grey, 0, 1)
        read = pixels(data if source == "file" else Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(read, np.broadcast_to(expected, (3, 3, 3)))
        np.testing.assert_array_equal(pixels(grey_tiff(grey, 1, 1)), np.broadcast_to(255 - expected, (3, 3, 3)))


def test_negative_grey_of_a_tiff_is_refused():
    np.testing.assert_array_equal(pixels(grey_tiff(np.full((2, 3), 7, np.int8), 1, 2)), 7)
    for dtype in (np.int8, "<i2", "<i4"):
        with pytest.raises(PictureError, match="grey from -5 to 7"):
            pixels(grey_tiff(np.array([[-5, 7]], dtype), 1, 2))


def test_sixteen_bit_colour_is_scaled():
    deep = NOISE.astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels(png(31, 23, 16, 2, [row.astype(">u2").tobytes() for row in deep])), NOISE)


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "shown"),
    [
        (1, b"\x40", 1, [0, 255, 0, 0]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x01\x23", 2, [0, 17, 255, 51]),
        (8, b"\x00\x07\x08\x09", 7, [0, 255, 8, 9]),
        (16, b"\x00\x00\x10\x00\x10\x01\x20\x00", 0x1000, [0, 255, 16, 32]),
    ],
)
def test_the_transparent_grey_of_a_png_is_white_at_every_bit_depth(depth, row, transparent, shown):
    data = png(4, 1, depth, 0, [row], before=[chunk(b"tRNS", struct.pack(">H", transparent))])
    assert pixels(data)[0, :, 0].tolist() == shown


@pytest.mark.parametrize(("depth", "unit"), [(8, "B"), (16, ">H")])
def test_the_transparent_colour_of_a_png_is_white(depth, unit):
    low, high = (10, 20) if depth == 8 else (10 * 256 + 10, 20 * 256 + 20)
    row = b"".join(struct.pack(unit, value) for value in (low, high, low, low, low, high))
    data = png(2, 1, depth, 2, [row], before=[chunk(b"tRNS", struct.pack(">HHH", low, high, low))])
    assert pixels(data).tolist() == [[[255, 255, 255], [10, 10, 20]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_pictures_are_black_and_white(kind):
    bits = NOISE[..., 0] > 127
    expected = np.broadcast_to(bits[..., None] * np.uint8(255), (23, 31, 3))
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(bits), kind)), expected)


def test_greyscale_has_three_equal_channels():
    data = encode(Image.fromarray(NOISE[..., 0]), "PNG")
    np.testing.assert_array_equal(pixels(data), np.broadcast_to(NOISE[..., :1], (23, 31, 3)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_shown(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(pixels(data), np.broadcast_to((200, 0, 0), (6, 8, 3)))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa", "PA"])
def test_other_modes_of_pil_images_become_rgb(mode):
    image = Image.new("RGB", (4, 3), (255, 0, 0))
    image = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode if mode != "PA" else "P")
    if mode == "PA":
        image = image.convert("PA")
    assert image.mode == mode
    np.testing.assert_allclose(pixels(image).astype(int), np.broadcast_to((255, 0, 0), (3, 4, 3)), atol=2)


def test_pil_modes_without_an_agreed_white_are_refused():
    refused(Image.fromarray(np.ones((3, 3), np.float32)), "PIL image", "float", "pass the array")
    refused(Image.fromarray(np.full((3, 3), 70000, np.int32)), "PIL image", "70000", "65535")
    refused(Image.fromarray(np.full((3, 3), -1, np.int32)), "PIL image", "-1")


# ------------------------------------------------------------------------------------------------------------ reading


def test_read_gives_exactly_the_box():
    picture = open_picture(NOISE)
    np.testing.assert_array_equal(picture.read(3, 5, 7, 11).permute(1, 2, 0), NOISE[3:10, 5:16])
    np.testing.assert_array_equal(picture.read(20, 30).permute(1, 2, 0), NOISE[20:, 30:])
    np.testing.assert_array_equal(picture.read(height=2, width=np.int64(3)).permute(1, 2, 0), NOISE[:2, :3])


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, -1, 5, 5), (19, 0, 5, 5), (0, 27, 5, 5), (0, 0, 24, 1), (23, 0), (0, 31), (0, 0, 0, 5)]
)
def test_boxes_that_are_empty_or_leave_the_picture_are_refused(box):
    with pytest.raises(PictureError, match=r"array: .*23 rows and 31 columns"):
        open_picture(NOISE).read(*box)


def test_files_are_decoded_at_the_first_read_and_only_then(tmp_path, monkeypatch):
    loaded = set()  # images, not calls: a loaded image ignores further ones
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.add(image) or load(image))
    monkeypatch.setattr(Image.Image, "__hash__", object.__hash__)
    for kind in ("PNG", "JPEG", "BMP"):
        path = tmp_path / f"a.{kind}"
        Image.fromarray(NOISE).save(path, kind)
        loaded.clear()
        picture = open_picture(path)
        assert (picture.height, picture.width) == (23, 31)
        assert len(loaded) == 0
        first = picture.read(0, 0, 4, 4)
        assert len(loaded) == 1
        path.unlink()
        assert torch.equal(picture.read()[:, :4, :4], first)
        assert len(loaded) == 1


def test_the_encoded_bytes_are_let_go_once_decoded():
    data = encode(Image.fromarray(NOISE), "PNG")
    alone = sys.getrefcount(data)
    picture = open_picture(data)
    assert sys.getrefcount(data) > alone
    picture.read()
    assert sys.getrefcount(data) == alone


def test_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(NOISE).save("a.png")
    picture = open_picture("a.png")
    assert picture.name == "a.png"
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(picture.read().permute(1, 2, 0), NOISE)


def test_a_file_that_changes_before_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    picture = open_picture(path)
    Image.fromarray(NOISE[:9]).save(path)
    with pytest.raises(PictureError, match=r"a\.png: .*23 x 31 .* 9 x 31"):
        picture.read()
    path.unlink()
    with pytest.raises(PictureError, match=r"a\.png: .*No such file"):
        picture.read()


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_every_file_is_closed(tmp_path, monkeypatch):
    files = []

    def recorded_open(path, mode):
        files.append(open(path, mode))  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr(picture_files_module, "open", recorded_open, raising=False)
    data = encode(Image.fromarray(NOISE), "TIFF", compression="tiff_lzw")
    for name, content in {
        "good.tif": data,
        "cut.tif": data[:-90],
        "cut.jpg": b"\xff\xd8\xff\xe0",
        "a.txt": b"a",
    }.items():
        (tmp_path / name).write_bytes(content)
        try:
            open_picture(tmp_path / name).read()
        except PictureError:
            assert name != "good.tif"
    assert len(files) >= 5
    assert all(file.closed for file in files)


def test_threads_share_one_decoding(tmp_path, monkeypatch):
    decodings = []
    as_rgb = picture_files_module._as_rgb
    monkeypatch.setattr(picture_files_module, "_as_rgb", lambda *a: decodings.append(1) or as_rgb(*a))
    path = tmp_path / "big.png"
    large = np.tile(NOISE, (20, 20, 1))
    Image.fromarray(large).save(path, compress_level=1)
    picture = open_picture(path)
    together = threading.Barrier(8)
    results = [None] * 8

    def read(index):
        together.wait()
        results[index] = picture.read(index, index, 50, 50)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decodings) == 1
    for index, result in enumerate(results):
        np.testing.assert_array_equal(result.permute(1, 2, 0), large[index : index + 50, index : index + 50])


# ------------------------------------------------------------------------------------------------------ hostile files


def test_missing_empty_and_foreign_files_are_refused_by_name(tmp_path):
    refused(tmp_path / "none.jpg", tmp_path / "none.jpg", "No such file")
    refused(tmp_path, tmp_path, "directory")
    refused("", "No such file")
    refused("a\0b.png", "a\\x00b.png", "null byte")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused(tmp_path / "empty.jpg", "empty.jpg", "0 bytes")
    refused(b"", "bytes", "0 bytes")
    refused(io.BytesIO(), "BytesIO", "0 bytes")
    (tmp_path / "text.jpg").write_text("a picture is worth a thousand words\n" * 40)
    refused(tmp_path / "text.jpg", "text.jpg", "not a picture")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS", "PNG")
    with open(tmp_path / "text.jpg") as text:
        refused(text, "text.jpg", "str", "'rb'")
    refused(text, "text.jpg", "closed")
    for wrong in (None, 7, ["a.png"], {"image": 1}):
        refused(wrong, type(wrong).__name__, "expected a path")


def test_a_file_without_permission_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    Image.fromarray(NOISE).save(path)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(picture_files_module, "open", forbidden, raising=False)
    refused(path, path, "Permission denied")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "pipe.png", "not a regular file")


def test_names_cannot_break_the_line():
    message = refused(b"", "0 bytes", name="two\nlines\x1b[31m\udc80.png")
    assert message.startswith("two\\nlines\\x1b[31m\\udc80.png: ")
    message.encode()


def test_huge_pictures_are_refused_from_the_header(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(100_000, 100_000, 8, 2, [b""]))
    with pytest.raises(PictureError, match=r"bomb\.png: 100000 x 100000 = 10000000000 pixels .*max_pixels"):
        open_picture(bomb)
    with pytest.raises(PictureError, match=f"limit of {MAX_PIXELS}"):
        open_picture(b"P6 20000 20000 255\n")
    small = Image.fromarray(NOISE)
    for source in (small, encode(small, "PNG")):
        assert open_picture(source, max_pixels=23 * 31).height == 23
        with pytest.raises(PictureError, match=r"23 x 31 = 713 pixels .* 712"):
            open_picture(source, max_pixels=23 * 31 - 1)


def test_pillows_own_limit_neither_warns_nor_refuses_nor_changes(monkeypatch):
    below_ours = png(15_000, 15_000, 1, 0, [b""])  # more than twice Pillow's limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(below_ours).width == 15_000
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        np.testing.assert_array_equal(pixels(encode(Image.fromarray(NOISE), "PNG")), NOISE)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_bomb_inside_an_icon_is_refused():
    inner = png(50_000, 50_000, 8, 2, [b""])
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 24, len(inner), 22) + inner
    refused(icon, "bytes", "pixels")


@pytest.mark.parametrize(
    "source",
    [
        png(0, 5, 8, 2, []),
        png(5, 0, 8, 2, []),
        b"P6 0 0 255\n",
        b"GIF89a" + bytes(20),
        Image.new("RGB", (0, 5)),
        np.zeros((0, 5, 3), np.uint8),
        torch.zeros(3, 5, 0),
        torch.zeros(0, 5, 5),
    ],
    ids=["png no width", "png no height", "ppm", "gif", "PIL image", "array", "tensor", "no channels"],
)
def test_pictures_without_area_are_refused(source):
    refused(source, "no area" if not isinstance(source, bytes) else "bytes: is not a picture")


ENCODED = {
    "PNG": encode(Image.fromarray(NOISE), "PNG"),
    "JPEG": encode(Image.fromarray(NOISE), "JPEG"),
    "progressive JPEG": encode(Image.fromarray(NOISE), "JPEG", progressive=True),
    "GIF": encode(Image.fromarray(NOISE), "GIF"),
    "WEBP": encode(Image.fromarray(NOISE), "WEBP"),
    "BMP": encode(Image.fromarray(NOISE), "BMP"),
    "PPM": encode(Image.fromarray(NOISE), "PPM"),
    "TIFF": encode(Image.fromarray(NOISE), "TIFF"),
    "animated PNG": encode(Image.fromarray(NOISE), "PNG", save_all=True, append_images=[Image.fromarray(NOISE[::-1])]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ENCODED)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind, share):
    after_the_pixels = {"GIF": 2, "BMP": 3}.get(kind, 0)  # end marks and padding: what lacks only these is shown
    data = ENCODED[kind]
    message = refused(data[: int(share * (len(data) - after_the_pixels))], name="cut.file")
    assert message.startswith("cut.file: ")
    assert message.count("cut.file") == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("missing", [1, 2, 4, 8, 12, 16])
def test_a_file_that_lacks_its_last_bytes_is_refused(kind, missing, tmp_path):
    (tmp_path / "cut.file").write_bytes(ENCODED[kind][:-missing])
    refused(tmp_path / "cut.file", tmp_path / "cut.file")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "PPM", "TIFF"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_a_picture_or_a_picture_error_and_nothing_else(kind, flips):
    data = bytearray(ENCODED[kind])
    for place, value in flips:
        data[int(place * len(data))] = value
    with contextlib.suppress(PictureError):
        assert pixels(bytes(data), max_pixels=100_000).dtype == np.uint8


def test_a_picture_that_failed_keeps_failing():
    picture = open_picture(ENCODED["JPEG"][:-200])
    for _ in range(2):
        with pytest.raises(PictureError, match=r"bytes: cannot be decoded: .*truncated"):
            picture.read()


# ------------------------------------------------------------------------------------------------- arrays and tensors


@pytest.mark.parametrize("shape", [(23, 31), (23, 31, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_arrays_have_three_equal_channels(shape, dtype):
    grey = NOISE[..., 0].reshape(shape).astype(dtype)
    read = pixels(grey)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, np.broadcast_to(NOISE[..., :1].astype(dtype), (23, 31, 3)))


def test_float_arrays_keep_dtype_and_values():
    for dtype in (np.float16, np.float32, np.float64):
        values = np.array([[[-2.5, 0.0, 300.0]]], dtype)
        read = pixels(values)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, values)


def test_uint16_and_bool_arrays_become_uint8():
    deep = np.array([[0, 128, 129, 65535]], np.uint16)
    for array in (deep, deep.astype(">u2"), deep.astype("<u2")):
        assert pixels(array)[0, :, 0].tolist() == [0, 0, 1, 255]
    assert pixels(np.array([[False, True]]))[0, :, 0].tolist() == [0, 255]


def test_the_alpha_of_arrays_is_composited_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 51]]], np.uint8)
    shown = [[[10, 20, 30], [255, 255, 255], [204, 224, 255]]]
    assert pixels(rgba).tolist() == shown
    assert pixels(rgba.astype(np.uint16) * 257).tolist() == shown
    floats = pixels(rgba.astype(np.float32) / 255)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, np.array(shown) / 255, atol=1e-6)
    refused(rgba.astype(np.float32), "array", "alpha", "255", "0 to 1")


def test_arrays_of_any_memory_layout_are_read_without_a_warning():
    frozen = NOISE.copy()
    frozen.flags.writeable = False
    record = np.zeros((4, 5), dtype=[("flag", "u1"), ("grey", "f4")])
    sources = [frozen, NOISE[::-1, ::-2], np.asfortranarray(NOISE), NOISE.astype(">f4"), record["grey"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in sources:
            np.testing.assert_array_equal(pixels(source), source if source.ndim == 3 else np.zeros((4, 5, 3)))


@pytest.mark.parametrize("shape", [(5,), (), (5, 5, 2), (5, 5, 5), (3, 40, 50), (2, 5, 5, 3)])
def test_arrays_of_other_shapes_are_refused(shape):
    refused(np.zeros(shape, np.uint8), "array", shape, "(H, W, 3)")


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint32", "complex64", "object", "U3", "longdouble"]
)
def test_arrays_of_other_dtypes_are_refused(dtype):
    array = np.zeros((4, 4, 3), dtype)
    refused(array, "array", array.dtype, "uint8")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_with_values_that_are_not_finite_are_refused(value):
    array = np.zeros((4, 4, 3), np.float32)
    array[1, 2, 0] = value
    refused(array, "array", "1 values")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5), (7, 6, 5), (6, 5)])
def test_tensors_pass_through_as_views(dtype, shape):
    lowest, highest = (0, 255) if dtype == torch.uint8 else (-20, 300)
    tensor = torch.randint(lowest, highest, shape).to(dtype)
    picture = open_picture(tensor)
    assert (picture.channels, picture.height, picture.width) == (1 if len(shape) == 2 else shape[0], 6, 5)
    assert picture.name == "tensor"
    read = picture.read(1, 2, 3, 2)
    assert read.dtype == dtype
    assert torch.equal(read, tensor.reshape(-1, 6, 5)[:, 1:4, 2:4])
    assert read.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def test_bool_tensors_become_black_and_white():
    assert open_picture(torch.tensor([[True, False]])).read().tolist() == [[[255, 0]]]
    assert open_picture(torch.tensor([[True, False]])).read().dtype == torch.uint8


def test_gradients_flow_to_exactly_the_pixels_that_were_read():
    tensor = torch.rand(3, 6, 5, dtype=torch.float64, requires_grad=True)
    (open_picture(tensor).read(1, 2, 3, 2) * 2).sum().backward()
    expected = torch.zeros(3, 6, 5, dtype=torch.float64)
    expected[:, 1:4, 2:4] = 2
    assert torch.equal(tensor.grad, expected)


def test_tensors_of_other_shapes_dtypes_and_layouts_are_refused():
    refused(torch.zeros(5), "tensor", "(5,)", "(C, H, W)")
    refused(torch.zeros(1, 3, 5, 5), "tensor", "(1, 3, 5, 5)", "one by one")
    for dtype in (torch.int8, torch.int32, torch.int64, torch.complex64):
        refused(torch.zeros(3, 5, 5, dtype=dtype), "tensor", dtype)
    refused(torch.eye(5).to_sparse(), "tensor", "sparse")


def test_memory_has_no_pixel_limit():
    assert open_picture(NOISE, max_pixels=1).height == 23
    assert open_picture(torch.zeros(1, 9, 9), max_pixels=1).height == 9


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(picture_module) == (0, 4)
    assert repr(open_picture(NOISE)) == "Picture('array', height=23, width=31, channels=3)"
    assert isinstance(open_picture(NOISE), Picture)
