"""Convolutions of tiles with half of the multiplications: the same numbers as a convolution in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import foveal.winograd_rows
from foveal.blocks.tile_cells import Tiles
from foveal.blocks.tile_filter import filtered_tiles
from foveal.blocks.tile_sparse import TileSparseConv2d
from foveal.convert.foveate import foveate
from foveal.retina import Retina
from foveal.winograd_rows import filter_rows


@pytest.fixture(autouse=True)
def _any_shape(monkeypatch):
    monkeypatch.setattr(foveal.winograd_rows, "FEWEST_TILES", 0)
    monkeypatch.setattr(foveal.winograd_rows, "FEWEST_CHANNELS", 1)


@pytest.mark.parametrize("tile", [4, 8, 12])
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("chunk", [1, 40_000, 1 << 22])
def test_tiles_are_those_of_the_convolution_and_zeros_come_after_them(tile, before, chunk, monkeypatch):
    monkeypatch.setattr(foveal.winograd_rows, "_CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    rim = 2 * (1 - before)  # of maps that are padded already
    x = torch.randn(2, 3, 3 * tile + rim, 2 * tile + rim)
    weight, bias = nn.Parameter(torch.randn(5, 3, 3, 3)), torch.randn(5)
    maps, down, across = (values.flatten() for values in torch.meshgrid(*map(torch.arange, (2, 3, 2)), indexing="ij"))
    with torch.no_grad():
        found = filter_rows(x, maps, (down, across), weight, bias, tile=tile, before=before)
        wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=before)
    assert not found[-1].any()
    whole = found[:-1].view(2, 3, 2, tile, tile, 5).permute(0, 5, 1, 3, 2, 4).reshape(wanted.shape)
    torch.testing.assert_close(whole.double(), wanted, rtol=1e-5, atol=2e-5)


def test_what_is_rounded_off_is_at_most_twice_what_the_plain_convolution_rounds_off():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, 64, 64), nn.Conv2d(64, 64, 3).weight
    x = x.contiguous(memory_format=torch.channels_last)
    maps, down, across = (values.flatten() for values in torch.meshgrid(*map(torch.arange, (1, 4, 4)), indexing="ij"))
    with torch.no_grad():
        found = filter_rows(x, maps, (down, across), weight, None, tile=16)[:-1]
        exact, plain = F.conv2d(x.double(), weight.double(), padding=1), F.conv2d(x, weight, padding=1)
    found = found.view(1, 4, 4, 16, 16, 64).permute(0, 5, 1, 3, 2, 4).reshape(exact.shape)
    off, usual = ((values - exact).square().mean().sqrt() for values in (found, plain))
    assert off < 2 * usual


def count_calls(monkeypatch):
    calls = []

    def counted(*args, **options):
        found = filtered_tiles(*args, **options)
        calls.append(found is not None)
        return found

    monkeypatch.setattr("foveal.blocks.tile_sparse.filtered_tiles", counted)
    return calls


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("at_once", [1, 2000, 1 << 18])
def test_the_layer_is_the_same_with_and_without_gradients(bias, memory, at_once, monkeypatch):
    monkeypatch.setattr("foveal.blocks.tile_filter._AT_ONCE", at_once)
    torch.manual_seed(0)
    calls = count_calls(monkeypatch)
    conv = TileSparseConv2d(4, 6, 3, tile=8, keep=0.3, bias=bias).eval()
    x = torch.randn(5, 4, 32, 48).contiguous(memory_format=memory)
    plain = conv(x)
    with torch.no_grad():
        found = conv(x)
    assert calls == [False, True]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(found == 0, plain == 0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_windows_of_a_look_are_the_same_with_and_without_gradients(monkeypatch):
    torch.manual_seed(0)
    calls = count_calls(monkeypatch)
    made = foveate(TileSparseConv2d(3, 4, 3, tile=4, keep=0.4).eval())
    glimpse = Retina(16, 3)(torch.rand(2, 3, 64, 64))
    plain = made(glimpse)
    with torch.no_grad():
        found = made(glimpse)
    assert calls[-2:] == [False, True]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_other_kernels_dtypes_and_sides_go_the_ordinary_way(monkeypatch):
    calls = count_calls(monkeypatch)
    x = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        TileSparseConv2d(4, 4, 3, tile=6).eval()(x)
        TileSparseConv2d(4, 4, 3, tile=4).eval()(x[:, :, :, :14])
        TileSparseConv2d(4, 4, 3, tile=4).eval().double()(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            TileSparseConv2d(4, 4, 3, tile=4).eval()(x)
        TileSparseConv2d(4, 4, (1, 3), tile=4).eval()(x)
        TileSparseConv2d(4, 4, 3, tile=4, groups=2).eval()(x)
        TileSparseConv2d(4, 4, 3, tile=4).train()(x)
    assert not any(calls)


def test_a_result_is_the_caller_s_own_and_the_kernel_may_change():
    conv = TileSparseConv2d(4, 4, 3, tile=4, keep=0.5, bias=False).eval()
    x = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        first = conv(x)
        kept = first.clone()
        conv.weight.data.mul_(2)
        second = conv(x)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, 2 * first)


def test_tiles_hold_where_their_cells_lie():
    tiles = Tiles(torch.tensor([1]), torch.tensor([0]), torch.tensor([1]), 2)
    index, inside = tiles.cells((2, 4), (4, 4), (1, 1))
    assert index[0, 1].tolist() == [9, 10, 11, 11]
    assert inside[0].tolist() == [[False] * 4, [True, True, True, False], [True, True, True, False], [False] * 4]
