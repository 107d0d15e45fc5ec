"""Rims filled from the windows around, and layers that equal the dense network's."""

import copy
import dataclasses
import doctest
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import cut, joined, layouts, maps_of
from torch import nn
from torch.nn import functional as F

import foveal.halo
from foveal.halo import FoveatedAvgPool2d, FoveatedConv2d, FoveatedMaxPool2d, area_mean, halo_pad
from foveal.layout import Layout

FOVEAL = {"picture": [(120, 100), (64, 128)], "size": 16, "levels": 4}
A = Layout.foveal(**FOVEAL, fixation=[(0.2, 0.7), (1.0, 0.0)])
B = Layout.foveal(**FOVEAL, fixation=[(0.6, 0.1), (0.4, 0.5)])


# ---- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_the_gradient_of_a_halo_and_its_gradient_are_right(padding):
    layout = Layout.foveal(picture=[(15, 11), (8, 5)], size=4, levels=3, fixation=[(0.2, 0.9), (0.5, 0.5)])
    maps = maps_of(layout, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: halo_pad(x, layout, padding, 2.0), maps)
    assert torch.autograd.gradgradcheck(lambda x: halo_pad(x, layout, padding, 2.0).sin(), maps)


@given(layouts())
@settings(max_examples=30, deadline=None)
def test_the_gradient_is_the_transpose(layout):
    maps = maps_of(layout, 4).requires_grad_()
    padded = halo_pad(maps, layout, 1)
    back = torch.randn(padded.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(padded, maps, back)
    torch.testing.assert_close((padded * back).sum(), (maps * gradient).sum())


def test_tables_made_during_inference_serve_training():
    layout = Layout.foveal(**FOVEAL)
    maps = maps_of(layout, 4, 3, dtype=torch.float32)
    layer = FoveatedConv2d(3, 2, 3, padding=1)
    with torch.inference_mode():
        expected = area_mean(layer(maps, layout), layout)
    result = area_mean(layer(maps.requires_grad_(), layout), layout)
    torch.testing.assert_close(result, expected)
    result.sum().backward()
    assert maps.grad.abs().sum() > 0


# ---- layers -----------------------------------------------------------------------------------------------------

CONVS = [  # kernel, stride, padding, dilation
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (7, 2, 3, 1),
    (1, 1, 0, 1),
    (1, 2, 0, 1),
    (3, 2, 0, 1),
    (2, 2, 0, 1),
    (4, 4, 0, 1),
    (4, 2, 1, 1),
    (3, 1, 4, 4),
    (5, 2, 0, 1),
    ((3, 5), (2, 1), (1, 2), 1),
    (3, 1, (1, 2), (1, 2)),
]


def same_as_dense(layer, dense, atol):
    """Whether a layer on tiles, and its gradient, equal the layer on the picture wherever the dense map has cells."""
    layout = Layout.tiling(picture=(48, 32), size=16)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(4, 48, 32, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = dense(picture[None])[0]
    maps = layer(cut(picture, layout), layout)
    down, across = dense.stride if isinstance(dense.stride, tuple) else (dense.stride,) * 2
    assert maps.shape[2:] == (16 // down, 16 // across), "a window of S gives S / R cells"
    result = torch.cat([torch.cat([left, right], -1) for left, right in zip(maps[::2], maps[1::2], strict=True)], -2)
    height, width = (min(sides) for sides in zip(result.shape[1:], expected.shape[1:], strict=True))
    assert height > 32 // down, "the dense map reaches into the last tile"
    result, expected = result[:, :height, :width], expected[:, :height, :width]
    torch.testing.assert_close(result, expected, rtol=0, atol=atol)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad((x * weight).sum(), picture, retain_graph=True)[0] for x in (result, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=10 * atol)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CONVS)
def test_a_convolution_on_tiles_equals_the_dense_one(kernel, stride, padding, dilation):
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 2}
    layer = FoveatedConv2d(4, 6, kernel, **arguments).double()
    dense = nn.Conv2d(4, 6, kernel, **arguments).double()
    dense.load_state_dict(layer.state_dict())
    same_as_dense(layer, dense, 1e-10)


@pytest.mark.parametrize(
    ("kernel", "stride", "options"),
    [
        (3, 2, {"padding": 1}),
        (2, 2, {}),
        (2, None, {}),
        (3, 1, {"padding": 1}),
        (3, 2, {"ceil_mode": True}),
        (3, 2, {"padding": 1, "ceil_mode": True}),
        ((3, 2), (2, 2), {"padding": (1, 0)}),
        (4, 1, {"padding": 1}),
        (5, 1, {"padding": 1}),
        (5, 2, {"padding": 1}),
    ],
)
@pytest.mark.parametrize("kind", ["max", "average", "average without padding"])
def test_a_pool_on_tiles_equals_the_dense_one(kernel, stride, options, kind):
    if kind == "max":
        layer, dense = FoveatedMaxPool2d(kernel, stride, **options), nn.MaxPool2d(kernel, stride, **options)
    else:
        options = {**options, "count_include_pad": kind == "average"}
        layer, dense = FoveatedAvgPool2d(kernel, stride, **options), nn.AvgPool2d(kernel, stride, **options)
    same_as_dense(layer, dense, 1e-12)


def test_pools_with_dilation_or_a_divisor_of_their_own_equal_the_dense_ones():
    same_as_dense(FoveatedMaxPool2d(3, 2, padding=1, dilation=2), nn.MaxPool2d(3, 2, padding=1, dilation=2), 1e-12)
    override = {"padding": 1, "divisor_override": 5}
    same_as_dense(FoveatedAvgPool2d(3, 2, **override), nn.AvgPool2d(3, 2, **override), 1e-12)


def test_in_half_precision_no_share_of_a_large_picture_is_lost():
    layout = Layout.tiling(picture=(576, 576), size=64)
    maps = (maps_of(layout, 64, 1) + 3).half()
    torch.testing.assert_close(area_mean(maps, layout).double(), maps.double().mean((0, 2, 3))[None], rtol=1e-3, atol=0)


def test_padding_never_wins_a_maximum():
    layout = Layout.windows(picture=(32, 32), size=8, windows=[(0, 0, 0), (0, 16, 16)])
    maps = -1 - maps_of(layout, 8).abs()
    pooled = FoveatedMaxPool2d(3, 2, padding=1)(maps, layout)
    assert pooled.isfinite().all()
    assert torch.equal(pooled, F.max_pool2d(maps, 3, 2, 1))


def test_one_layout_counts_the_averages_of_a_whole_batch():
    one = Layout.foveal(picture=(60, 64), size=16, levels=3, fixation=(0.9, 0.2))
    layer = FoveatedAvgPool2d(3, 2, padding=1, count_include_pad=False)
    maps = maps_of(Layout.stack([one, one]), 8)
    torch.testing.assert_close(layer(maps, one), layer(maps, Layout.stack([one, one])))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CONVS)
def test_one_window_and_no_halo_run_the_ordinary_layers(kernel, stride, padding, dilation):
    arguments = {"stride": stride, "padding": padding, "dilation": dilation}
    layer, dense = FoveatedConv2d(4, 6, kernel, **arguments), nn.Conv2d(4, 6, kernel, **arguments)
    dense.load_state_dict(layer.state_dict())
    maps = maps_of(A, 16, 4, dtype=torch.float32)
    assert torch.equal(layer(maps, A, halo=False), dense(maps))
    assert torch.equal(layer(maps, Layout.dense(picture=(16, 16))), dense(maps))
    pools = [(FoveatedMaxPool2d, nn.MaxPool2d), (FoveatedAvgPool2d, nn.AvgPool2d)]
    for foveated, ordinary in pools:
        assert torch.equal(foveated(3, 2, padding=1)(maps, A, halo=False), ordinary(3, 2, padding=1)(maps))


def test_without_halo_a_rim_is_zero_padding():
    layer = FoveatedConv2d(2, 2, 3, padding=1, bias=False)
    maps = maps_of(A, 8, dtype=torch.float32)
    expected = F.conv2d(F.pad(maps, (1,) * 4), layer.weight)
    torch.testing.assert_close(layer(maps, A, halo=False), expected)
    assert not torch.allclose(layer(maps, A), expected), "with it, it is not"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (FoveatedConv2d(2, 2, 3, stride=3), "stride of 3, which does not divide it"),
        (FoveatedMaxPool2d(5), "16 x 16 cells meets a stride of 5"),
        (FoveatedConv2d(2, 2, 3, padding="same"), "padding 'same'"),
        (FoveatedConv2d(2, 2, 3, padding=1, padding_mode="reflect"), "mode 'reflect'"),
        (FoveatedConv2d(2, 2, 1, padding=1), "a kernel that reaches 1 cells fits into a padding of 1"),
        (FoveatedMaxPool2d(2, return_indices=True), "return_indices"),
    ],
)
def test_layers_that_several_windows_cannot_have_are_refused(layer, words):
    with pytest.raises(ValueError, match=words):
        layer(torch.zeros(8, 2, 16, 16), A)


def test_unpadded_by_name_is_unpadded():
    layer = FoveatedConv2d(2, 2, 3, padding="valid", stride=2)
    number = FoveatedConv2d(2, 2, 3, stride=2)
    number.load_state_dict(layer.state_dict())
    maps = maps_of(A, 8, dtype=torch.float32)
    assert torch.equal(layer(maps, A), number(maps, A))


# ---- pooling over the picture -----------------------------------------------------------------------------------


@given(layouts(), st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_the_mean_weighs_every_cell_by_the_picture_that_it_alone_stands_for(layout, n):
    maps = maps_of(layout, n)
    cells = maps.unflatten(0, (len(layout), -1)).movedim(2, 0)  # (C, B, K, n, n)
    areas = layout.areas(n).double()
    expected = (cells * areas).sum((2, 3, 4)) / areas.sum((1, 2, 3))
    torch.testing.assert_close(area_mean(maps, layout), expected.T, rtol=0, atol=1e-12)


def test_one_window_that_the_picture_fills_runs_the_ordinary_mean():
    maps = torch.randn(3, 5, 8, 8)
    assert torch.equal(area_mean(maps, Layout.dense(picture=(64, 64))), maps.mean((2, 3)))
    twice = Layout.windows(picture=(64, 64), size=32, windows=[(1, 0, 0)])
    assert torch.equal(area_mean(maps, twice), maps.mean((2, 3)))


def test_windows_that_hold_nothing_of_the_picture_have_a_mean_of_zero():
    layout = Layout.windows(picture=(8, 8), size=4, windows=[(0, 0, 0), (0, 4, 4)])
    nowhere = dataclasses.replace(layout, valid=torch.zeros_like(layout.valid))
    assert torch.equal(area_mean(torch.ones(2, 3, 4, 4), nowhere), torch.zeros(1, 3))


@pytest.mark.parametrize("windows", [[(0, 32, 32)], [(1, 0, 0)]])
def test_one_window_that_the_picture_does_not_fill_counts_only_the_picture(windows):
    layout = Layout.windows(picture=(64, 64), size=64, windows=windows)  # half of each side lies outside
    maps = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(area_mean(maps, layout), maps[:, :, :4, :4].mean((2, 3)))


def test_the_mean_of_half_precision_stays_finite():
    layout = Layout.foveal(picture=(8192, 8192), size=64, levels="auto")
    maps = torch.ones(layout.num_windows, 2, 4, 4)
    for dtype in (torch.float16, torch.bfloat16):  # a cell of 2048 x 2048 pixels is more than float16 holds
        torch.testing.assert_close(area_mean(maps.to(dtype), layout), torch.ones(1, 2, dtype=dtype), rtol=0, atol=0.02)


# ---- a network that knows nothing of windows --------------------------------------------------------------------


class Looking(nn.Module):
    """A foveated layer that is told its layout from outside, so that it can sit inside any network."""

    def __init__(self, layer, told):
        super().__init__()
        self.layer, self.told = layer, told

    def forward(self, x):
        return self.layer(x, self.told["layout"])


def exchanged(network, told):
    """A copy of a network with its convolutions and pools exchanged for foveated ones of the same weights."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                options = {key: getattr(child, key) for key in ("stride", "padding", "dilation", "groups")}
                bias = child.bias is not None
                layer = FoveatedConv2d(child.in_channels, child.out_channels, child.kernel_size, bias=bias, **options)
                layer.load_state_dict(child.state_dict())
            elif isinstance(child, nn.MaxPool2d):
                layer = FoveatedMaxPool2d(child.kernel_size, child.stride, child.padding, child.dilation)
            else:
                continue
            setattr(module, name, Looking(layer.to(next(network.parameters()).dtype), told))
    return network


@pytest.fixture(scope="module")
def resnet18():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return nn.Sequential(*list(network.children())[:-2])


@torch.inference_mode()
def test_resnet18_in_one_window_equals_the_dense_network_bit_for_bit(resnet18):
    picture = torch.randn(2, 3, 96, 96)
    windows = exchanged(resnet18, {"layout": Layout.dense(picture=(96, 96))})
    assert torch.equal(windows(picture), resnet18(picture))


@pytest.mark.parametrize(
    ("dtype", "atol"),
    # The features reach about 10; sums over up to 4,608 products in another order differ by some 1e-6 of that.
    [(torch.float32, 1e-4), (torch.float64, 1e-10)],
)
@pytest.mark.parametrize(("size", "sides"), [(64, (192, 128)), (32, (64, 96))])
@torch.inference_mode()
def test_resnet18_on_tiles_equals_the_dense_network(resnet18, size, sides, dtype, atol):
    layout = Layout.tiling(picture=sides, size=size)
    picture = torch.randn(3, *sides, dtype=dtype, generator=torch.Generator().manual_seed(0))
    dense = copy.deepcopy(resnet18).to(dtype)
    expected = dense(picture[None])[0]
    result = joined(exchanged(dense, {"layout": layout})(cut(picture, layout)), layout)
    assert 1 < expected.abs().max() < 100
    torch.testing.assert_close(result, expected, rtol=0, atol=atol)


# ---- threads, compilers, exporters ------------------------------------------------------------------------------


def test_threads_share_a_layer_and_never_each_others_layout():
    torch.manual_seed(0)
    layer = FoveatedConv2d(3, 4, 3, padding=1)
    looks = [Layout.foveal(**FOVEAL, fixation=(place / 15, 1 - place / 15)) for place in range(16)]
    maps = maps_of(A, 16, 3, dtype=torch.float32)
    with torch.inference_mode():
        expected = [layer(maps, Layout.foveal(**FOVEAL, fixation=(place / 15, 1 - place / 15))) for place in range(16)]
    assert not torch.equal(expected[0], expected[9])

    def look(turn):
        with torch.inference_mode():
            return torch.equal(layer(maps, looks[turn % 16]), expected[turn % 16])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(look, range(400)))


class Network(nn.Module):
    """Convolution, pool, convolution, mean: a layout goes in as tensors."""

    def __init__(self):
        super().__init__()
        self.first = FoveatedConv2d(3, 8, 3, padding=1)
        self.pool = FoveatedMaxPool2d(3, 2, padding=1)
        self.second = FoveatedConv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, windows, origins, levels, pictures, fixations, valid):
        layout = Layout(windows.shape[-1], origins, levels, pictures, fixations, valid)
        x = self.pool(self.first(windows, layout).relu(), layout)
        return area_mean(self.second(x, layout), layout)


def inputs_of(layout):
    windows = maps_of(layout, 16, 3, dtype=torch.float32)
    return windows, layout.origins, layout.levels, layout.pictures, layout.fixations, layout.valid


@torch.no_grad()
def test_a_compiled_layer_equals_the_eager_one_also_with_another_layout():
    torch._dynamo.reset()
    layer, maps = FoveatedConv2d(4, 5, 3, stride=2, padding=1), maps_of(A, 8, 4, dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for layout in (A, B):
        torch.testing.assert_close(compiled(maps, layout), layer(maps, layout))


@pytest.mark.full
@pytest.mark.parametrize(
    "layer",
    [
        lambda x, layout: halo_pad(x, layout, (1, 2, 0, 1), 2.0),
        FoveatedConv2d(4, 5, 3, stride=2, padding=1),
        FoveatedMaxPool2d(3, 2, padding=1),
        FoveatedAvgPool2d(3, 2, padding=1, count_include_pad=False),
        area_mean,
    ],
    ids=["halo_pad", "conv", "max pool", "average pool", "area_mean"],
)
def test_every_compiled_layer_and_its_gradient_equal_the_eager_ones(layer):
    torch._dynamo.reset()
    compiled, maps = torch.compile(layer, fullgraph=True, backend="aot_eager"), maps_of(A, 8, 4, dtype=torch.float32)
    for layout in (A, B):
        one, other = maps.clone().requires_grad_(), maps.clone().requires_grad_()
        result, expected = compiled(one, layout), layer(other, layout)
        torch.testing.assert_close(result, expected)
        result.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.full
def test_an_exported_network_takes_the_layout_as_tensors():
    torch.manual_seed(0)
    network = Network().eval()
    program = torch.export.export(network, inputs_of(A)).module()
    for layout in (A, B):
        torch.testing.assert_close(program(*inputs_of(layout)), network(*inputs_of(layout)))
    assert not torch.allclose(network(*inputs_of(A)), network(*inputs_of(B)))


@pytest.mark.full
def test_onnx_runtime_gives_what_the_network_gives_for_any_layout(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = Network().eval()
    torch.onnx.export(network, inputs_of(A), dynamo=True, verbose=False).save(tmp_path / "network.onnx")
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    names = ("windows", "origins", "levels", "pictures", "fixations", "valid")
    wanted = {value.name for value in session.get_inputs()}
    for layout in (A, B):
        feed = {name: value.numpy() for name, value in zip(names, inputs_of(layout), strict=True) if name in wanted}
        (result,) = session.run(None, feed)
        np.testing.assert_allclose(result, network(*inputs_of(layout)).detach().numpy(), atol=1e-5)


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(foveal.halo).failed == 0
