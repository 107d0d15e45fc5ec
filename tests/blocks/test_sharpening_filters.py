import numpy as np
import pytest
from cases import Case
from filter_checks import BORDERS, MODES, filtered, picture
from scipy import ndimage
from skimage import filters

from foveal.blocks.registry import create_block

CASES = [
    Case("sharpen", {"amount": 0.7}),
    Case("unsharp_mask", {"sigma": 1.3, "amount": 0.5}),
    Case("unsharp_mask", {"border": "zeros"}, channels=1),
]


@pytest.mark.parametrize("border", BORDERS)
def test_sharpening_takes_scipy_s_laplacian_off(border):
    wanted = picture() - 0.7 * ndimage.laplace(picture(), mode=MODES[border])
    found = filtered(create_block("sharpen", amount=0.7, border=border), picture())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("border", BORDERS)
def test_the_unsharp_mask_adds_what_scipy_s_gaussian_takes_away(border):
    blurred = ndimage.gaussian_filter(picture(), 1.5, mode=MODES[border])
    found = filtered(create_block("unsharp_mask", sigma=1.5, amount=0.6, border=border), picture())
    np.testing.assert_allclose(found, picture() + 0.6 * (picture() - blurred), atol=1e-6)


def test_the_unsharp_mask_is_scikit_image_s_away_from_the_border():
    wanted = filters.unsharp_mask(picture(), radius=1.5, amount=0.6, preserve_range=True)
    found = filtered(create_block("unsharp_mask", sigma=1.5, amount=0.6), picture())
    inside = slice(6, -6), slice(6, -6)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-6)


def test_an_amount_of_0_leaves_the_picture_as_it_is():
    for name in ("sharpen", "unsharp_mask"):
        np.testing.assert_array_equal(filtered(create_block(name, amount=0), picture()), picture())
        assert not create_block(name).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sharpen", {"amount": -1}, "amount is -1"),
        ("sharpen", {"border": "x"}, "border is 'x'"),
        ("unsharp_mask", {"amount": float("nan")}, "amount is nan"),
        ("unsharp_mask", {"sigma": -1}, "sigma is -1"),
        ("unsharp_mask", {"border": "x"}, "border is 'x'"),
    ],
)
def test_impossible_options_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        create_block(name, **options)
