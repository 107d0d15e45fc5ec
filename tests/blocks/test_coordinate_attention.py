"""timm's coordinate attention, on pictures and on their windows."""

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block

CASES = [
    Case("coordinate_attention", {"channels": 4}, head=True),
    Case("coordinate_attention", {"channels": 20, "reduction": 2}, channels=20),
]


def test_the_gates_are_the_formula():
    block = Case("coordinate_attention", {"channels": 6}).make().double()
    norm = block.gate.bn1
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    u, v, w = (
        layer.weight.detach()[:, :, 0, 0].numpy() for layer in (block.gate.conv1, block.gate.conv_h, block.gate.conv_w)
    )
    mean, var, scale, shift = (
        value.detach().numpy()[:, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )

    def gate(wide, lines):  # (C, lines)
        hidden = (u @ lines - mean) / np.sqrt(var + norm.eps) * scale + shift
        hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
        return 1 / (1 + np.exp(-(wide @ hidden)))

    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    for sample, result in zip(x.numpy(), block(x).detach().numpy(), strict=True):
        rows, columns = gate(v, sample.mean(2)), gate(w, sample.mean(1))
        np.testing.assert_allclose(result, sample * rows[:, :, None] * columns[:, None], rtol=1e-12)


@pytest.mark.parametrize(("channels", "reduction"), [(64, 4), (320, 32), (3, 32)])
def test_it_has_as_many_parameters_as_it_says(channels, reduction):
    hidden = max(8, channels // reduction)
    block = create_block("coordinate_attention", channels=channels, reduction=reduction)
    assert sum(p.numel() for p in block.parameters()) == 3 * channels * hidden + 2 * hidden


@pytest.mark.parametrize("options", [{"channels": 0}, {"channels": 4, "reduction": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"channels is \d and reduction \d+; expected whole numbers of at least 1"):
        create_block("coordinate_attention", **options)
