"""`foveal filter`, as a person types it."""

import io
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from foveal.blocks.registry import list_blocks
from foveal.cli import main


@pytest.fixture
def foveal_says(capsys, monkeypatch, tmp_path):
    """Runs a command line in a folder with one picture; gives its exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((30, 40, 3)), (1.5, 1.5, 0))
    pixels = ((noise - noise.min()) / np.ptp(noise) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save("photo.png")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def pixels(file):
    image = Image.open(file)
    assert image.format == "PNG"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", list_blocks(family="filters"))
def test_every_filter_writes_a_picture_of_the_same_size_beside_the_folder_s_others(foveal_says, tmp_path, kind):
    short = kind.removesuffix("_filter").replace("_", "-")
    code, out, err = foveal_says("filter", "photo.png", "--kind", short)
    assert (code, err) == (0, "")
    assert out.startswith(f"photo.{short}.png: 40 x 30, ")
    assert pixels(f"photo.{short}.png").shape == (30, 40, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["photo.png", f"photo.{short}.png"])


def test_options_reach_the_filter_and_are_printed(foveal_says):
    code, out, err = foveal_says(
        "filter", "photo.png", "--kind", "gaussian", "--sigma", "2", "--border", "zeros", "-o", "soft.png"
    )
    assert (code, err) == (0, "")
    assert out == "soft.png: 40 x 30, GaussianFilter(sigma=2.0, border='zeros')\n"
    wanted = ndimage.gaussian_filter(pixels("photo.png").astype(float), (2, 2, 0), mode="constant")
    assert np.abs(pixels("soft.png") - wanted).max() <= 0.51


def test_what_white_and_grey_stand_for_is_printed_and_can_be_given(foveal_says):
    _, out, _ = foveal_says("filter", "photo.png", "-k", "sobel", "--grey", "--white", "0.125")
    assert out.splitlines()[1] == "  white is 0.125, black 0"
    assert pixels("photo.sobel.png").ndim == 2
    _, out, _ = foveal_says("filter", "photo.png", "-k", "sobel", "--direction", "y", "--white", "0.125")
    assert out.splitlines()[1] == "  white is 0.125, black -0.125, mid-grey 0"
    one = ndimage.sobel(pixels("photo.png")[..., 0] / 255, 0, mode="mirror") / 8
    wanted = ((one / 0.125 + 1) / 2).clip(0, 1) * 255
    assert np.abs(pixels("photo.sobel.png")[..., 0] - wanted).max() <= 0.51


def test_standard_input_to_standard_output(foveal_says, monkeypatch, tmp_path):
    given = io.TextIOWrapper(io.BytesIO((tmp_path / "photo.png").read_bytes()))
    written = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", given)
    monkeypatch.setattr(sys, "stdout", written)
    assert main(["filter", "-", "--kind", "mean", "--size", "5", "-o", "-"]) == 0
    written.flush()
    wanted = ndimage.uniform_filter(pixels("photo.png").astype(float), (5, 5, 1), mode="mirror")
    assert np.abs(pixels(io.BytesIO(written.buffer.getvalue())) - wanted).max() <= 0.51


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["PICTURE"]),
        (["photo.png"], ["--kind"]),
        (["photo.png", "-k", "sobell"], ["--kind", "no filter 'sobell'", "sobel, unsharp_mask"]),
        (["photo.png", "-k", "sobel", "--sigma", "2"], ["sobel takes no sigma", "direction, border"]),
        (["photo.png", "-k", "mean", "--size", "4"], ["--size", "size is 4", "odd"]),
        (["photo.png", "-k", "gaussian", "--sigma", "wide"], ["--sigma"]),
        (["photo.png", "-k", "gaussian", "--sigma", "0"], ["--sigma", "expected numbers above 0"]),
        (["photo.png", "-k", "difference-of-gaussians", "--low", "2", "--high", "1"], ["--low, --high"]),
        (
            ["photo.png", "-k", "gaussian", "--border", "black"],
            ["--border", "border is 'black'", "reflect, replicate, zeros"],
        ),
        (["photo.png", "-k", "sobel", "--direction", "left"], ["--direction", "direction is 'left'"]),
        (["photo.png", "-k", "sobel", "--white", "0"], ["--white", "above 0"]),
        (["photo.png", "-k", "sobel", "--white", "nan"], ["--white", "above 0"]),
        (["photo.png", "-k", "mean", "--white", "1"], ["--white", "mean is written as it is"]),
        (["photo.png", "-k", "sobel", "-o", "edges.jpg"], ["--out", ".png"]),
        (["photo.png", "-k", "sobel", "-o", "./photo.png"], ["the picture itself"]),
        (["photo.png", "-k", "sobel", "-o", "no/such/folder/a.png"], ["--out", "there is no folder"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2_and_nothing_is_written(foveal_says, tmp_path, arguments, words):
    before = (tmp_path / "photo.png").read_bytes()
    code, out, err = foveal_says("filter", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("foveal filter: ")
    assert err.endswith("(see 'foveal filter --help')\n")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
    assert (tmp_path / "photo.png").read_bytes() == before


def test_a_bad_picture_and_one_that_is_too_small_are_one_line_and_write_nothing(foveal_says, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    Image.new("RGB", (3, 3)).save("small.png")
    for picture, words in (("bad.png", "is not a picture"), ("small.png", "'replicate'"), ("lost.png", "lost.png")):
        code, out, err = foveal_says("filter", picture, "--kind", "gaussian", "-o", "out.png")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert words in err
    assert not (tmp_path / "out.png").exists()


def test_a_flat_picture_has_nothing_that_stands_out(foveal_says, tmp_path):
    Image.new("RGB", (20, 20), (200, 200, 200)).save("flat.png")
    code, out, _ = foveal_says("filter", "flat.png", "--kind", "sobel", "-o", "out.png")
    assert code == 0
    assert out.endswith("\n  nothing stands out\n")
    assert Image.open(tmp_path / "out.png").getextrema() == ((0, 0),) * 3


def test_the_help_explains_the_mapping_and_the_first_page_names_the_command(foveal_says):
    code, out, _ = foveal_says("filter", "--help")
    assert code == 0
    for word in ("Usage: foveal filter", "mid-grey", "--border", "--kind", "sobel", "1 in 200"):
        assert word in out
    assert " filter " in foveal_says("--help")[1]
