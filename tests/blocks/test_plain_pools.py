"""PyTorch's pools under the names of the registry."""

import math

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block


def halved(channels, height, width):
    return channels, height // 2, width // 2


def vector(channels, height, width):
    return (channels,)


def unpadded(channels, height, width):
    return channels, (height - 3) // 2 + 1, (width - 3) // 2 + 1


def fixed(channels, height, width):
    return channels, 3, 5


CASES = [
    Case("max_pool", {"channels": 4}, out=halved),
    Case("max_pool", {"channels": 4, "kernel_size": 3, "stride": 1, "padding": 1}),
    Case("average_pool", {"channels": 4}, out=halved),
    Case(
        "average_pool", {"channels": 4, "kernel_size": 3, "stride": 2, "padding": 1, "count_padding": False}, out=halved
    ),
    Case("overlapping_pool", {"channels": 4}, out=unpadded),
    Case("overlapping_pool", {"channels": 4, "padding": 1, "kind": "average"}, out=halved),
    Case("global_pool", {"channels": 4}, out=vector),
    Case("global_pool", {"channels": 4, "kind": "max", "flatten": False}, out=lambda c, h, w: (c, 1, 1)),
    Case("adaptive_pool", {"channels": 4, "size": (3, 5)}, out=fixed),
    Case(
        "adaptive_pool",
        {"channels": 4, "size": (3, 5), "kind": "max"},
        out=fixed,
        exports="ONNX has no adaptive max pool of sizes that do not divide the map's",
    ),
    Case("adaptive_pool", {"channels": 4, "size": 4, "kind": "max"}, out=lambda c, h, w: (c, 4, 4)),
]


def test_pools_side_by_side_are_those_of_skimage():
    measure = pytest.importorskip("skimage.measure")
    x = torch.randn(2, 4, 12, 18, dtype=torch.float64)
    for name, reduce in (("max_pool", np.max), ("average_pool", np.mean)):
        for side in (2, 3):
            result = create_block(name, channels=4, kernel_size=side)(x)
            np.testing.assert_allclose(result, measure.block_reduce(x.numpy(), (1, 1, side, side), reduce), rtol=1e-12)


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (5, 3, 2), (3, 1, 1)])
def test_overlapping_pools_are_those_of_their_windows(kernel_size, stride, padding):
    x = torch.randn(1, 1, 9, 11, dtype=torch.float64)
    largest = np.pad(x[0, 0].numpy(), padding, constant_values=-np.inf)
    zeros = np.pad(x[0, 0].numpy(), padding)
    options = {"channels": 1, "kernel_size": kernel_size, "stride": stride, "padding": padding}
    pools = [create_block("overlapping_pool", kind=kind, **options)(x)[0, 0] for kind in ("max", "average")]
    for row in range(pools[0].shape[0]):
        for column in range(pools[0].shape[1]):
            window = np.s_[row * stride :, column * stride :]
            part, plain = (maps[window][:kernel_size, :kernel_size] for maps in (largest, zeros))
            assert pools[0][row, column].item() == part.max()
            assert pools[1][row, column].item() == pytest.approx(plain.mean(), abs=1e-12)


def test_global_pools_are_those_of_timm():
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(2, 4, 5, 7)
    for kind, other in (("average", "avg"), ("max", "max")):
        for flatten in (True, False):
            expected = layers.SelectAdaptivePool2d(pool_type=other, flatten=flatten)(x)
            torch.testing.assert_close(create_block("global_pool", channels=4, kind=kind, flatten=flatten)(x), expected)


@pytest.mark.parametrize(("kind", "reduce"), [("max", np.max), ("average", np.mean)])
def test_adaptive_pools_are_those_of_their_bins(kind, reduce):
    x = torch.randn(2, 4, 11, 7, dtype=torch.float64)
    result = create_block("adaptive_pool", channels=4, size=(3, 4), kind=kind)(x)
    for i in range(3):
        for j in range(4):
            rows = slice(math.floor(i * 11 / 3), math.ceil((i + 1) * 11 / 3))
            columns = slice(math.floor(j * 7 / 4), math.ceil((j + 1) * 7 / 4))
            expected = reduce(x.numpy()[:, :, rows, columns], (2, 3))
            np.testing.assert_allclose(result[:, :, i, j], expected, rtol=1e-12)


def test_the_mean_can_leave_padding_out():
    x = torch.ones(1, 1, 4, 4)
    options = {"channels": 1, "kernel_size": 3, "stride": 2, "padding": 1}
    assert create_block("average_pool", **options)(x)[0, 0, 0, 0].item() == pytest.approx(4 / 9)
    assert create_block("average_pool", count_padding=False, **options)(x)[0, 0, 0, 0].item() == 1


@pytest.mark.parametrize("name", ["max_pool", "average_pool", "overlapping_pool", "global_pool", "adaptive_pool"])
def test_pools_have_no_parameters(name):
    assert not list(create_block(name, channels=4).parameters())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("max_pool", {"kernel_size": 0}, "kernel_size is 0 and stride 0; expected whole numbers"),
        ("max_pool", {"stride": 0}, "kernel_size is 2 and stride 0; expected whole numbers"),
        ("max_pool", {"padding": 2}, "padding is 2; expected 0 to 1, half of kernel_size 2"),
        ("max_pool", {"dilation": 0}, "dilation is 0; expected a whole number of at least 1"),
        ("average_pool", {"padding": -1}, "padding is -1; expected 0 to 1"),
        ("overlapping_pool", {"stride": 3}, "stride 3 is not below kernel_size 3, so no windows overlap; see max_pool"),
        ("overlapping_pool", {"stride": 0}, "stride 0; expected whole numbers"),
        ("overlapping_pool", {"kind": "least"}, "kind is 'least'; expected 'max' or 'average'"),
        ("global_pool", {"kind": "least"}, "kind is 'least'; expected 'max' or 'average'"),
        ("adaptive_pool", {"kind": "least"}, "kind is 'least'; expected 'max' or 'average'"),
        ("adaptive_pool", {"size": 0}, "size is 0; expected one or two whole numbers"),
        ("adaptive_pool", {"size": (2, 3, 4)}, r"size is \(2, 3, 4\); expected one or two whole numbers"),
    ],
)
def test_impossible_options_are_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        create_block(name, channels=4, **options)
