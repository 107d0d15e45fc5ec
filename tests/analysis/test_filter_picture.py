import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from foveal.analysis.filter_picture import filter_picture, named_filter
from foveal.blocks.registry import list_blocks


def photo(height=40, width=60):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((height, width, 3)), (2, 2, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("kind", list_blocks(family="filters"))
def test_every_filter_draws_a_picture_of_the_same_size(kind):
    for grey, mode in ((False, "RGB"), (True, "L")):
        drawn = filter_picture(photo(), named_filter(kind), grey=grey)
        assert (drawn.image.size, drawn.image.mode) == ((60, 40), mode)
        assert np.asarray(drawn.image).std() > 5  # there is something to see


def test_smoothed_pictures_are_drawn_as_they_are():
    drawn = filter_picture(photo(), named_filter("gaussian", sigma=1.5))
    wanted = ndimage.gaussian_filter(photo().astype(float), (1.5, 1.5, 0), mode="mirror")
    assert (drawn.full, drawn.signed) == (None, False)
    assert np.abs(np.asarray(drawn.image) - wanted).max() <= 0.51


def test_sharpened_pictures_are_cut_to_their_range_and_not_wrapped_around():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    drawn = np.asarray(filter_picture(edge, named_filter("sharpen", amount=3)).image)
    np.testing.assert_array_equal(drawn, edge)


def test_strengths_go_from_black_to_white_at_the_value_that_1_in_200_pass():
    drawn = filter_picture(photo(), named_filter("sobel"))
    slopes = [ndimage.sobel(photo()[..., c] / 255, axis, mode="mirror") / 8 for c in range(3) for axis in (0, 1)]
    strengths = np.stack([np.hypot(slopes[2 * c], slopes[2 * c + 1]) for c in range(3)], -1)
    assert drawn.full == pytest.approx(np.sort(strengths.ravel())[math.ceil(0.995 * strengths.size) - 1], rel=1e-5)
    assert not drawn.signed
    wanted = (strengths / drawn.full).clip(0, 1) * 255
    assert np.abs(np.asarray(drawn.image) - wanted).max() <= 0.51


def test_signed_results_are_mid_grey_at_nothing_and_alike_to_both_sides():
    ramp = torch.zeros(1, 6, 9)
    ramp[..., 3:] = 0.5
    one = filter_picture(ramp, named_filter("sobel", direction="x"))
    other = filter_picture(ramp.flip(2), named_filter("sobel", direction="x"))
    assert one.signed
    assert one.full == other.full == pytest.approx(0.25)
    row, mirrored = (np.asarray(drawn.image)[3].astype(int) for drawn in (one, other))
    assert row.tolist() == [128, 128, 255, 255, 128, 128, 128, 128, 128]
    assert mirrored[::-1].tolist() == [128, 128, 0, 0, 128, 128, 128, 128, 128]


def test_a_single_edge_in_a_large_empty_picture_is_white():
    x = torch.zeros(1, 100, 100)
    x[0, 50, 50] = 1
    drawn = filter_picture(x, named_filter("sobel"))
    assert drawn.full == pytest.approx(0.25)
    assert np.asarray(drawn.image).max() == 255


def test_flat_pictures_are_black_or_mid_grey():
    flat = torch.full((3, 20, 20), 0.5)
    assert np.unique(np.asarray(filter_picture(flat, named_filter("sobel")).image)).tolist() == [0]
    x = torch.zeros(3, 20, 20)
    drawn = filter_picture(x, named_filter("laplacian"))
    assert (drawn.full, np.unique(np.asarray(drawn.image)).tolist()) == (0, [128])


@pytest.mark.parametrize("kind", ["sobel", "laplacian_of_gaussian", "difference_of_gaussians"])
@pytest.mark.parametrize("value", [128, 200, 77])
def test_the_rounding_of_flat_pictures_is_not_drawn(kind, value):
    drawn = filter_picture(np.full((40, 50, 3), value, np.uint8), named_filter(kind))
    assert drawn.full == 0
    assert np.unique(np.asarray(drawn.image)).tolist() == [128 if drawn.signed else 0]


def test_the_weakest_edge_of_8_bits_is_drawn():
    edge = np.full((40, 50, 3), 128, np.uint8)
    edge[:, 25:] = 129
    for kind in ("sobel", "laplacian_of_gaussian", "difference_of_gaussians"):
        assert np.asarray(filter_picture(edge, named_filter(kind)).image).max() == 255


def test_white_may_be_given_so_that_pictures_can_be_compared():
    weak = photo() // 4
    made = named_filter("sobel")
    one, other = (filter_picture(x, made, full=0.2) for x in (photo(), weak))
    assert one.full == other.full == 0.2
    assert np.asarray(one.image).mean() > 3 * np.asarray(other.image).mean()


def test_brightness_is_that_of_pil():
    drawn = filter_picture(photo(), named_filter("mean", size=1), grey=True)
    wanted = np.asarray(Image.fromarray(photo()).convert("L")).astype(int)
    assert np.abs(np.asarray(drawn.image) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("sobell", {}, "there is no filter 'sobell'; expected one of difference_of_gaussians, gaussian, "),
        ("squeeze_excite", {}, "there is no filter"),
        ("sobel", {"sigma": 2.0}, "sobel takes no sigma; it takes direction, border"),
        ("mean", {"size": 2}, "size is 2"),
    ],
)
def test_unknown_filters_and_options_are_refused(kind, options, words):
    with pytest.raises(ValueError, match=words):
        named_filter(kind, **options)


def test_names_may_have_hyphens_and_leave_filter_out():
    assert type(named_filter("Unsharp-Mask")) is type(named_filter("unsharp_mask"))
    assert type(named_filter("mean")) is type(named_filter("mean-filter"))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="2 channels; expected 3, or 1"):
        filter_picture(torch.rand(2, 8, 8), named_filter("sobel"))
    with pytest.raises(ValueError, match="white at 1: expected"):
        filter_picture(photo(), named_filter("mean"), full=1.0)
    with pytest.raises(ValueError, match="white at 0: expected"):
        filter_picture(photo(), named_filter("sobel"), full=0.0)
    with pytest.raises(ValueError, match="'replicate'"):
        filter_picture(photo(5, 5), named_filter("gaussian", sigma=2.0))
