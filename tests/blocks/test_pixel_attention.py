"""A gate of each cell by what is seen at that cell."""

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block

CASES = [
    Case("pixel_attention", {"channels": 4}),
    Case("pixel_attention", {"channels": 4, "shared": True, "reduction": 2}),
]


@pytest.mark.parametrize("shared", [False, True])
def test_the_gate_is_the_formula(shared):
    block = Case("pixel_attention", {"channels": 6, "shared": shared, "reduction": 3}).make().double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    result = block(x)
    weights = [p.detach().flatten(1).numpy() if p.ndim > 1 else p.detach().numpy() for p in block.parameters()]
    for sample in range(2):
        for row in range(3):
            for column in range(4):
                cell = x[sample, :, row, column].numpy()
                score = weights[0] @ cell + weights[1]
                score = weights[2] @ np.maximum(score, 0) + weights[3] if shared else score
                expected = cell / (1 + np.exp(-score))
                np.testing.assert_allclose(result[sample, :, row, column].detach(), expected, rtol=1e-12)


@pytest.mark.parametrize(("channels", "reduction"), [(64, 8), (6, 4), (3, 8)])
def test_it_has_as_many_parameters_as_it_says(channels, reduction):
    hidden = max(1, channels // reduction)
    for shared, expected in ((False, channels * channels + channels), (True, channels * hidden + 2 * hidden + 1)):
        block = create_block("pixel_attention", channels=channels, shared=shared, reduction=reduction)
        assert sum(p.numel() for p in block.parameters()) == expected


@pytest.mark.parametrize("options", [{"channels": 0}, {"channels": 4, "reduction": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"channels is \d and reduction \d; expected whole numbers of at least 1"):
        create_block("pixel_attention", **options)
