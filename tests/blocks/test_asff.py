import pytest
import torch
from cases import Case
from torch import nn
from torch.nn import functional as F

from foveal.blocks.registry import create_block

CHANNELS = (4, 6, 8)


class Pyramid(nn.Module):
    """Makes three levels of one map, and fuses them."""

    def __init__(self, fuse, channels=4):
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Conv2d(channels, CHANNELS[0], 3, padding=1),
                nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, 2, 1),
                nn.Conv2d(CHANNELS[1], CHANNELS[2], 3, 2, 1),
            ]
        )
        self.fuse = fuse

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.fuse(maps)


class Together(Pyramid):
    """All levels that come out, as channels of the coarsest."""

    def forward(self, x):
        fine, middle, coarse = super().forward(x)
        return torch.cat([F.avg_pool2d(fine, 4), F.avg_pool2d(middle, 2), coarse], 1)


CASES = [
    Case(
        "asff",
        {"channels": CHANNELS, "level": 0},
        within=Pyramid,
        head=True,
    ),
    Case(
        "asff",
        {"channels": CHANNELS, "level": 1, "out_channels": 5, "weight_channels": 3},
        within=Pyramid,
        out=lambda channels, height, width: (5, height // 2, width // 2),
    ),
    Case(
        "asff",
        {"channels": CHANNELS},
        within=Together,
        out=lambda channels, height, width: (sum(CHANNELS), height // 4, width // 4),
    ),
]


def levels(side=16, batch=2):
    torch.manual_seed(3)
    return [torch.randn(batch, c, side >> at, side >> at) for at, c in enumerate(CHANNELS)]


@pytest.mark.parametrize(("level", "out", "width"), [(0, 4, 16), (1, 6, 16), (2, 8, 3), (2, 7, 16)])
def test_parameters_are_those_of_the_formula(level, out, width):
    block = create_block("asff", channels=CHANNELS, level=level, out_channels=out, weight_channels=width)
    c, n = CHANNELS[level], len(CHANNELS)
    wanted = sum(9 * many * c + 2 * c for many in CHANNELS[:level])
    wanted += sum(many * c + 2 * c for many in CHANNELS[level + 1 :])
    wanted += n * (c + 2) * width + n * n * width + n + 9 * c * out + 2 * out
    assert sum(p.numel() for p in block.parameters()) == wanted


def test_weights_that_favour_one_level_choose_it():
    block = create_block("asff", channels=CHANNELS, level=1).eval()
    fusion = block.fusions[0]
    maps = levels()
    with torch.no_grad():
        fusion.weigh.weight.zero_()
        for chosen in range(3):
            fusion.weigh.bias.copy_(torch.tensor([1e4 if place == chosen else 0.0 for place in range(3)]))
            alone = fusion.out(fusion._brought(maps[chosen], chosen, maps[1]))
            torch.testing.assert_close(block(maps), alone)


def test_equal_opinions_are_the_mean_of_all_levels():
    block = create_block("asff", channels=CHANNELS, level=0).eval()
    fusion, maps = block.fusions[0], levels()
    with torch.no_grad():
        fusion.weigh.weight.zero_()
        fusion.weigh.bias.zero_()
        mean = sum(fusion._brought(x, place, maps[0]) for place, x in enumerate(maps)) / 3
        torch.testing.assert_close(block(maps), fusion.out(mean))


def test_coarser_levels_come_by_nearest_neighbours_and_the_own_as_it_is():
    fusion = create_block("asff", channels=CHANNELS, level=0).eval().fusions[0]
    maps = levels()
    assert fusion._brought(maps[0], 0, maps[0]) is maps[0]
    wanted = fusion.resize[2](maps[2]).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(fusion._brought(maps[2], 2, maps[0]), wanted)


def test_all_levels_come_out_each_at_its_size_of_odd_maps_too():
    block = create_block("asff", channels=CHANNELS, out_channels=5)
    maps = [torch.randn(1, c, side, side + 2) for c, side in zip(CHANNELS, (15, 8, 4), strict=True)]
    maps[1], maps[2] = torch.randn(1, 6, 8, 9), torch.randn(1, 8, 4, 5)
    assert [tuple(x.shape) for x in block(maps)] == [(1, 5, 15, 17), (1, 5, 8, 9), (1, 5, 4, 5)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 4}, "two levels"),
        ({"channels": (4,)}, "two levels"),
        ({"channels": (4, 0)}, "two levels"),
        ({"channels": (4, 8), "level": 2}, "level is 2; expected 0"),
        ({"channels": (4, 8), "weight_channels": 0}, "weight_channels is 0"),
        ({"channels": (4, 8), "out_channels": 0}, "out_channels 0"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("asff", **options)


def test_maps_that_do_not_fit_are_refused_with_their_sizes():
    block = create_block("asff", channels=CHANNELS, level=2)
    maps = levels()
    with pytest.raises(ValueError, match=r"\[6, 4, 8\] channels; expected \[4, 6, 8\]"):
        block([maps[1], maps[0], maps[2]])
    with pytest.raises(
        ValueError, match=r"level 0 has \(32, 32\) cells and that of level 2 \(4, 4\); expected \(8, 8\)"
    ):
        block([torch.randn(2, 4, 32, 32), *maps[1:]])
