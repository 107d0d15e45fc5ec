"""Coordinate attention and the largest of adaptive bins, where windows of many scales hold the picture together.

What they should give is worked out from a painted picture, in which every finest cell has the value of the window that
owns it: an independent way, by loops over windows and cells.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.convert.planned import planned
from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout
from foveal.retina import Glimpse, Retina


def painted(maps, layout, sample=0):
    """(C, H, W) of one picture in pixels, not a number where no window lies; maps are (B, K, C, S, S)."""
    height, width = layout.pictures[sample].tolist()
    whole = torch.full((maps.shape[2], height, width), float("nan"), dtype=maps.dtype)
    order = sorted(range(layout.num_windows), key=lambda window: (-layout.levels[sample, window], -window))
    for window in order:  # the finest last
        if not layout.valid[sample, window]:
            continue
        top, left = layout.origins[sample, window].tolist()
        cell = 1 << layout.levels[sample, window].item()
        large = maps[sample, window].repeat_interleave(cell, 1).repeat_interleave(cell, 2)
        part = large[:, : height - top, : width - left]
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return whole


LAYOUTS = {
    "a fovea aside": Layout.foveal(picture=(40, 56), size=16, levels=3, fixation=(0.2, 0.7)),
    "a fovea in a picture of odd sides": Layout.foveal(picture=(37, 51), size=16, levels=3),
    "two fixations": Layout.scan(picture=(64, 64), size=16, levels=3, fixations=[(0.2, 0.2), (0.6, 0.9)]),
    "a tiling that overhangs": Layout.tiling(picture=(40, 24), size=16),
    "windows half over each other": Layout.windows(
        picture=(32, 48), size=16, windows=[(0, 0, 4), (0, 8, 12), (1, 0, 0), (1, 0, 16)]
    ),
}


def glimpse_of(layout, channels=4, dtype=torch.float64):
    shape = (len(layout), layout.num_windows, channels, layout.size, layout.size)
    return Glimpse(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype), layout)


def trained(**options):
    torch.manual_seed(0)
    block = create_block("coordinate_attention", channels=4, **options).double()
    block.gate.bn1.running_mean.normal_()
    block.gate.bn1.running_var.uniform_(0.5, 2)
    return block.eval()


def gates(block, whole):
    """(C, H) and (C, W), the gates of the rows and columns of a whole map, by timm's own layers."""
    inner = block.gate
    found = []
    for lines, wide in ((whole.mean(2), inner.conv_h), (whole.mean(1), inner.conv_w)):
        found.append(wide(inner.act(inner.bn1(inner.conv1(lines[None, :, :, None]))))[0, :, :, 0].sigmoid())
    return found


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_coordinate_attention_weighs_a_cell_by_the_mean_gate_of_the_rows_and_of_the_columns_that_it_lies_in(name):
    layout, block = LAYOUTS[name], trained()
    glimpse = glimpse_of(layout)
    result = foveate(block)(glimpse)
    whole = painted(glimpse.pixels, layout)
    rows, columns = gates(block, whole)
    for window in range(layout.num_windows):
        top, left = layout.origins[0, window].tolist()
        cell = 1 << layout.levels[0, window].item()
        for i in range(16):
            for j in range(16):
                row = rows[:, top + i * cell : top + (i + 1) * cell]
                column = columns[:, left + j * cell : left + (j + 1) * cell]
                gate = row.mean(1) * column.mean(1) if row.numel() and column.numel() else torch.zeros(4).double()
                expected = glimpse.pixels[0, window, :, i, j] * gate
                torch.testing.assert_close(result[0, window, :, i, j], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_coordinate_attention_of_a_picture_does_not_depend_on_the_others_of_its_batch():
    block = trained()
    layouts = [Layout.foveal(picture=sides, size=16, levels=3) for sides in ((40, 56), (64, 20), (33, 33))]
    parts = [glimpse_of(layout) for layout in layouts]
    together = Glimpse(torch.cat([part.pixels for part in parts]), Layout.stack(layouts))
    result = foveate(block)(together)
    for sample, part in enumerate(parts):
        torch.testing.assert_close(result[sample : sample + 1], foveate(block)(part))


def test_coordinate_attention_of_a_tiling_trains_as_the_dense_block():
    dense, tiled = trained().train(), foveate(trained()).train()
    picture = torch.randn(3, 4, 32, 48, dtype=torch.float64)
    layout = Layout.stack([Layout.tiling(picture=(32, 48), size=16)] * 3)
    glimpse = Glimpse(torch.stack([picture[:, :, y : y + 16, x : x + 16] for _, y, x in _places(layout)], 1), layout)
    dense(picture).square().sum().backward()
    tiled(glimpse).square().sum().backward()
    for (name, one), other in zip(dense.named_parameters(), tiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-6, msg=name)
    torch.testing.assert_close(tiled.gate.bn1.running_mean, dense.gate.bn1.running_mean)
    torch.testing.assert_close(tiled.gate.bn1.running_var, dense.gate.bn1.running_var)


def _places(layout):
    return torch.cat([layout.levels[0, :, None], layout.origins[0]], -1).tolist()


@torch.no_grad()
def test_coordinate_attention_after_an_unpadded_step_knows_only_the_rows_of_the_dense_map():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), trained().float())
    picture = torch.randn(1, 4, 32, 32)
    dense = network(picture)
    tiled = foveate(network)(Retina(16, levels=1)(picture, layout=Layout.tiling(picture=(32, 32), size=16)))
    whole = torch.cat([torch.cat([tiled[:, 2 * row + at] for at in (0, 1)], -1) for row in (0, 1)], -2)
    torch.testing.assert_close(whole[..., :30, :30], dense)


@torch.no_grad()
def test_what_a_whole_picture_has_is_gated_as_a_map_of_one_cell():
    class Pooled(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block(x.mean((2, 3), keepdim=True)).flatten(1)

    glimpse = glimpse_of(LAYOUTS["a tiling that overhangs"])
    mean = painted(glimpse.pixels, glimpse.layout).mean((1, 2))[None, :, None, None]
    for block in (trained(), create_block("gaussian_attention", channels=4, center=(0.2, 0.9)).double()):
        torch.testing.assert_close(foveate(Pooled(block))(glimpse), block(mean).flatten(1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["coordinate_attention", "gaussian_attention"])
def test_a_periphery_of_its_own_width_is_refused_by_name(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), create_block(name, channels=4))
    with pytest.raises(UnsupportedModule, match=r"1 .*with a periphery of its own width or dtype"):
        foveate(network, periphery_channels=0.5)(Retina(16, levels=2)(torch.rand(1, 3, 32, 32)))


@pytest.mark.full
@pytest.mark.parametrize("name", ["coordinate_attention", "gaussian_attention"])
@pytest.mark.parametrize("levels", [1, 3])
@torch.no_grad()
def test_with_a_planned_layout_it_compiles_to_one_graph(name, levels):
    network = foveate(create_block(name, channels=4).eval())
    glimpse = Retina(16, levels=levels)(torch.randn(2, 4, 16, 16) if levels == 1 else torch.randn(2, 4, 50, 40))
    compiled = torch.compile(planned(network, glimpse), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(glimpse.pixels), network(glimpse))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (7, 5)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_largest_of_a_bin_is_that_of_the_cells_that_own_some_of_it(name, size):
    glimpse = glimpse_of(LAYOUTS[name])
    expected = F.adaptive_max_pool2d(painted(glimpse.pixels, glimpse.layout), size)[None]
    assert torch.equal(foveate(nn.AdaptiveMaxPool2d(size))(glimpse), expected)


def test_of_pictures_of_unlike_sizes_each_has_its_own_bins():
    layouts = [Layout.foveal(picture=sides, size=16, levels=3) for sides in ((40, 56), (64, 20))]
    glimpse = glimpse_of(Layout.stack(layouts))
    result = foveate(nn.AdaptiveMaxPool2d((3, 2)))(glimpse)
    for sample in range(2):
        whole = painted(glimpse.pixels, glimpse.layout, sample)
        assert torch.equal(result[sample], F.adaptive_max_pool2d(whole, (3, 2)))


def test_a_bin_without_windows_is_nothing():
    layout = Layout.windows(picture=(32, 32), size=16, windows=[(0, 0, 0)])
    result = foveate(nn.AdaptiveMaxPool2d(2))(glimpse_of(layout))
    assert result[..., 0, 0].abs().min() > 0
    assert result.flatten(2)[..., 1:].eq(0).all()


def test_cells_beside_the_picture_and_of_places_that_only_fill_the_batch_are_never_the_largest():
    layout = Layout.stack([Layout.foveal(picture=(20, 24), size=16, levels=levels) for levels in (2, 1)])
    glimpse = glimpse_of(layout)
    glimpse.pixels[~(layout.inside(16) & layout.valid[..., None, None])[:, :, None].expand_as(glimpse.pixels)] = 1e9
    assert foveate(nn.AdaptiveMaxPool2d(2))(glimpse).max() < 100


def test_the_largest_of_bins_has_the_gradient_of_the_cell_that_it_is():
    glimpse = glimpse_of(LAYOUTS["a fovea aside"], channels=1)
    pixels = glimpse.pixels.requires_grad_()

    def pooled(pixels):
        return foveate(nn.AdaptiveMaxPool2d((2, 3)))(Glimpse(pixels, glimpse.layout))

    assert torch.autograd.gradcheck(pooled, pixels, fast_mode=True)
