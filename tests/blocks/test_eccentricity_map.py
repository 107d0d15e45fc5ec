"""Steps that blocks share: eccentricity, and maps brought to the cells of others."""

import doctest

import pytest
import torch
from torch import nn

import foveal.blocks.eccentricity_map
import foveal.blocks.fixed_filter
import foveal.blocks.resized_like
from foveal.blocks.eccentricity_map import center_weights, eccentricity_map
from foveal.blocks.resized_like import resized_like
from foveal.convert.foveate import UnsupportedModule, foveate
from foveal.layout import Layout
from foveal.retina import Retina


class Step(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return self.step(x)


def test_the_examples_in_the_documentation_are_true():
    for module in (foveal.blocks.eccentricity_map, foveal.blocks.resized_like, foveal.blocks.fixed_filter):
        assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_eccentricity_is_the_distance_over_half_the_longer_side():
    x = torch.zeros(2, 3, 6, 10, dtype=torch.float64)
    found = eccentricity_map(x, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    rows, columns = torch.meshgrid(torch.arange(6.0) + 0.5, torch.arange(10.0) + 0.5, indexing="ij")
    wanted = torch.stack([torch.hypot(rows - 3, columns - 5), torch.hypot(rows, columns - 10)])[:, None] / 5
    assert found.dtype == x.dtype
    torch.testing.assert_close(found, wanted.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(eccentricity_map(x), found[:1])


def test_one_window_has_the_eccentricity_of_the_dense_map_to_the_last_bit():
    picture = torch.rand(2, 4, 32, 32)
    for network in (Step(eccentricity_map), nn.Sequential(nn.AvgPool2d(4), Step(eccentricity_map))):
        seen = foveate(network)(Retina(32, levels=1)(picture))[:, 0]
        assert torch.equal(seen, network(picture).expand_as(seen))


def test_windows_have_their_own_places_eccentricity_around_the_glimpse_s_fixation():
    glimpse = Retina(16, levels=3)(torch.rand(1, 3, 64, 64), fixation=(0.3, 0.7))
    seen = foveate(Step(eccentricity_map))(glimpse)[:, :, 0]
    torch.testing.assert_close(seen, glimpse.layout.eccentricity(16) / 32)


@pytest.mark.parametrize("step", [eccentricity_map, lambda x, *more: center_weights(x, 0.5, 0.25, *more)])
def test_a_glimpse_refuses_a_fixation_beside_its_own(step):
    glimpse = Retina(16, levels=3)(torch.rand(1, 3, 64, 64))
    foveate(Step(step))(glimpse)
    with pytest.raises(UnsupportedModule, match="a glimpse has its own, in its layout"):
        foveate(Step(lambda x: step(x, torch.tensor([0.5, 0.5]))))(glimpse)


def test_eccentricity_in_half_precision_is_that_of_single_rounded():
    x = torch.zeros(1, 1, 5, 3000)
    assert torch.equal(eccentricity_map(x.half()), eccentricity_map(x).half())
    assert torch.equal(center_weights(x.half(), 0.1, 0.3), center_weights(x, 0.1, 0.3).half())


def test_weights_fall_from_one_to_the_floor():
    weights = center_weights(torch.zeros(1, 1, 101, 101), 0.1, 0.3)
    assert weights[0, 0, 50, 50] == 1
    torch.testing.assert_close(weights[0, 0, 0, 0], torch.tensor(0.3))


def test_a_fixation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"fixation has shape \(3, 2\); expected \(2,\) or \(4, 2\)"):
        eccentricity_map(torch.zeros(4, 1, 8, 8), torch.rand(3, 2))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_maps_come_to_the_cells_of_others_as_interpolation_has_them_on_a_tiling_too(mode):
    class Down(nn.Module):
        def forward(self, x):
            return resized_like(nn.functional.avg_pool2d(x, 4), x, mode)

    picture = torch.randn(1, 3, 32, 32)
    dense = Down()(picture)
    align = None if mode == "nearest" else False
    coarse = nn.functional.avg_pool2d(picture, 4)
    assert torch.equal(dense, nn.functional.interpolate(coarse, scale_factor=4.0, mode=mode, align_corners=align))
    tiles = foveate(Down())(Retina(8, levels=1)(picture, layout=Layout.tiling(picture=(32, 32), size=8)))
    tiles = tiles.unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 32, 32)
    torch.testing.assert_close(tiles, dense)


def test_windows_whose_cells_would_lie_across_others_are_refused():
    pooled, larger = nn.functional.avg_pool2d, nn.functional.interpolate
    network = foveate(Step(lambda x: resized_like(pooled(x, 4), larger(pooled(x, 8), scale_factor=3.0))))
    glimpse = Retina(16, levels=2)(torch.rand(1, 3, 32, 32))
    with pytest.raises(UnsupportedModule, match="6 cells a side are no multiple of 4"):
        network(glimpse)
