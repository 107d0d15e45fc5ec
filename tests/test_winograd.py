"""Convolutions with fewer multiplications: the same numbers as padding and convolving in float64."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import foveal_layouts
from torch import nn
from torch.nn import functional as F

import foveal.winograd
from foveal import FoveatedConv2d, Layout, Retina, foveate, halo_pad
from foveal.blocks.slim import SlimConv2d, Split
from foveal.halo import filtered
from foveal.models import CenterFocusCNN


@pytest.fixture(autouse=True)
def _any_shape(monkeypatch):
    monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1)
    monkeypatch.setattr(foveal.winograd, "FEWEST_CHANNELS", 1)


def wanted(x, layout, weight, bias=None):
    bias = None if bias is None else bias.double()
    return F.conv2d(halo_pad(x.double(), layout, 1), weight.detach().double(), bias)


@given(foveal_layouts(), st.sampled_from([2, 4, 6]), st.integers(0, 1 << 16), st.sampled_from([1, 3000, 1 << 21]))
@settings(max_examples=30, deadline=None)
def test_it_is_the_convolution_of_the_padded_maps(made, n, seed, chunk):
    layout = made[0] if isinstance(made, tuple) else made
    if layout.num_windows == 1:
        return
    torch.manual_seed(seed)
    x = torch.randn(len(layout) * layout.num_windows, 3, n, n)
    weight, bias = nn.Parameter(torch.randn(5, 3, 3, 3)), torch.randn(5)
    before, foveal.winograd._CHUNK_BYTES = foveal.winograd._CHUNK_BYTES, chunk
    try:
        with torch.no_grad():
            found = filtered(x, Layout.stack([layout]), weight, bias)
    finally:
        foveal.winograd._CHUNK_BYTES = before
    torch.testing.assert_close(found.double(), wanted(x, layout, weight, bias), rtol=1e-5, atol=2e-5)


def test_layers_and_converted_networks_take_this_way(monkeypatch):
    calls = []
    own = foveal.halo.filter_tiles
    monkeypatch.setattr(foveal.halo, "filter_tiles", lambda *a, **k: calls.append(1) or own(*a, **k))
    glimpse = Retina(16, 3)(torch.rand(2, 3, 64, 64))
    layer, x = FoveatedConv2d(3, 4, 3, padding=1), glimpse.pixels.flatten(0, 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2))
    with torch.no_grad():
        found, maps = layer(x, glimpse.layout), foveate(network)(glimpse)
    assert len(calls) == 2
    torch.testing.assert_close(
        found.double(), wanted(x, glimpse.layout, layer.weight, layer.bias), rtol=1e-5, atol=1e-5
    )
    first = wanted(x, glimpse.layout, network[0].weight, network[0].bias)
    both = F.conv2d(halo_pad(first, glimpse.layout, 1), network[1].weight.double(), network[1].bias.double(), groups=2)
    torch.testing.assert_close(maps.flatten(0, 1).double(), both, rtol=1e-4, atol=1e-5)


def test_gradients_other_dtypes_odd_maps_and_few_tiles_go_the_ordinary_way(monkeypatch):
    layout = Layout.tiling(picture=(8, 8), size=4)
    weight = nn.Parameter(torch.randn(2, 2, 3, 3))
    assert filtered(torch.randn(4, 2, 4, 4), layout, weight, None) is None  # gradients are kept
    with torch.no_grad():
        assert filtered(torch.randn(4, 2, 4, 4), layout, weight, None) is not None
        assert filtered(torch.randn(4, 2, 4, 4).double(), layout, nn.Parameter(weight.double()), None) is None
        assert filtered(torch.randn(4, 2, 3, 3), layout, weight, None) is None
        assert filtered(torch.randn(4, 2, 4, 4), layout, nn.Parameter(torch.randn(2, 2, 5, 5)), None) is None
        assert filtered(torch.randn(4, 2, 4, 4), layout, weight * 1, None) is None  # a kernel of this call alone
        monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 17)
        assert filtered(torch.randn(4, 2, 4, 4), layout, weight, None) is None
    with torch.inference_mode():
        assert filtered(torch.randn(4, 2, 4, 4), layout, nn.Parameter(torch.randn(2, 2, 3, 3)), None) is None


CHANGES = {
    "in place": lambda conv, other: conv.weight.mul_(2),
    "through data": lambda conv, other: conv.weight.data.add_(0.1),
    "one tap": lambda conv, other: conv.weight.data[:, :, 1, 1].mul_(3),
    "some channels": lambda conv, other: conv.weight.data[:, ::2][:, 1:].zero_(),
    "in other order": lambda conv, other: conv.weight.data.copy_(conv.weight.data.flip(0)),
    "shared memory": lambda conv, other: conv.weight.detach().numpy()[:, 1:].fill(0),
    "loaded": lambda conv, other: conv.load_state_dict(other.state_dict()),
    "other memory": lambda conv, other: setattr(conv.weight, "data", other.weight.data),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_changed_kernel_is_seen(change, form):
    layout, x = Layout.tiling(picture=(8, 8), size=4), torch.randn(4, 64, 4, 4)
    conv, other = (nn.Conv2d(64, 64, 3, padding=1).to(memory_format=form) for _ in range(2))
    with torch.no_grad():
        for _ in range(2):
            filtered(x, layout, conv.weight, None)
        CHANGES[change](conv, other)
        found = filtered(x, layout, conv.weight, None)
    torch.testing.assert_close(found.double(), wanted(x, layout, conv.weight), rtol=1e-4, atol=1e-5)


def test_what_a_convolution_refuses_is_refused_here_too():
    layout = Layout.tiling(picture=(8, 8), size=4)
    with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
        FoveatedConv2d(4, 2, 3, padding=1)(torch.randn(4, 2, 4, 4), layout)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 3, padding=1))
    look = Retina(16, 3)(torch.rand(1, 3, 64, 64))
    for tiles in (1, 20):  # both widths filtered, and the periphery alone
        foveal.winograd.FEWEST_TILES = tiles
        with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
            foveate(network, periphery_channels=0.5)(look)
    split = Split(torch.randn(4, 4, 4, 4), torch.randn(8, 2, 4, 4))
    with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
        SlimConv2d(8, 4, 3, padding=1, width=0.5)(split, Layout.stack([look.layout] * 4))


def test_a_kernel_that_repeats_itself_in_memory():
    layout, x = Layout.tiling(picture=(8, 8), size=4), torch.randn(4, 2, 4, 4)
    weight = nn.Parameter(torch.randn(1, 2, 3, 3).expand(3, 2, 3, 3))
    with torch.no_grad():
        found = filtered(x, layout, weight, None)
    torch.testing.assert_close(found.double(), wanted(x, layout, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_autocast_goes_the_ordinary_way(width):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 3, padding=1))
    network = network if width == 1 else nn.Sequential(network[0], network[2])
    made, glimpse = foveate(network.eval(), periphery_channels=width), Retina(16, 3)(torch.rand(1, 3, 64, 64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = made(glimpse)
    with torch.no_grad():
        torch.testing.assert_close(mixed.float(), made(glimpse), rtol=0.05, atol=0.05)


def test_nothing_is_kept_of_a_kernel_that_is_gone():
    layout, x = Layout.tiling(picture=(8, 8), size=4), torch.randn(4, 2, 4, 4)
    conv = nn.Conv2d(2, 3, 3, padding=1)
    with torch.no_grad():
        filtered(x, layout, conv.weight, None)
    number, gone = id(conv.weight), weakref.ref(conv.weight)
    assert number in foveal.winograd._KEPT
    del conv
    gc.collect()
    assert gone() is None
    assert number not in foveal.winograd._KEPT


def test_a_narrow_periphery_takes_this_way_too(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1, bias=False)).eval()
    made, glimpse = foveate(network, periphery_channels=0.5), Retina(16, 3)(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        found = made(glimpse)
        monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1 << 40)
        plain = made(glimpse)
    assert not torch.equal(found, plain)  # another way was taken
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    assert not found[:, 1:, 3:].any()


def test_so_does_our_own_backbone_with_a_narrow_periphery(monkeypatch):
    torch.manual_seed(0)
    network = CenterFocusCNN("nano", periphery_channels=0.5).eval()
    glimpse = Retina(32, 3)(torch.rand(2, 3, 128, 100), torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    with torch.no_grad():
        found = network(glimpse)
        monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1 << 40)
        plain = network(glimpse)
    assert not torch.equal(found, plain)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
