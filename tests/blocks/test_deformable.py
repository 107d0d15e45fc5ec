import copy

import pytest
import torch
from cases import Case
from torch import nn

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.convert.planned import planned
from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout
from foveal.retina import Retina

CASES = [
    Case("deformable_conv", {"channels": 4, "version": 1}),
    Case(
        "deformable_conv",
        {"channels": 4, "out_channels": 6, "kernel_size": 5, "stride": 2, "offset_groups": 2},
        out=lambda c, h, w: (6, h // 2, w // 2),
    ),
    Case("deformable_conv", {"channels": 4, "kernel_size": 1, "groups": 2, "bias": False}),
    Case("center_deformable_conv", {"channels": 4}),
    Case(
        "center_deformable_conv",
        {"channels": 4, "contraction": 1.0, "reach": 3.5, "version": 1, "stride": 2, "dilation": 2},
        out=lambda c, h, w: (c, h // 2, w // 2),
    ),
]


def read(x, y, column):
    """A map (C, H, W) at a place between its cells, zero beside it."""
    top, left = int(torch.tensor(y).floor()), int(torch.tensor(column).floor())
    value = torch.zeros(len(x), dtype=x.dtype)
    for row in (top, top + 1):
        for at in (left, left + 1):
            if 0 <= row < x.shape[1] and 0 <= at < x.shape[2]:
                value += (1 - abs(y - row)) * (1 - abs(column - at)) * x[:, row, at]
    return value


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_the_sum_of_its_formula(version):
    torch.manual_seed(0)
    block = create_block("deformable_conv", channels=2, out_channels=3, version=version).double()
    nn.init.normal_(block.offsets.weight, std=0.5)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        moved, result = block.offsets(x)[0], block(x)[0]
    wanted = block.conv.bias.detach()[:, None, None].repeat(1, 5, 6)
    for y in range(5):
        for column in range(6):
            for tap in range(9):
                dy, dx = moved[2 * tap, y, column].item(), moved[2 * tap + 1, y, column].item()
                value = read(x[0], y + tap // 3 - 1 + dy, column + tap % 3 - 1 + dx)
                worth = moved[18 + tap, y, column].sigmoid() if version == 2 else 1
                wanted[:, y, column] += worth * (block.conv.weight.detach()[:, :, tap // 3, tap % 3] @ value)
    torch.testing.assert_close(result, wanted)


def test_taps_start_on_the_grid_with_masks_of_one_half():
    x = torch.randn(2, 4, 9, 8)
    for version, worth in ((1, 1.0), (2, 0.5)):
        block = create_block("deformable_conv", channels=4, version=version, bias=False)
        plain = nn.functional.conv2d(x, block.conv.weight, padding=1)
        torch.testing.assert_close(block(x), worth * plain)


def test_drawn_wholly_to_the_centre_it_starts_as_a_pointwise_convolution():
    x = torch.randn(2, 4, 9, 8)
    for dilation in (1, 3):
        options = {"contraction": 1.0, "version": 1, "kernel_size": 5, "dilation": dilation}
        block = create_block("center_deformable_conv", channels=4, **options)
        point = block.conv.weight.sum((2, 3), keepdim=True)
        torch.testing.assert_close(block(x), nn.functional.conv2d(x, point, block.conv.bias), rtol=1e-4, atol=1e-5)
    grid = create_block("center_deformable_conv", channels=4, contraction=0.0, version=1)
    torch.testing.assert_close(grid(x), nn.functional.conv2d(x, grid.conv.weight, grid.conv.bias, padding=1))


def test_half_way_to_the_centre_taps_lie_between_cells():
    block = create_block("center_deformable_conv", channels=1, contraction=0.5, version=1, bias=False)
    nn.init.ones_(block.conv.weight)
    x = torch.arange(7.0).expand(1, 1, 7, 7)
    torch.testing.assert_close(block(x)[0, 0, 3, 1:6], 9 * x[0, 0, 3, 1:6])  # of a ramp, the mean is the centre
    peak = torch.zeros(1, 1, 7, 7)
    peak[0, 0, 3, 3] = 1
    torch.testing.assert_close(block(peak)[0, 0, 3, 3], torch.tensor((1 + 2 * 0.5) ** 2))
    assert block(peak)[0, 0].count_nonzero() == 9


def test_no_tap_goes_farther_than_the_reach():
    torch.manual_seed(0)
    block = create_block("center_deformable_conv", channels=1, reach=2.0)
    nn.init.normal_(block.offsets.weight, std=1e3)
    x = torch.randn(1, 1, 21, 21, requires_grad=True)
    (gradient,) = torch.autograd.grad(block.double()(x.double())[0, 0, 10, 10], x)
    rows = gradient[0, 0].abs().sum(1).nonzero()
    # the offsets' own kernel reads 9 .. 11, a tap at most 0.5 + 2 cells from the centre
    assert rows.amin() >= 7
    assert rows.amax() <= 13


def test_the_penalty_is_the_mean_square_of_what_moved_and_can_be_trained():
    torch.manual_seed(0)
    block = create_block("center_deformable_conv", channels=4, reach=2.0)
    with pytest.raises(RuntimeError, match="call the block first"):
        block.penalty  # noqa: B018
    x = torch.randn(2, 4, 8, 8)
    block(x)
    assert block.penalty == 0
    nn.init.normal_(block.offsets.weight)
    optimizer, values = torch.optim.SGD(block.parameters(), lr=0.1), []
    for _ in range(5):
        block(x)
        moved = 2 * torch.tanh(block.offsets(x)[:, :18])
        torch.testing.assert_close(block.penalty, moved.square().mean())
        optimizer.zero_grad()
        block.penalty.backward()
        optimizer.step()
        values.append(block.penalty.item())
    assert values == sorted(values, reverse=True)
    copy.deepcopy(block)


def test_the_penalty_of_a_tiling_is_that_of_the_picture():
    torch.manual_seed(0)
    block = create_block("center_deformable_conv", channels=2)
    nn.init.normal_(block.offsets.weight)
    picture = torch.randn(2, 2, 16, 16)
    block(picture)
    layout = Layout.stack([Layout.tiling(picture=(16, 16), size=8)] * 2)
    foveated = foveate(block)
    foveated(Retina(8, levels=1)(picture, layout=layout))
    torch.testing.assert_close(foveated.network.penalty, block.penalty)
    foveated.network.penalty.backward()
    assert foveated.offsets.weight.grad.abs().sum() > 0


def side_by_side(maps, across):
    return torch.cat([torch.cat(list(maps[row : row + across]), -1) for row in range(0, len(maps), across)], -2)


@pytest.mark.parametrize("far", [0.3, 3.0, 11.0, 1e4])
def test_windows_read_as_far_as_offsets_go(far):
    torch.manual_seed(0)
    block = create_block("deformable_conv", channels=2, stride=2, kernel_size=3)
    nn.init.normal_(block.offsets.weight, std=far / 4)
    picture = torch.randn(1, 2, 32, 32)
    layout = Layout.tiling(picture=(32, 32), size=8)
    with torch.no_grad():
        maps = foveate(block)(Retina(8, levels=1)(picture, layout=layout))[0]
        # Places are sums of offsets in single precision: the farther, the coarser.
        torch.testing.assert_close(side_by_side(maps, 4), block(picture)[0], rtol=1e-4, atol=1e-5 * max(1, far))


class Own(nn.Module):
    """A network that calls torchvision's layer itself, with offsets that bring a bias along."""

    def __init__(self):
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.stem = nn.Conv2d(3, 4, 3)  # unpadded: the dense map ends early
        self.offsets = nn.Conv2d(4, 18, 3, padding=1)
        self.deform = DeformConv2d(4, 5, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.deform(x, self.offsets(x)).mean((2, 3))


def test_torchvisions_own_layer_works_in_any_network():
    torch.manual_seed(0)
    network, picture = Own(), torch.randn(2, 3, 32, 32)
    layout = Layout.stack([Layout.tiling(picture=(32, 32), size=16)] * 2)
    with torch.no_grad():
        answer = foveate(network)(Retina(16, levels=1)(picture, layout=layout))
        torch.testing.assert_close(answer, network(picture), rtol=1e-4, atol=1e-6)


def test_without_halos_windows_sample_in_themselves():
    torch.manual_seed(0)
    block = create_block("center_deformable_conv", channels=2)
    nn.init.normal_(block.offsets.weight)
    glimpse = Retina(16, levels=2)(torch.randn(1, 2, 32, 32))
    with torch.no_grad():
        alone = foveate(block, halo=False)(glimpse)[0]
        torch.testing.assert_close(alone, block(glimpse.pixels[0]), rtol=1e-4, atol=1e-5)


def test_bounded_offsets_can_be_traced_across_windows_and_unbounded_ones_are_refused():
    torch.manual_seed(0)
    glimpse = Retina(16, levels=2)(torch.randn(1, 2, 32, 32))
    bounded = create_block("center_deformable_conv", channels=2).eval()
    nn.init.normal_(bounded.offsets.weight)
    network = foveate(bounded)
    traced = torch.export.export(planned(network, glimpse), (glimpse.pixels,), strict=True).module()
    torch.testing.assert_close(traced(glimpse.pixels), network(glimpse), rtol=1e-4, atol=1e-5)
    free = foveate(create_block("deformable_conv", channels=2).eval())
    with pytest.raises(Exception, match="cannot know how far offsets go"):
        torch.export.export(planned(free, glimpse), (glimpse.pixels,), strict=True)


def test_parameters_are_as_documented():
    for version in (1, 2):
        options = {"channels": 12, "out_channels": 18, "groups": 3, "offset_groups": 2, "kernel_size": 5}
        for name in ("deformable_conv", "center_deformable_conv"):
            block = create_block(name, version=version, **options)
            moves = 2 * 25 * (version + 1)
            wanted = 18 * 12 // 3 * 25 + 18 + 12 * 25 * moves + moves
            assert sum(parameter.numel() for parameter in block.parameters()) == wanted


def test_the_impossible_is_refused():
    with pytest.raises(ValueError, match="version is 3; expected 1 or 2"):
        create_block("deformable_conv", channels=4, version=3)
    with pytest.raises(ValueError, match="kernel_size is 4; expected an odd one"):
        create_block("deformable_conv", channels=4, kernel_size=4)
    with pytest.raises(ValueError, match="offset_groups 3 does not divide"):
        create_block("deformable_conv", channels=4, offset_groups=3)
    with pytest.raises(ValueError, match=r"contraction is 1\.5; expected a number from 0 to 1"):
        create_block("center_deformable_conv", channels=4, contraction=1.5)
    with pytest.raises(ValueError, match="reach is 0; expected"):
        create_block("center_deformable_conv", channels=4, reach=0)
    network = Own()
    network.forward = lambda x: network.deform(network.stem(x), torch.zeros(4, 18, 1, 1))
    with pytest.raises(UnsupportedModule, match="must all be maps of windows"):
        foveate(network)


@pytest.mark.parametrize("name", ["deformable_conv", "center_deformable_conv"])
@pytest.mark.parametrize("version", [1, 2])
def test_bfloat16_and_autocast_sample_in_what_the_operator_knows(name, version):
    torch.manual_seed(0)
    block = create_block(name, channels=4, version=version).eval()
    nn.init.normal_(block.offsets.weight, std=0.1)
    x, glimpse = torch.rand(2, 4, 16, 16), Retina(8, levels=2)(torch.rand(1, 4, 16, 16))
    with torch.no_grad():
        for given, call in ((x, block), (glimpse, foveate(block))):
            wanted = call(given)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(call(given), wanted, rtol=0.05, atol=0.05)
        rough = copy.deepcopy(block).bfloat16()
        found = rough(x.bfloat16())
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), block(x), rtol=0.05, atol=0.05)
        halved = Retina(8, levels=2)(torch.rand(1, 4, 16, 16).bfloat16())
        assert foveate(rough)(halved).dtype == torch.bfloat16
