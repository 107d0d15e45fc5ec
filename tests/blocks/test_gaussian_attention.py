"""A Gaussian of eccentricity whose width is really learned."""

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layouts, maps_of

import foveal.blocks.gaussian_attention as module
from foveal.blocks.gaussian_attention import GaussianSpatialAttention
from foveal.layout import Layout

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


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(module).failed == 0
