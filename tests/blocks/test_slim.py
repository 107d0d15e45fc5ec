"""A narrow periphery: the same function as masking a full-width network, for a fraction of its arithmetic."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layouts, maps_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveal.blocks.slim import SlimConv2d, SlimNorm2d, Split, merge, narrow_channels, split
from foveal.layout import Layout

FOVEAL = Layout.foveal(picture=[(120, 100), (64, 128)], size=16, levels=4, fixation=[(0.2, 0.7), (1.0, 0.0)])
ALL_FINE = Layout.tiling(picture=(32, 32), size=16)
ALL_COARSE = Layout.tiling(picture=(64, 64), size=16, level=1)
ONE = Layout.dense(picture=(16, 16))


def is_coarse(layout, maps):
    return (layout.levels > 0).expand(len(maps) // layout.num_windows, -1).flatten()


def masked(maps, layout, narrow):
    """The same maps, zero from channel `narrow` on in every window coarser than level 0."""
    beyond = torch.arange(maps.shape[1]) >= narrow
    return maps.masked_fill(is_coarse(layout, maps)[:, None, None, None] & beyond[:, None, None], 0)


def narrowed(maps, layout, narrow):
    """As a periphery that computes `narrow` channels hands it on."""
    parts = split(maps, layout)
    return Split(parts.fine, parts.coarse[:, :narrow])


@given(layouts(), st.sampled_from([1, 2, 4]), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_splitting_and_merging_gives_every_window_back_with_zeros_for_what_was_not_computed(layout, n, narrow):
    maps = maps_of(layout, n, 3)
    assert torch.equal(merge(split(maps, layout), layout), maps)
    assert torch.equal(merge(narrowed(maps, layout, narrow), layout), masked(maps, layout, narrow))


@pytest.mark.parametrize("halo", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3), (3, 2, 0)])
@pytest.mark.parametrize("layout", [FOVEAL, ALL_FINE, ALL_COARSE, ONE], ids=["foveal", "fine", "coarse", "one"])
def test_a_narrow_convolution_is_the_masked_full_width_one(layout, kernel, stride, padding, halo):
    torch.manual_seed(0)
    layer = SlimConv2d(6, 10, kernel, stride=stride, padding=padding, width=0.5).double()
    maps = maps_of(layout, 8, 6)
    result = layer(narrowed(maps, layout, 4), layout, halo=halo)
    full = layer(masked(maps, layout, 4), layout, halo=halo)  # of a tensor: the whole width everywhere
    assert result.coarse.shape[1] == 5
    torch.testing.assert_close(merge(result, layout), masked(full, layout, 5), rtol=0, atol=1e-12)


def test_layer_after_layer_stays_the_masked_network():
    torch.manual_seed(0)
    first, second = (SlimConv2d(*channels, 3, padding=1, width=0.5).double() for channels in ((3, 8), (8, 8)))
    maps = maps_of(FOVEAL, 8, 3)
    result = second(first(split(maps, FOVEAL), FOVEAL).relu(), FOVEAL)
    expected = masked(first(maps, FOVEAL).relu(), FOVEAL, 4)
    expected = masked(second(expected, FOVEAL), FOVEAL, 4)
    torch.testing.assert_close(merge(result, FOVEAL), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(first(maps, FOVEAL), masked(first(maps, FOVEAL), FOVEAL, 4)), "the mask takes something"


def test_gradients_are_those_of_the_masked_network_and_the_unused_weights_get_none_from_the_periphery():
    torch.manual_seed(0)
    layer = SlimConv2d(6, 10, 3, padding=1, width=0.5).double()
    gradients = []
    for result in (
        lambda maps: merge(layer(narrowed(maps, FOVEAL, 4), FOVEAL), FOVEAL),
        lambda maps: masked(layer(masked(maps, FOVEAL, 4), FOVEAL), FOVEAL, 5),
    ):
        maps = maps_of(FOVEAL, 8, 6).requires_grad_()
        gradients.append(torch.autograd.grad(result(maps).sin().sum(), [maps, layer.weight, layer.bias]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    coarse = layer(narrowed(maps_of(FOVEAL, 8, 6), FOVEAL, 4), FOVEAL).coarse
    (weight,) = torch.autograd.grad(coarse.sum(), layer.weight)
    assert weight[:5, :4].all()
    assert not weight[5:].any()
    assert not weight[:, 4:].any()


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("halo", [True, False])
def test_the_saving_is_real_arithmetic(width, halo):
    layer = SlimConv2d(16, 32, 3, padding=1, width=width)
    maps = maps_of(FOVEAL, 16, 16, dtype=torch.float32)
    given_maps = narrowed(maps, FOVEAL, round(16 * width))
    with FlopCounterMode(display=False) as counter:
        layer(given_maps, FOVEAL, halo=halo)
    one_window = 2 * 9 * 16 * 16  # for one channel in and one out
    assert counter.get_total_flops() == one_window * (2 * 16 * 32 + 6 * round(16 * width) * round(32 * width))


def test_the_norms_of_each_width_keep_statistics_of_their_own():
    torch.manual_seed(0)
    norm = SlimNorm2d(8, width=0.5)
    fine, coarse = nn.BatchNorm2d(8), nn.BatchNorm2d(4)
    for seed in range(3):
        maps = maps_of(FOVEAL, 4, 8, dtype=torch.float32, seed=seed)
        parts = split(maps * (1 + 4 * is_coarse(FOVEAL, maps)[:, None, None, None]), FOVEAL)
        result = norm(Split(parts.fine, parts.coarse[:, :4]))
        assert torch.equal(result.fine, fine(parts.fine))
        assert torch.equal(result.coarse, coarse(parts.coarse[:, :4]))
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(norm, name), getattr(fine, name))
        assert torch.equal(getattr(norm.periphery, name), getattr(coarse, name))
    assert norm.periphery.running_var.min() > 2 * norm.running_var.max()


def test_a_layout_without_periphery_leaves_its_statistics_alone():
    norm = SlimNorm2d(8, width=0.5)
    norm(split(maps_of(ALL_FINE, 4, 8, dtype=torch.float32), ALL_FINE))
    assert torch.equal(norm.periphery.running_mean, torch.zeros(4))
    assert torch.equal(norm.periphery.running_var, torch.ones(4))


def test_full_width_has_no_second_statistics():
    assert SlimNorm2d(8, width=1.0).periphery is None
    assert set(SlimNorm2d(8).state_dict()) == set(nn.BatchNorm2d(8).state_dict())
    assert set(SlimConv2d(3, 8, 3, width=0.5).state_dict()) == set(nn.Conv2d(3, 8, 3).state_dict())


@pytest.mark.parametrize(("channels", "width", "narrow"), [(16, 0.5, 8), (16, 1, 16), (3, 0.01, 1), (10, 0.25, 2)])
def test_a_fraction_of_the_channels_is_at_least_one(channels, width, narrow):
    assert narrow_channels(channels, width) == narrow


@pytest.mark.parametrize("width", [0, -0.5, 1.01, float("nan")])
def test_a_fraction_out_of_range_is_refused(width):
    with pytest.raises(ValueError, match=f"periphery_channels is {width}; expected a fraction in"):
        SlimConv2d(3, 8, 3, width=width)
