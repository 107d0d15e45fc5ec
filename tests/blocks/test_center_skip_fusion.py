import math

import pytest
import torch
from cases import Case
from torch import nn
from torch.nn import functional as F

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina


class Encoder(nn.Module):
    """Makes a shallow map of 6 channels and a deep one of 4 with a quarter of the cells a side, and fuses them."""

    def __init__(self, fuse):
        super().__init__()
        self.shallow, self.deep = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 5, 4, 2)
        self.fuse = fuse

    def forward(self, x):
        shallow = self.shallow(x)
        return self.fuse(self.deep(shallow), shallow)


CASES = [
    Case("center_skip_fusion", {"channels": 4, "skip_channels": 6}, within=Encoder),
    Case(
        "center_skip_fusion",
        {"channels": 4, "skip_channels": 6, "out_channels": 5, "sigma": None},
        within=Encoder,
        out=lambda channels, height, width: (5, height, width),
    ),
]


def test_parameters_are_those_of_the_formula():
    block = create_block("center_skip_fusion", channels=5, skip_channels=3, out_channels=7)
    assert sum(p.numel() for p in block.parameters()) == 9 * 8 * 7 + 9 * 49 + 4 * 7


def test_the_shallow_map_is_weighed_by_a_gaussian_of_eccentricity_and_the_deep_one_not():
    block = create_block("center_skip_fusion", channels=2, skip_channels=1, sigma=0.4, floor=0.2)
    seen = []
    block.join = nn.Module()
    block.join.forward = lambda x: seen.append(x) or x
    deep, shallow = torch.randn(1, 2, 4, 4), torch.randn(1, 1, 8, 12)
    joined = block(deep, shallow)
    torch.testing.assert_close(joined[:, :2], F.interpolate(deep, size=(8, 12), mode="bilinear", align_corners=False))
    for row, column in ((0, 0), (3, 5), (7, 11), (2, 9)):
        far = math.hypot(row + 0.5 - 4, column + 0.5 - 6) / 6
        weight = 0.2 + 0.8 * math.exp(-(far**2) / (2 * 0.4**2))
        torch.testing.assert_close(joined[0, 2, row, column], weight * shallow[0, 0, row, column])


def test_a_glimpse_is_weighed_around_its_own_fixation():
    block = create_block("center_skip_fusion", channels=4, skip_channels=6, sigma=0.2, floor=0.0)
    block.join = nn.Identity()
    x = torch.ones(1, 4, 64, 64)
    network = Encoder(block)
    nn.init.zeros_(network.shallow.weight)
    nn.init.ones_(network.shallow.bias)
    glimpse = Retina(16, levels=3)(x, fixation=(0.1, 0.9))
    passed = foveate(network)(glimpse)[0, -1, -1]  # the widest window, of cells of 4 pixels
    at = divmod(int(passed.argmax()), 16)
    assert at == (1, 14)
    assert passed[15, 0] < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0, "skip_channels": 2}, "channels 0"),
        ({"channels": 2, "skip_channels": 0}, "skip_channels 0"),
        ({"channels": 2, "skip_channels": 2, "sigma": 0.0}, "sigma is 0.0"),
        ({"channels": 2, "skip_channels": 2, "floor": 1.0}, "floor 1.0"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("center_skip_fusion", **options)


def test_a_deep_map_with_more_cells_is_refused():
    block = create_block("center_skip_fusion", channels=2, skip_channels=2)
    with pytest.raises(ValueError, match=r"\(8, 8\) cells are brought to \(4, 4\)"):
        block(torch.rand(1, 2, 8, 8), torch.rand(1, 2, 4, 4))
