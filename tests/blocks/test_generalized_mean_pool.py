"""A mean between the mean and the maximum."""

import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina

CASES = [
    Case("generalized_mean_pool", {"channels": 4}, out=lambda c, h, w: (c,)),
    Case("generalized_mean_pool", {"channels": 4, "per_channel": True, "p": 2.5}, out=lambda c, h, w: (c,)),
]


@pytest.mark.parametrize("per_channel", [False, True])
def test_it_is_the_formula(per_channel):
    block = create_block("generalized_mean_pool", channels=3, per_channel=per_channel, eps=1e-3).double()
    torch.nn.init.uniform_(block.p, 0.5, 5)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    result = block(x)
    for sample in range(2):
        for channel in range(3):
            p = block.p[channel if per_channel else 0].item()
            values = [max(value, 1e-3) ** p for value in x[sample, channel].flatten().tolist()]
            assert result[sample, channel].item() == pytest.approx((sum(values) / 20) ** (1 / p), rel=1e-12)


def test_a_power_of_one_is_the_mean_and_a_great_one_nearly_the_maximum():
    x = torch.rand(2, 4, 6, 6, dtype=torch.float64) + 0.1
    one, great = (create_block("generalized_mean_pool", channels=4, p=p).double() for p in (1, 500))
    torch.testing.assert_close(one(x), x.mean((2, 3)))
    torch.testing.assert_close(great(x), x.amax((2, 3)), rtol=0.01, atol=0)


def test_on_glimpses_a_cell_weighs_what_it_alone_stands_for():
    block = create_block("generalized_mean_pool", channels=4).double()
    glimpse = Retina(16, levels=3)(torch.rand(1, 4, 50, 64, dtype=torch.float64))
    areas = glimpse.layout.areas(16).double()[:, :, None]
    powers = glimpse.pixels.clamp(min=1e-6) ** 3
    expected = ((powers * areas).sum((1, 3, 4)) / areas.sum((1, 3, 4))) ** (1 / 3)
    torch.testing.assert_close(foveate(block)(glimpse), expected)


@pytest.mark.parametrize(("p", "dtype"), [(8.0, torch.float32), (3.0, torch.float16), (3.0, torch.bfloat16)])
def test_gradients_are_finite_for_a_channel_of_nothing_and_for_large_values(p, dtype):
    x = torch.stack([torch.zeros(4, 4), torch.rand(4, 4), 200 * torch.rand(4, 4)])[None].to(dtype).requires_grad_()
    block = create_block("generalized_mean_pool", channels=3, p=p).to(dtype)
    result = block(x)
    result.sum().backward()
    for value in (result, x.grad, block.p.grad):
        assert value.isfinite().all()
    exact = create_block("generalized_mean_pool", channels=3, p=p).double()(x.detach().double())
    torch.testing.assert_close(result.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-7)


def test_the_power_is_learned():
    torch.manual_seed(0)
    block = create_block("generalized_mean_pool", channels=4)
    optimiser = torch.optim.Adam(block.parameters(), lr=0.1)
    x = torch.rand(8, 4, 6, 6)
    for _ in range(150):
        optimiser.zero_grad()
        (block(x) - x.square().mean((2, 3)).sqrt()).square().mean().backward()
        optimiser.step()
    assert block.p.item() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("per_channel", "expected"), [(False, 1), (True, 6)])
def test_it_has_as_many_parameters_as_it_says(per_channel, expected):
    block = create_block("generalized_mean_pool", channels=6, per_channel=per_channel)
    assert sum(p.numel() for p in block.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"channels": 4, "p": 0}, "p is 0 and eps 1e-06; expected both above 0"),
        ({"channels": 4, "eps": 0}, "p is 3.0 and eps 0; expected both above 0"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_block("generalized_mean_pool", **options)
