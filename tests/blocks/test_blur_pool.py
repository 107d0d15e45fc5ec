"""timm's blur before a stride."""

import math

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block


def halved(channels, height, width):
    return channels, height // 2, width // 2


CASES = [
    Case("blur_pool", {"channels": 4}, out=halved),
    Case("blur_pool", {"channels": 4, "kernel_size": 5, "padding_mode": "constant"}, out=halved),
    Case("blur_pool", {"channels": 4, "kernel_size": 5, "stride": 1, "padding_mode": "replicate"}),
]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(
    ("padding_mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("constant", "constant")]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [(8, 12), (9, 7)])
def test_it_is_the_binomial_blur_thinned(kernel_size, padding_mode, numpy_mode, stride, side):
    block = create_block("blur_pool", channels=2, kernel_size=kernel_size, stride=stride, padding_mode=padding_mode)
    x = torch.randn(1, 2, *side, dtype=torch.float64)
    weights = np.array([math.comb(kernel_size - 1, place) for place in range(kernel_size)]) / 2 ** (kernel_size - 1)
    rim = kernel_size // 2
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (rim, rim), (rim, rim)), mode=numpy_mode)
    rows = sum(w * padded[:, :, at : at + side[0]] for at, w in enumerate(weights))
    blurred = sum(w * rows[..., at : at + side[1]] for at, w in enumerate(weights))
    result = block.double()(x)
    assert result.shape[2:] == (math.ceil(side[0] / stride), math.ceil(side[1] / stride))
    np.testing.assert_allclose(result, blurred[:, :, ::stride, ::stride], rtol=1e-12, atol=1e-12)


def test_a_shift_changes_it_less_than_it_changes_a_plain_stride():
    x = torch.randn(1, 1, 32, 33, generator=torch.Generator().manual_seed(0))
    one, other = x[..., :-1], x[..., 1:]
    block = create_block("blur_pool", channels=1)
    blurred = (block(one) - block(other)).std() / block(one).std()
    assert blurred < 0.8 * (one[..., ::2, ::2] - other[..., ::2, ::2]).std() / one.std()


def test_it_has_no_parameters():
    assert not list(create_block("blur_pool", channels=4).parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"channels": 4, "kernel_size": 4}, "kernel_size is 4; expected an odd number of at least 3"),
        ({"channels": 4, "kernel_size": 1}, "kernel_size is 1; expected an odd number of at least 3"),
        ({"channels": 4, "stride": 3}, "stride is 3; expected 1 or 2: for more, put one after the other"),
        ({"channels": 4, "padding_mode": "circular"}, "padding_mode is 'circular'; expected 'reflect', 'replicate' or"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_block("blur_pool", **options)
