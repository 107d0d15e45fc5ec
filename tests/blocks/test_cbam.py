"""timm's CBAM, which can start as the identity."""

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block

CASES = [
    Case("cbam", {"channels": 4, "reduction": 2}),
    Case("cbam", {"channels": 4, "kernel_size": 3}),
]


def test_both_gates_are_the_formula():
    block = Case("cbam", {"channels": 6, "reduction": 3, "kernel_size": 3}).make().double()
    norm = block.gate.spatial.conv.bn
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(1.7)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    w1, w2 = (layer.weight.detach()[:, :, 0, 0].numpy() for layer in (block.gate.channel.fc1, block.gate.channel.fc2))
    kernel = block.gate.spatial.conv.conv.weight[0].detach().numpy()
    scale, shift = norm.weight.item() / np.sqrt(1.7 + norm.eps), norm.bias.item()

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for sample, result in zip(x.numpy(), block(x).detach().numpy(), strict=True):
        scores = [w2 @ np.maximum(w1 @ seen, 0) for seen in (sample.mean((1, 2)), sample.max((1, 2)))]
        first = sample * sigmoid(scores[0] + scores[1])[:, None, None]
        seen = np.pad(np.stack([first.mean(0), first.max(0)]), ((0, 0), (1, 1), (1, 1)))
        for y in range(5):
            for x_ in range(7):
                score = (seen[:, y : y + 3, x_ : x_ + 3] * kernel).sum()
                expected = first[:, y, x_] * sigmoid((score - 0.3) * scale + shift)
                np.testing.assert_allclose(result[:, y, x_], expected, rtol=1e-10)


@pytest.mark.parametrize(("channels", "reduction", "kernel_size"), [(64, 16, 7), (6, 4, 3), (3, 16, 5)])
def test_it_has_as_many_parameters_as_it_says(channels, reduction, kernel_size):
    block = create_block("cbam", channels=channels, reduction=reduction, kernel_size=kernel_size)
    hidden = max(1, channels // reduction)
    assert sum(p.numel() for p in block.parameters()) == 2 * channels * hidden + 2 * kernel_size**2 + 2


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="channels is 0 and reduction 16"):
        create_block("cbam", channels=0)
    for kernel_size in (0, 4):
        with pytest.raises(ValueError, match=f"kernel_size is {kernel_size}; expected an odd number"):
            create_block("cbam", channels=4, kernel_size=kernel_size)
