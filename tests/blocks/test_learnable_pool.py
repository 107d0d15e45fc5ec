"""Pooling windows whose weights are learned."""

import numpy as np
import pytest
import torch
from cases import Case
from torch.nn import functional as F

from foveal.blocks.registry import create_block


def halved(channels, height, width):
    return channels, height // 2, width // 2


CASES = [
    Case("learnable_pool", {"channels": 4}, out=halved),
    Case("learnable_pool", {"channels": 4, "kernel_size": 3, "stride": 2, "padding": 1, "shared": True}, out=halved),
    Case("learnable_pool", {"channels": 4, "kernel_size": 5, "stride": 1, "padding": 2}),
]


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_the_sum_by_the_softmax_of_its_weights(shared):
    block = create_block("learnable_pool", channels=3, kernel_size=3, stride=2, padding=1, shared=shared).double()
    torch.nn.init.normal_(block.logits)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = block(x).detach().numpy()
    assert result.shape == (2, 3, 4, 3)
    for channel in range(3):
        powers = np.exp(block.logits.detach()[0 if shared else channel].numpy())
        for row in range(4):
            for column in range(3):
                window = padded[:, channel, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                expected = (window * powers / powers.sum()).sum((1, 2))
                np.testing.assert_allclose(result[:, channel, row, column], expected, rtol=1e-10, atol=1e-12)


def test_it_starts_as_average_pooling():
    x = torch.randn(2, 3, 8, 8)
    block = create_block("learnable_pool", channels=3, kernel_size=3, stride=2, padding=1)
    torch.testing.assert_close(block(x), F.avg_pool2d(x, 3, 2, 1))


def test_flat_maps_stay_flat_whatever_is_learned():
    block = create_block("learnable_pool", channels=3)
    torch.nn.init.normal_(block.logits, std=5)
    torch.testing.assert_close(block(torch.full((1, 3, 8, 8), 2.5)), torch.full((1, 3, 4, 4), 2.5))
    torch.testing.assert_close(block.weight.sum((1, 2)), torch.ones(3))


def test_it_learns_which_cell_of_each_window_is_wanted():
    torch.manual_seed(0)
    block = create_block("learnable_pool", channels=2)
    optimiser = torch.optim.Adam(block.parameters(), lr=0.2)
    x = torch.randn(4, 2, 8, 8)
    for _ in range(100):
        optimiser.zero_grad()
        (block(x) - x[:, :, 1::2, ::2]).square().mean().backward()
        optimiser.step()
    assert (block.weight[:, 1, 0] > 0.95).all()


@pytest.mark.parametrize(("shared", "expected"), [(False, 6 * 9), (True, 9)])
def test_it_has_as_many_parameters_as_it_says(shared, expected):
    block = create_block("learnable_pool", channels=6, kernel_size=3, shared=shared)
    assert sum(p.numel() for p in block.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"channels": 4, "stride": 0}, "kernel_size is 2 and stride 0"),
        ({"channels": 4, "padding": 2}, "padding is 2; expected 0 to 1"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_block("learnable_pool", **options)
