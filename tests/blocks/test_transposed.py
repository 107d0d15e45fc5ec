import math
import warnings

import pytest
import torch
from cases import Case
from torch import nn

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout
from foveal.retina import Retina

CASES = [
    Case("transposed_conv", {"channels": 4, "out_channels": 6}, out=lambda c, h, w: (6, 2 * h, 2 * w)),
    Case("transposed_conv", {"channels": 4, "kernel_size": 2, "groups": 2}, out=lambda c, h, w: (c, 2 * h, 2 * w)),
    Case("transposed_conv", {"channels": 4, "kernel_size": 9, "stride": 3}, out=lambda c, h, w: (c, 3 * h, 3 * w)),
    Case("transposed_conv", {"channels": 4, "kernel_size": 3, "stride": 1, "dilation": 2}),
]


def tiled(network, picture, size):
    """What a network gives of a picture (1, C, side, side) in windows, put side by side."""
    rows = picture.shape[-1] // size
    layout = Layout.tiling(picture=tuple(picture.shape[2:]), size=size)
    maps = foveate(network)(Retina(size, levels=1)(picture, layout=layout))[0]
    return torch.cat([torch.cat(list(maps[row * rows : (row + 1) * rows]), -1) for row in range(rows)], -2)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more", "dilation"),
    [
        (4, 2, 1, 0, 1),
        (2, 2, 0, 0, 1),
        (3, 2, 1, 1, 1),
        (5, 2, 2, 1, 1),
        (1, 2, 0, 1, 1),
        (6, 3, 2, 1, 1),
        (3, 1, 1, 0, 1),
        (3, 1, 2, 0, 2),
        (5, 1, 2, 0, 1),
        (2, 4, 0, 2, 1),
        (3, 4, 1, 3, 1),
        (8, 4, 2, 0, 1),
    ],
)
def test_windows_grow_as_the_dense_map_does(kernel, stride, padding, more, dilation):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 4, kernel, stride, padding, more, dilation=dilation)
    picture = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(tiled(layer, picture, 8), layer(picture)[0], rtol=1e-4, atol=1e-5)


def test_a_dense_map_that_ends_early_is_cut_for_what_follows():
    torch.manual_seed(0)
    short = nn.ConvTranspose2d(3, 4, 3, 2, padding=1)  # 32 -> 63
    network = nn.Sequential(short, nn.Conv2d(4, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    picture = torch.randn(2, 3, 32, 32)
    layout = Layout.stack([Layout.tiling(picture=(32, 32), size=16)] * 2)
    with torch.no_grad():
        answer = foveate(network)(Retina(16, levels=1)(picture, layout=layout))
        torch.testing.assert_close(answer, network(picture), rtol=1e-4, atol=1e-6)


def test_without_halos_each_window_is_enlarged_alone():
    layer, picture = nn.ConvTranspose2d(3, 4, 4, 2, 1), torch.randn(1, 3, 32, 32)
    layout = Layout.tiling(picture=(32, 32), size=16)
    glimpse = Retina(16, levels=1)(picture, layout=layout)
    with torch.no_grad():
        torch.testing.assert_close(foveate(layer, halo=False)(glimpse)[0], layer(glimpse.pixels[0]))


def test_what_windows_have_no_place_for_is_refused():
    for layer, reason in (
        (nn.ConvTranspose2d(3, 4, 4, 2), "grows by a cell"),
        (nn.ConvTranspose2d(3, 4, (2, 3), (2, 1), (0, 1)), "square no more"),
        (nn.Sequential(nn.ZeroPad2d(1), nn.ConvTranspose2d(3, 4, 2, 2)), "padded"),
    ):
        with pytest.raises(UnsupportedModule, match=reason):
            foveate(layer)


def test_it_is_the_gradient_of_a_convolution():
    block = create_block("transposed_conv", channels=3, out_channels=2, bias=False).double()
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64)
    large = torch.zeros(1, 2, 10, 12, dtype=torch.float64, requires_grad=True)
    small = nn.functional.conv2d(large, block.weight, stride=2, padding=1)
    (gradient,) = torch.autograd.grad(small, large, x)
    torch.testing.assert_close(block(x), gradient)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (2, 3), (5, 4)])
def test_kernels_that_make_checkerboards_are_warned_of(kernel, stride):
    with pytest.warns(UserWarning, match=f"checkerboard; take {-(-kernel // stride) * stride}"):
        block = create_block("transposed_conv", channels=1, kernel_size=kernel, stride=stride, bias=False)
    nn.init.ones_(block.weight)
    inside = block(torch.ones(1, 1, 12, 12))[0, 0, 2 * stride : -2 * stride, 2 * stride : -2 * stride]
    assert inside.amin() < inside.amax(), "the warning is of what really happens"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        even = create_block("transposed_conv", channels=1, kernel_size=2 * stride, stride=stride, bias=False)
    nn.init.ones_(even.weight)
    inside = even(torch.ones(1, 1, 12, 12))[0, 0, 2 * stride : -2 * stride, 2 * stride : -2 * stride]
    assert inside.amin() == inside.amax()


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(4, 2, 2), (3, 2, 2), (4, 4, 2), (3, 3, 3)])
def test_cells_that_are_never_written_are_warned_of(kernel, stride, dilation):
    options = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    with pytest.warns(UserWarning, match="the others keep the bias alone"):
        block = create_block("transposed_conv", channels=1, **options)
    nn.init.ones_(block.weight)
    nn.init.constant_(block.bias, -1.0)
    made = block(torch.ones(1, 1, 12, 12))[0, 0]
    written = (made != -1).any(1).float().mean().item()
    assert written == pytest.approx(1 / math.gcd(stride, dilation), abs=0.05)


def test_parameters_are_as_documented_and_the_impossible_is_refused():
    block = create_block("transposed_conv", channels=12, out_channels=6, groups=3)
    assert sum(parameter.numel() for parameter in block.parameters()) == 12 * 6 // 3 * 16 + 6
    with pytest.raises(ValueError, match="choose an odd one"):
        create_block("transposed_conv", channels=4, kernel_size=4, stride=1)
    with pytest.raises(ValueError, match="expected each at least 1"):
        create_block("transposed_conv", channels=4, stride=0)
    with pytest.raises(ValueError, match="groups 3 does not divide"):
        create_block("transposed_conv", channels=4, groups=3)
