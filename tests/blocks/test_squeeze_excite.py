"""timm's squeeze-excite, which can start as the identity."""

import numpy as np
import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block

CASES = [
    Case("squeeze_excite", {"channels": 4, "reduction": 2}),
    Case("squeeze_excite", {"channels": 4, "add_max": True}),
]


@pytest.mark.parametrize("add_max", [False, True])
def test_the_gate_is_the_formula(add_max):
    block = Case("squeeze_excite", {"channels": 6, "reduction": 3, "add_max": add_max}).make().double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    (w1, b1, w2, b2) = (p.detach().flatten(1).numpy() if p.ndim > 1 else p.detach().numpy() for p in block.parameters())
    for sample, result in zip(x.numpy(), block(x).detach().numpy(), strict=True):
        seen = sample.mean((1, 2))
        seen = (seen + sample.max((1, 2))) / 2 if add_max else seen
        gate = 1 / (1 + np.exp(-(w2 @ np.maximum(w1 @ seen + b1, 0) + b2)))
        np.testing.assert_allclose(result, sample * gate[:, None, None], rtol=1e-12)


def test_it_is_that_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    block, other = create_block("squeeze_excite", channels=32, reduction=8), ops.SqueezeExcitation(32, 4)
    other.load_state_dict({name.removeprefix("gate."): value for name, value in block.state_dict().items()})
    x = torch.randn(2, 32, 6, 6)
    torch.testing.assert_close(block(x), other(x))


@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (6, 4), (3, 16)])
def test_it_has_as_many_parameters_as_it_says(channels, reduction):
    hidden = max(1, channels // reduction)
    count = sum(p.numel() for p in create_block("squeeze_excite", channels=channels, reduction=reduction).parameters())
    assert count == 2 * channels * hidden + hidden + channels


@pytest.mark.parametrize("options", [{"channels": 0}, {"channels": 4, "reduction": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"channels is \d and reduction \d+; expected whole numbers of at least 1"):
        create_block("squeeze_excite", **options)
