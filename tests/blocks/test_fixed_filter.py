"""What all filters share."""

import copy

import pytest
import torch

from foveal.blocks.registry import create_block, list_blocks
from foveal.convert.foveate import UnsupportedModule, foveate
from foveal.layout import Layout
from foveal.retina import Retina

FILTERS = list_blocks(family="filters")


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused(name, dtype):
    with pytest.raises(ValueError, match=r"expected floats, x.float\(\) / 255"):
        create_block(name)(torch.ones(1, 3, 20, 20).to(dtype))


@pytest.mark.parametrize("name", FILTERS)
def test_kernels_are_as_precise_as_the_maps(name):
    x = torch.rand(1, 2, 20, 24, dtype=torch.float64)
    block = create_block(name)
    wanted = block(x)
    for cast in (block.float(), block.half().double(), copy.deepcopy(block), block.to("meta").to_empty(device="cpu")):
        assert torch.equal(cast(x), wanted)
        assert cast(x.float()).dtype == torch.float32
        assert not cast.state_dict()
    torch.testing.assert_close(wanted.float(), block(x.float()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), wanted, rtol=1e-14, atol=1e-14)


def test_flat_pictures_give_nothing_to_the_last_bits_of_double_precision():
    x = torch.full((1, 1, 20, 20), 0.3, dtype=torch.float64)
    for name in ("laplacian_of_gaussian", "difference_of_gaussians", "sobel"):
        assert create_block(name)(x).abs().max() < 1e-15


@pytest.mark.parametrize("border", ["reflect", "replicate", "zeros"])
def test_where_a_picture_ends_inside_a_window_zeros_follow_it(border):
    x = 0.1 + torch.rand(1, 1, 24, 20)
    layout = Layout.tiling(picture=(24, 20), size=16)
    glimpse = Retina(16, levels=1)(x, layout=layout)
    windows = foveate(create_block("gaussian_filter", border=border))(glimpse)[0, :, 0]
    seen = torch.cat([torch.cat([windows[2 * row], windows[2 * row + 1]], 1) for row in (0, 1)])[:24, :20]
    ends, starts = (create_block("gaussian_filter", border=name)(x)[0, 0] for name in ("zeros", border))
    torch.testing.assert_close(seen[8:, 8:], ends[8:, 8:])
    torch.testing.assert_close(seen[:8, :8], starts[:8, :8])


def test_glimpses_refuse_a_circular_border():
    with pytest.raises(UnsupportedModule, match="'circular'"):
        foveate(create_block("sobel", border="circular"))(Retina(16, levels=2)(torch.rand(1, 1, 32, 32)))
