import pytest
import torch
from cases import Case, maps
from torch.nn import functional as F

from foveal.blocks.registry import create_block

CASES = [
    Case("edge_compensation", {"channels": 4}),
    Case("edge_compensation", {"channels": 4, "factor": 4, "reduction": 2, "kernel": 5}),
]


@pytest.mark.parametrize(("channels", "reduction", "kernel"), [(8, 4, 3), (6, 1, 5), (2, 4, 3)])
def test_parameters_are_those_of_the_formula(channels, reduction, kernel):
    block = create_block("edge_compensation", channels=channels, reduction=reduction, kernel=kernel)
    hidden = max(1, channels // reduction)
    assert sum(p.numel() for p in block.parameters()) == 2 * channels * hidden + hidden * kernel**2 + channels


def test_it_starts_as_the_identity():
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(create_block("edge_compensation", channels=4)(x), x)


def test_nothing_is_added_where_nothing_was_lost():
    block, x = CASES[0].make(), torch.randn(1, 4, 1, 1).expand(1, 4, 16, 16).clone()
    torch.testing.assert_close(block(x), x)
    x[:, :, :, 8:] += 1  # an edge: what is added is around it alone
    added = (block(x) - x).abs().amax((0, 1, 2))
    assert added[7] > 1e-4
    assert added[:4].max() < 1e-6
    assert added[12:].max() < 1e-6


@pytest.mark.parametrize("side", [(16, 16), (15, 9)])
def test_the_lost_detail_is_what_a_coarser_map_does_not_show(side):
    block, x = CASES[0].make(), maps(CASES[0], side=side)
    height, width = side
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")  # the mean of an edge cell is that of its copies
    coarse = F.avg_pool2d(even, 2)
    shown = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(block.lost(x), x - shown[..., :height, :width])


@pytest.mark.parametrize("case", CASES, ids=["2", "4"])
@pytest.mark.parametrize("side", [32, 33, 35, 37])
def test_a_ramp_loses_nothing_inside(case, side):
    block, factor = case.make(), case.options.get("factor", 2)
    ramp = torch.arange(side, dtype=torch.float32) / side
    lost = block.lost((ramp[:, None] + 2 * ramp).expand(1, 4, side, side))
    inside = slice(factor, side - 2 * factor)  # the last block may be smaller, its mean not that of its middle
    assert lost[..., inside, inside].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"channels": 4, "reduction": 0}, "reduction 0"),
        ({"channels": 4, "factor": 1}, "factor is 1"),
        ({"channels": 4, "factor": 2.5}, "factor is 2.5"),
        ({"channels": 4, "kernel": 4}, "kernel is 4"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("edge_compensation", **options)
