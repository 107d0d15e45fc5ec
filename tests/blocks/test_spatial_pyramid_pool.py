"""Any picture to a vector of one length."""

import math

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina

CASES = [
    Case("spatial_pyramid_pool", {"channels": 4}, out=lambda c, h, w: (21 * c,), head=True),
    Case("spatial_pyramid_pool", {"channels": 4, "kind": "average", "sizes": (2, 3)}, out=lambda c, h, w: (13 * c,)),
    Case(
        "spatial_pyramid_pool",
        {"channels": 4, "sizes": (1, 3)},
        out=lambda c, h, w: (10 * c,),
        exports="ONNX has no adaptive max pool of grids that do not divide the map",
    ),
]


@pytest.mark.parametrize(("kind", "reduce"), [("max", np.max), ("average", np.mean)])
@pytest.mark.parametrize("side", [(13, 9), (4, 4), (3, 20)])
def test_it_is_the_bins_of_the_paper_one_grid_after_the_other(kind, reduce, side):
    x = torch.randn(2, 3, *side, dtype=torch.float64)
    expected = []
    for n in (1, 2, 4):
        grid = np.empty((2, 3, n, n))
        for i in range(n):
            for j in range(n):
                rows = slice(math.floor(i * side[0] / n), math.ceil((i + 1) * side[0] / n))
                columns = slice(math.floor(j * side[1] / n), math.ceil((j + 1) * side[1] / n))
                grid[:, :, i, j] = reduce(x.numpy()[:, :, rows, columns], (2, 3))
        expected.append(grid.reshape(2, -1))
    result = create_block("spatial_pyramid_pool", channels=3, kind=kind)(x)
    np.testing.assert_allclose(result, np.concatenate(expected, 1), rtol=1e-12)


def test_pictures_of_all_sizes_give_vectors_of_one_length_seen_whole_or_by_glimpses():
    block = create_block("spatial_pyramid_pool", channels=3)
    for sides in ((20, 30), (50, 64), (64, 17)):
        picture = torch.randn(2, 3, *sides)
        assert block(picture).shape == foveate(block)(Retina(16, levels=3)(picture)).shape == (2, 63)


def test_it_has_no_parameters():
    assert not list(create_block("spatial_pyramid_pool", channels=4).parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": ()}, r"sizes is \(\); expected at least one"),
        ({"sizes": (1, 0)}, r"sizes is \(1, 0\); expected at least one whole number, each at least 1"),
        ({"kind": "least"}, "kind is 'least'; expected 'max' or 'average'"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_block("spatial_pyramid_pool", channels=4, **options)
