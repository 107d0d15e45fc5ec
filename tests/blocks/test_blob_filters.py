import numpy as np
import pytest
from cases import Case
from filter_checks import BORDERS, MODES, filtered, picture
from scipy import ndimage
from skimage import filters

from foveal.blocks.registry import create_block

CASES = [
    Case("laplacian"),
    Case("laplacian", {"neighbours": 8, "border": "replicate"}, channels=1),
    Case("laplacian_of_gaussian", {"sigma": 1.2}),
    Case("laplacian_of_gaussian", {"sigma": 0.6, "border": "zeros"}, channels=1),
    Case("difference_of_gaussians", {"low": 0.8}),
    Case("difference_of_gaussians", {"high": 1.2, "border": "replicate"}, channels=1),
]
NAMES = ("laplacian", "laplacian_of_gaussian", "difference_of_gaussians")


@pytest.mark.parametrize("border", BORDERS)
def test_the_laplacian_is_scipy_s_and_scikit_image_s_with_the_sign_turned(border):
    found = filtered(create_block("laplacian", border=border), picture())
    np.testing.assert_allclose(found, ndimage.laplace(picture(), mode=MODES[border]), atol=1e-6)
    inside = slice(1, -1), slice(1, -1)
    np.testing.assert_allclose(found[inside], -filters.laplace(picture())[inside], atol=1e-6)


@pytest.mark.parametrize("neighbours", [4, 8])
def test_the_laplacian_of_a_polynomial_of_second_degree_is_exact(neighbours):
    y, x = np.mgrid[:9, :9] / 3
    curved = 2 * x**2 - 0.5 * y**2 + 3 * x * y - x + 7
    found = filtered(create_block("laplacian", neighbours=neighbours), curved)[1:-1, 1:-1]
    np.testing.assert_allclose(found, (4 - 1) / 9, atol=1e-5)


def test_the_nine_point_laplacian_errs_alike_in_every_direction():
    """Of a wave its factor hardly depends on direction, where that of four neighbours does."""
    spread = {}
    y, x = np.mgrid[:41, :41].astype(float)
    for neighbours in (4, 8):
        factors = []
        for angle in (0, np.pi / 8, np.pi / 4):
            wave = np.cos(0.8 * ((x - 20) * np.cos(angle) + (y - 20) * np.sin(angle)))
            factors.append(filtered(create_block("laplacian", neighbours=neighbours), wave)[20, 20])
        spread[neighbours] = np.ptp(factors)
    assert spread[8] < 0.05 * spread[4]


@pytest.mark.parametrize("border", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.2])
def test_the_laplacian_of_gaussian_is_scipy_s_less_its_answer_to_flat_pictures(sigma, border):
    mode = MODES[border]
    flat = ndimage.gaussian_laplace(np.ones((40, 40)), sigma)[20, 20]
    wanted = ndimage.gaussian_laplace(picture(), sigma, mode=mode)
    wanted -= flat * ndimage.gaussian_filter(picture(), sigma, mode=mode)
    found = filtered(create_block("laplacian_of_gaussian", sigma=sigma, border=border), picture())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_scipy_s_answer_to_a_flat_picture_is_what_the_docstring_says():
    flat = [ndimage.gaussian_laplace(np.ones((40, 40)), sigma)[20, 20] for sigma in (0.5, 0.8, 1.0, 1.5, 2.0, 4.0)]
    assert flat[0] == pytest.approx(-1.12, abs=0.005)
    assert np.abs(flat[1:]).max() < 0.001


def test_a_blob_answers_most_to_its_own_size():
    y, x = np.mgrid[:81, :81] - 40.0
    blob = (x**2 + y**2 < 8**2).astype(float)
    sizes = np.arange(3.0, 9.0, 0.5)
    answers = [
        -(sigma**2) * filtered(create_block("laplacian_of_gaussian", sigma=sigma), blob)[40, 40] for sigma in sizes
    ]
    assert sizes[int(np.argmax(answers))] == pytest.approx(8 / np.sqrt(2), abs=0.5)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("low", "high"), [(1.0, None), (0.7, 2.5)])
def test_the_difference_of_gaussians_is_scikit_image_s(low, high, border):
    wanted = filters.difference_of_gaussians(picture(), low, high, mode=MODES[border])
    found = filtered(create_block("difference_of_gaussians", low=low, high=high, border=border), picture())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_flat_pictures_give_nothing(name):
    np.testing.assert_allclose(filtered(create_block(name), np.full((20, 20), 0.8)), 0, atol=1e-6)
    assert not create_block(name).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("laplacian", {"neighbours": 6}, "neighbours is 6"),
        ("laplacian_of_gaussian", {"sigma": 0}, "sigma is 0"),
        ("difference_of_gaussians", {"low": 0}, "sigma is 0"),
        ("difference_of_gaussians", {"low": 2.0, "high": 2.0}, "low is 2.0 and high 2.0"),
        *((name, {"border": "none"}, "border is 'none'") for name in NAMES),
    ],
)
def test_impossible_options_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        create_block(name, **options)
