"""Spatial and channel squeeze-excite side by side."""

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block

CASES = [
    Case("spatial_channel_attention", {"channels": 4}),
    Case("spatial_channel_attention", {"channels": 4, "combine": "max"}),
]


@pytest.mark.parametrize("combine", ["add", "max"])
def test_the_gates_are_the_formula(combine):
    block = Case("spatial_channel_attention", {"channels": 6, "reduction": 3, "combine": combine}).make().double()
    w1, b1, w2, b2, w, b = (p.detach().numpy() for p in block.parameters())
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    for sample, result in zip(x.numpy(), block(x).detach().numpy(), strict=True):
        scores = w2 @ np.maximum(w1 @ sample.mean((1, 2)) + b1, 0) + b2
        by_channel = sample / (1 + np.exp(-scores))[:, None, None]
        by_place = sample / (1 + np.exp(-(np.einsum("c,chw->hw", w[0, :, 0, 0], sample) + b)))
        expected = by_channel + by_place if combine == "add" else np.maximum(by_channel, by_place)
        np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize(("channels", "reduction"), [(64, 2), (6, 4), (3, 8)])
def test_it_has_as_many_parameters_as_it_says(channels, reduction):
    hidden = max(1, channels // reduction)
    block = create_block("spatial_channel_attention", channels=channels, reduction=reduction)
    expected = 2 * channels * hidden + hidden + channels + channels + 1
    assert sum(p.numel() for p in block.parameters()) == expected


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="channels is 4 and reduction 0"):
        create_block("spatial_channel_attention", channels=4, reduction=0)
    with pytest.raises(ValueError, match="combine is 'mean'; expected 'add' or 'max'"):
        create_block("spatial_channel_attention", channels=4, combine="mean")
