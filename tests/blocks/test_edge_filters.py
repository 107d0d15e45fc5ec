import math

import numpy as np
import pytest
import torch
from cases import Case
from filter_checks import BORDERS, MODES, filtered, picture
from scipy import ndimage
from skimage import filters

from foveal.blocks.registry import create_block

CASES = [
    Case("roberts"),
    Case("roberts", {"direction": "antidiagonal", "border": "replicate"}, channels=1),
    Case("prewitt"),
    Case("prewitt", {"direction": "y", "border": "zeros"}),
    Case("sobel", head=True),
    Case("sobel", {"direction": "x"}, channels=1),
]
NAMES = ("roberts", "prewitt", "sobel")


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["sobel", "prewitt"])
def test_slopes_are_scikit_image_s_by_the_factors_of_the_docstring(name, border):
    for direction, suffix, factor in (("x", "_v", 2), ("y", "_h", 2), ("magnitude", "", math.sqrt(2))):
        found = filtered(create_block(name, direction=direction, border=border), picture())
        theirs = getattr(filters, name)
        if not suffix:
            np.testing.assert_allclose(factor * found, theirs(picture(), mode=MODES[border]), atol=1e-6)
            continue
        inside = slice(1, -1), slice(1, -1)  # theirs knows one border only, and no other sign
        wanted = getattr(filters, f"{name}{suffix}")(picture())
        np.testing.assert_allclose(factor * found[inside], wanted[inside], atol=1e-6)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("direction", "axis"), [("x", 1), ("y", 0)])
def test_slopes_are_scipy_s_by_the_sum_of_their_weights(direction, axis, border):
    for name, theirs, factor in (("sobel", ndimage.sobel, 8), ("prewitt", ndimage.prewitt, 6)):
        found = filtered(create_block(name, direction=direction, border=border), picture())
        np.testing.assert_allclose(factor * found, theirs(picture(), axis, mode=MODES[border]), atol=1e-6)


def test_the_roberts_cross_is_scikit_image_s():
    # Its border is "reflect" with the edge repeated, which for one cell is to replicate.
    found = filtered(create_block("roberts", border="replicate"), picture())
    np.testing.assert_allclose(found, filters.roberts(picture()), atol=1e-6)
    for direction, theirs in (("diagonal", filters.roberts_pos_diag), ("antidiagonal", filters.roberts_neg_diag)):
        found = filtered(create_block("roberts", direction=direction, border="replicate"), picture())
        np.testing.assert_allclose(math.sqrt(2) * found, theirs(picture()), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 4.4])
def test_a_ramp_gives_its_slope_in_every_direction(name, angle):
    rows, columns = np.mgrid[:12, :12].astype(float)
    ramp = 0.3 * (math.cos(angle) * columns + math.sin(angle) * rows)
    inside = slice(1, -1), slice(1, -1)
    np.testing.assert_allclose(filtered(create_block(name), ramp)[inside], 0.3, atol=1e-6)
    if name != "roberts":
        across = filtered(create_block(name, direction="x"), ramp)[inside]
        np.testing.assert_allclose(across, 0.3 * math.cos(angle), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_flat_pictures_have_no_slope_and_finite_gradients(name):
    x = torch.full((1, 2, 8, 8), 0.7, requires_grad=True)
    strength = create_block(name)(x)
    strength.sum().backward()
    torch.testing.assert_close(strength, torch.zeros_like(strength), atol=1e-6, rtol=0)
    x = torch.zeros(1, 2, 8, 8, requires_grad=True)
    strength = create_block(name)(x)
    strength.sum().backward()
    assert torch.equal(strength, torch.zeros_like(strength))
    assert x.grad.isfinite().all()
    assert not create_block(name).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("roberts", {"direction": "x"}, "direction is 'x'; expected magnitude, diagonal or antidiagonal"),
        ("prewitt", {"direction": "up"}, "direction is 'up'; expected magnitude, x or y"),
        ("sobel", {"direction": "up"}, "direction is 'up'"),
        *((name, {"border": "none"}, "border is 'none'") for name in NAMES),
    ],
)
def test_impossible_options_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        create_block(name, **options)
