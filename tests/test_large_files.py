"""Large files read in parts: the same pictures as Pillow decodes whole, smaller copies near their averages."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

import foveal.large_files
from foveal import Layout, PictureError, Retina, open_picture
from foveal.large_files import VipsPicture

pyvips = pytest.importorskip("pyvips")


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(foveal.large_files, "LARGE", 1)


def photograph(height, width, bands=3):
    """Smooth, with some noise, as photographs are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(y / (7 + 5 * band) + x / (11 - band)) for band in range(bands)]
    pixels = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 4, (height, width, bands))
    return pixels.clip(0, 255).astype(np.uint8)


def saved(tmp_path, pixels, name, **options):
    image = pyvips.Image.new_from_array(pixels if pixels.shape[2] > 1 else pixels[..., 0])
    image = image.copy(interpretation="srgb" if pixels.shape[2] > 1 else "b-w")
    image.write_to_file(str(tmp_path / name), **options)
    return tmp_path / name


def in_parts(file, **options):
    picture = open_picture(file, **options)
    assert isinstance(picture._source, VipsPicture)
    return picture


TILED = {"tile": True, "tile_width": 64, "tile_height": 64}
FILES = {
    "tiled.tif": TILED,
    "pyramid.tif": {**TILED, "pyramid": True},
    "inner.tif": {**TILED, "pyramid": True, "subifd": True, "compression": "deflate"},
    "photo.jpg": {"Q": 95},
    "photo.webp": {"lossless": True},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bands", [3, 1])
def test_every_box_is_what_pillow_decodes(name, bands, tmp_path, monkeypatch):
    file = saved(tmp_path, photograph(301, 422, bands), name, **FILES[name])
    picture = in_parts(file)
    monkeypatch.setattr(foveal.large_files, "LARGE", 1 << 40)
    whole = open_picture(file).read()
    assert (picture.height, picture.width) == (301, 422)
    for box in ((0, 0, 301, 422), (100, 200, 64, 65), (300, 421, 1, 1), (0, 5, 1, 400)):
        mine, theirs = picture.read(*box), whole[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        assert (mine.int() - theirs.int()).abs().max() <= (2 if name.endswith(("jpg", "webp")) else 0)  # their rounding


def test_a_pyramid_is_found_and_pages_are_none(tmp_path):
    pixels = photograph(256, 384)
    for name in ("pyramid.tif", "inner.tif"):
        sizes = in_parts(saved(tmp_path, pixels, name, **FILES[name])).sizes
        assert sizes == {1: (256, 384), 2: (128, 192), 4: (64, 96), 8: (32, 48)}
    assert in_parts(saved(tmp_path, pixels, "tiled.tif", **TILED)).sizes == {1: (256, 384)}
    pages = [Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy()), Image.fromarray(pixels[:50])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:], tile=True)
    assert list(open_picture(tmp_path / "pages.tif").sizes) == [1]


@pytest.mark.parametrize("sides", [(60, 4000), (4000, 60)])
def test_stored_copies_are_known_by_the_longer_side_which_rounding_hardly_changes(sides, tmp_path):
    file = saved(tmp_path, np.zeros((*sides, 3), np.uint8), "narrow.tif", **FILES["pyramid.tif"])
    assert sorted(in_parts(file).sizes) == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.tif"])
def test_turned_pictures_are_shown_upright(orientation, name, tmp_path, monkeypatch):
    pixels = photograph(90, 150)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(tmp_path / name), **(TILED if name.endswith("tif") else {"Q": 98}))
    picture = in_parts(tmp_path / name)
    monkeypatch.setattr(foveal.large_files, "LARGE", 1 << 40)
    whole = open_picture(tmp_path / name)
    assert (picture.height, picture.width) == (whole.height, whole.width)
    box = (20, 30, 40, 25)
    assert (picture.read(*box).int() - whole.read(*box).int()).abs().max() <= 2


@pytest.mark.parametrize("name", ["pyramid.tif", "photo.jpg", "photo.webp"])
def test_a_look_by_smaller_copies_is_near_the_exact_one(name, tmp_path):
    file = saved(tmp_path, photograph(1200, 1600), name, **FILES[name])
    layout = Layout.foveal(picture=(1200, 1600), size=32, fixation=(0.3, 0.6))
    near = Retina(32)(in_parts(file), layout=layout).pixels
    exact = Retina(32)(in_parts(file, exact=True), layout=layout).pixels
    assert torch.equal(near[:, 0], exact[:, 0])  # the fovea is never read from a smaller copy
    assert (near - exact).abs().mean() < 0.004
    assert (near - exact).abs().max() < 0.1


def test_only_what_is_looked_at_is_decoded(tmp_path, monkeypatch):
    file = saved(tmp_path, photograph(1024, 1024), "pyramid.tif", **FILES["pyramid.tif"])
    picture = in_parts(file)
    seen = []
    decoded = VipsPicture._decoded
    monkeypatch.setattr(
        VipsPicture, "_decoded", lambda self, shrink, box: seen.append((shrink, box)) or decoded(self, shrink, box)
    )
    Retina(64)(picture, (0.5, 0.5))
    assert {shrink for shrink, _ in seen} == {1, 2, 4, 8, 16}
    assert sum(height * width for _, (_, _, height, width) in seen) < 6 * 66 * 66


def test_a_jpeg_is_decoded_once_small_and_once_around_the_fixation(tmp_path, monkeypatch):
    picture = in_parts(saved(tmp_path, photograph(2048, 2048), "photo.jpg", Q=90))
    seen = []
    decoded = VipsPicture._decoded
    monkeypatch.setattr(
        VipsPicture, "_decoded", lambda self, shrink, box: seen.append((shrink, box)) or decoded(self, shrink, box)
    )
    Retina(64)(picture, (0.5, 0.5))
    boxes = [(shrink, box) for shrink, box in seen if box[2:] != (1, 1)]
    assert [shrink for shrink, _ in boxes] == [8, 1]
    assert boxes[1][1][2] <= 512


def test_threads_share_a_picture(tmp_path):
    picture = in_parts(saved(tmp_path, photograph(600, 600), "photo.jpg", Q=90))
    alone = [Retina(32)(picture, (0.1 * place, 0.5)).pixels for place in range(8)]
    wrong = []

    def work(place):
        for _ in range(3):
            if not torch.equal(Retina(32)(picture, (0.1 * place, 0.5)).pixels, alone[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_limits_and_damage(tmp_path):
    file = saved(tmp_path, photograph(300, 400), "photo.jpg", Q=90)
    with pytest.raises(PictureError, match="limit of 1000"):
        open_picture(file, max_pixels=1000)
    tiled = saved(tmp_path, photograph(300, 400), "tiled.tif", **TILED)
    assert in_parts(tiled, max_pixels=1000).height == 300  # only tiles are decoded
    with pytest.raises(PictureError, match="shrink of 3"):
        in_parts(file).read(0, 0, 1, 1, shrink=3)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(PictureError, match=r"cut\.jpg"):
        open_picture(cut).read(250, 0, 50, 400)
    for name in ("rgba.png", "deep.png"):  # what libvips is not asked for
        pixels = np.zeros((20, 20, 4), np.uint8) if name == "rgba.png" else np.zeros((20, 20), np.uint16)
        Image.fromarray(pixels).save(tmp_path / name)
        assert not isinstance(open_picture(tmp_path / name)._source, VipsPicture)


@pytest.mark.full
def test_a_pyramid_of_900_million_pixels_is_described_at_once_in_little_memory(tmp_path):
    import subprocess
    import sys

    tile = pyvips.Image.new_from_array(photograph(1000, 1000)).copy(interpretation="srgb")
    tile.replicate(30, 30).tiffsave(
        str(tmp_path / "big.tif"),
        tile=True,
        pyramid=True,
        compression="jpeg",
        bigtiff=True,
        tile_width=256,
        tile_height=256,
    )
    code = f"""
import resource, time
from foveal.describe import describe, load_model
from foveal import open_picture
model = load_model()
describe(__import__("torch").rand(3, 64, 64), model=model)
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = open_picture({str(tmp_path / "big.tif")!r})
began = time.perf_counter()
answer = describe(picture, model=model, levels="auto")[0]
print(time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024, answer.windows)
assert answer.text and not answer.error
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    _, megabytes, windows = (float(part) for part in said.split())
    assert windows == 10
    assert megabytes < 300
