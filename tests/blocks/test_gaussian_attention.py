"""A Gaussian of eccentricity whose width is really learned."""

import doctest
import math

import pytest
import torch
from cases import Case
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layouts, maps_of

import foveal.blocks.gaussian_attention as module
from foveal.blocks.gaussian_attention import GaussianSpatialAttention
from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina

CASES = [
    Case("gaussian_attention", {"channels": 4, "sigma": 0.4}),
    Case("gaussian_attention", {"channels": 4, "center": (0.3, 0.8), "learn_center": True}),
    Case("gaussian_attention", {"channels": 4, "center": (0.3, 0.8), "learnable": False}),
]

FOVEAL = Layout.foveal(picture=[(120, 100), (64, 128)], size=16, levels=4, fixation=[(0.2, 0.7), (1.0, 0.0)])


@given(layouts(), st.sampled_from([1, 2, 4]), st.floats(0.05, 3), st.floats(0, 0.95))
@settings(max_examples=40, deadline=None)
def test_the_weight_of_a_cell_is_the_gaussian_of_its_eccentricity_over_a_floor(layout, n, sigma, floor):
    attention = GaussianSpatialAttention(sigma, floor=floor)
    assert attention.sigma.item() == pytest.approx(sigma, rel=1e-4)
    weights = attention.weights(layout, n)
    assert weights.shape == (len(layout), layout.num_windows, n, n)
    assert (weights >= floor - 1e-6).all()
    assert (weights <= 1).all()
    for sample in range(len(layout)):
        y, x = (layout.fixations[sample, 0] * layout.pictures[sample]).tolist()
        half = layout.pictures[sample].max().item() / 2
        for window in range(layout.num_windows):
            top, left = layout.origins[sample, window].tolist()
            cell = 2 ** layout.levels[sample, window].item() * layout.size / n
            apart = math.dist((y, x), (top + 0.5 * cell, left + (n - 0.5) * cell)) / half
            expected = floor + (1 - floor) * math.exp(-(apart**2) / (2 * sigma**2))
            assert weights[sample, window, 0, n - 1].item() == pytest.approx(expected, abs=1e-4)
    maps = maps_of(layout, n, dtype=torch.float32)
    expected = maps.unflatten(0, weights.shape[:2]) * weights[:, :, None]
    torch.testing.assert_close(attention(maps, layout), expected.flatten(0, 1))


def test_sigma_receives_the_gradient_of_the_loss():
    attention = GaussianSpatialAttention(0.5).double()
    maps = maps_of(FOVEAL, 4)
    torch.nn.Module.zero_grad(attention)
    attention(maps, FOVEAL).square().sum().backward()
    assert attention.raw_sigma.grad.item() > 0, "a wider Gaussian keeps more"

    def total(raw):
        return torch.func.functional_call(attention, {"raw_sigma": raw}, (maps, FOVEAL)).square().sum()

    assert torch.autograd.gradcheck(total, attention.raw_sigma.detach().clone().requires_grad_(), atol=1e-3, eps=1e-3)


def test_a_step_of_training_moves_sigma_where_the_loss_falls():
    attention = GaussianSpatialAttention(0.5)
    wanted = GaussianSpatialAttention(0.8)
    maps = maps_of(FOVEAL, 4, dtype=torch.float32)
    with torch.no_grad():
        target = wanted(maps, FOVEAL)
    optimiser = torch.optim.Adam(attention.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        (attention(maps, FOVEAL) - target).square().mean().backward()
        optimiser.step()
    assert attention.sigma.item() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("raw", [-20.0, -5.0, 0.0, 5.0, 50.0])
def test_sigma_is_positive_whatever_training_makes_of_it_and_the_edge_is_never_erased(raw):
    attention = GaussianSpatialAttention(floor=0.25)
    torch.nn.init.constant_(attention.raw_sigma, raw)
    assert attention.sigma > 0
    weights = attention.weights(FOVEAL, 4)
    assert weights.isfinite().all()
    assert weights.min() >= 0.25


def test_a_narrower_sigma_dims_more_and_the_fixation_itself_never():
    weights = [GaussianSpatialAttention(sigma, floor=0).weights(FOVEAL, 16) for sigma in (0.25, 0.5, 1.0)]
    assert (weights[0] < weights[1]).all()
    assert (weights[1] < weights[2]).all()
    assert weights[0].amax((1, 2, 3)).min() > 0.99


def test_the_same_weights_serve_every_size_of_picture():
    small, large = (Layout.foveal(picture=(64 * times, 32 * times), size=16 * times, levels=3) for times in (1, 4))
    attention = GaussianSpatialAttention()
    torch.testing.assert_close(attention.weights(small, 4), attention.weights(large, 4))


def test_one_layout_serves_a_batch():
    one = Layout.foveal(picture=(60, 64), size=16, levels=3, fixation=(0.9, 0.2))
    attention = GaussianSpatialAttention()
    maps = maps_of(Layout.stack([one] * 3), 4, dtype=torch.float32)
    assert torch.equal(attention(maps, one), attention(maps, Layout.stack([one] * 3)))


def test_a_sigma_that_is_not_to_be_learned_receives_no_gradient():
    attention = GaussianSpatialAttention(learnable=False)
    assert not attention.raw_sigma.requires_grad
    assert not attention(maps_of(FOVEAL, 4, dtype=torch.float32), FOVEAL).requires_grad


@pytest.mark.parametrize(
    ("sigma", "floor"), [(0, 0.25), (-1, 0.25), (0.5, 1), (0.5, -0.1), (float("nan"), 0.25), (0.5, float("nan"))]
)
def test_values_out_of_range_are_refused(sigma, floor):
    with pytest.raises(ValueError, match=f"sigma {sigma} must be above 0 and floor {floor} in"):
        GaussianSpatialAttention(sigma, floor=floor)


@pytest.mark.parametrize("center", [None, (0.2, 0.9)])
def test_on_pictures_the_weight_of_a_cell_is_the_gaussian_of_its_distance_from_the_center(center):
    attention = GaussianSpatialAttention(0.6, floor=0.1, center=center)
    result = attention(torch.ones(2, 1, 5, 9))
    y, x = center or (0.5, 0.5)
    for row in range(5):
        for column in range(9):
            apart = math.dist((row + 0.5, column + 0.5), (5 * y, 9 * x)) / 4.5
            expected = 0.1 + 0.9 * math.exp(-(apart**2) / (2 * 0.6**2))
            assert result[1, 0, row, column].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("center", [None, (0.2, 0.9)])
def test_through_foveate_it_is_as_with_a_layout_and_looks_where_the_glimpse_does(center):
    attention = GaussianSpatialAttention(0.4, center=center)
    glimpse = Retina(16, levels=3)(torch.randn(2, 4, 50, 64), fixation=[(0.1, 0.7), (0.8, 0.4)])
    maps, layout = glimpse.pixels.flatten(0, 1), glimpse.layout
    result = foveate(attention)(glimpse)
    assert torch.equal(result.flatten(0, 1), attention(maps, layout))
    half = layout.pictures.amax(1) / 2
    for sample in range(2):
        y, x = (torch.tensor(center) if center else layout.fixations[sample, 0]) * layout.pictures[sample]
        place = layout.cell_places(16)[sample, 2, 3, 11]
        apart = math.dist((y, x), place) / half[sample].item()
        expected = 0.25 + 0.75 * math.exp(-(apart**2) / (2 * 0.4**2))
        torch.testing.assert_close(result[sample, 2, :, 3, 11], glimpse.pixels[sample, 2, :, 3, 11] * expected)


def test_of_one_window_that_looks_aside_the_eccentricity_is_from_there():
    attention = GaussianSpatialAttention(0.4)
    picture = torch.randn(1, 4, 32, 32)
    aside = foveate(attention)(Retina(32, levels=1)(picture, fixation=(0.1, 0.7)))[:, 0]
    torch.testing.assert_close(aside, GaussianSpatialAttention(0.4, center=(0.1, 0.7))(picture))


def test_a_step_of_training_moves_the_center_where_the_loss_falls():
    attention = GaussianSpatialAttention(0.5, learn_center=True)
    wanted = GaussianSpatialAttention(0.5, center=(0.3, 0.6))
    maps = torch.randn(2, 4, 12, 20)
    optimiser = torch.optim.Adam(attention.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        (attention(maps) - wanted(maps).detach()).square().mean().backward()
        optimiser.step()
    assert attention.center.tolist() == pytest.approx([0.3, 0.6], abs=0.02)


def test_a_center_that_is_not_to_be_learned_receives_no_gradient_and_is_saved():
    attention = GaussianSpatialAttention(center=(0.3, 0.6))
    assert not attention.center.requires_grad
    assert set(attention.state_dict()) == {"raw_sigma", "center"}
    assert set(GaussianSpatialAttention().state_dict()) == {"raw_sigma"}, "weights without a center load as before"


def test_it_has_as_many_parameters_as_it_says():
    for options, expected in (({}, 1), ({"center": (0, 1)}, 3), ({"learn_center": True}, 3)):
        block = create_block("gaussian_attention", channels=8, **options)
        assert sum(p.numel() for p in block.parameters()) == expected


def test_half_precision_still_counts_cells():
    attention = GaussianSpatialAttention(0.5, learn_center=True).bfloat16()
    x = torch.ones(1, 1, 1, 600, dtype=torch.bfloat16)
    wide = GaussianSpatialAttention(attention.sigma.item(), learn_center=True)
    torch.testing.assert_close(attention(x).float(), wide(x.float()), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("center", [(0.5,), (0.5, 1.1), (-0.1, 0.5), (float("nan"), 0.5)])
def test_a_center_beside_the_picture_is_refused(center):
    with pytest.raises(ValueError, match=r"center is .*; expected \(y, x\) relative to the picture, each in \[0, 1\]"):
        GaussianSpatialAttention(center=center)


def test_the_examples_in_the_documentation_are_true():
    names = {"torch": torch, "create_block": create_block}
    assert doctest.testmod(module, extraglobs=names).failed == 0
