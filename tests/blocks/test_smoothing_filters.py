import numpy as np
import pytest
import torch
from cases import Case
from filter_checks import BORDERS, MODES, filtered, picture
from scipy import ndimage
from skimage import filters

from foveal.blocks.registry import create_block
from foveal.convert.foveate import UnsupportedModule, foveate
from foveal.retina import Retina

CASES = [
    Case("mean_filter", {"size": 5}),
    Case("mean_filter", {"border": "zeros"}, channels=1),
    Case("gaussian_filter", {"sigma": 1.2}),
    Case("gaussian_filter", {"border": "replicate"}, channels=1),
]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_mean_is_scipy_s(size, border):
    wanted = ndimage.uniform_filter(picture(), size, mode=MODES[border])
    found = filtered(create_block("mean_filter", size=size, border=border), picture())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("sigma", "truncate"), [(0.5, 4.0), (1.0, 4.0), (2.3, 3.0)])
def test_the_gaussian_is_scipy_s_and_scikit_image_s(sigma, truncate, border):
    found = filtered(create_block("gaussian_filter", sigma=sigma, truncate=truncate, border=border), picture())
    for theirs in (ndimage.gaussian_filter, filters.gaussian):
        wanted = theirs(picture(), sigma, mode=MODES[border], truncate=truncate)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_filters_have_nothing_to_learn_and_leave_state_dicts_as_they_are():
    for name in ("mean_filter", "gaussian_filter"):
        block = create_block(name)
        assert not list(block.parameters())
        assert not block.state_dict()


def test_half_precision_and_doubles_keep_their_dtype():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert create_block("gaussian_filter")(torch.rand(1, 2, 9, 9).to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mean_filter", {"size": 4}, "size is 4; expected an odd"),
        ("mean_filter", {"size": 0}, "size is 0"),
        ("mean_filter", {"size": 2.5}, "size is 2.5"),
        (
            "mean_filter",
            {"border": "mirror"},
            "border is 'mirror'; expected one of reflect, replicate, zeros, circular",
        ),
        ("gaussian_filter", {"sigma": 0}, "sigma is 0"),
        ("gaussian_filter", {"sigma": float("nan")}, "sigma is nan"),
        ("gaussian_filter", {"truncate": -1}, "truncate -1"),
    ],
)
def test_impossible_options_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        create_block(name, **options)


@pytest.mark.parametrize(("border", "side"), [("reflect", 8), ("circular", 7)])
def test_maps_smaller_than_a_border_needs_are_refused_with_the_way_out(border, side):
    block = create_block("gaussian_filter", sigma=2.0, border=border)
    assert block(torch.rand(1, 1, side + 1, side + 1)).isfinite().all()
    with pytest.raises(ValueError, match=rf"{border!r} of 8 cells around maps of 20 x {side}: .*'replicate'"):
        block(torch.rand(1, 1, 20, side))


def test_the_other_side_of_a_picture_is_no_border_for_several_windows():
    network = create_block("mean_filter", border="circular")
    with pytest.raises(UnsupportedModule, match="circular"):
        foveate(network)(Retina(16, levels=2)(torch.rand(3, 32, 32)))
