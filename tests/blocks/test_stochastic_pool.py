"""A cell drawn from each window in training, and its expectation afterwards."""

import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina


def halved(channels, height, width):
    return channels, height // 2, width // 2


CASES = [
    Case("stochastic_pool", {"channels": 4}, out=halved),
    Case("stochastic_pool", {"channels": 4, "kernel_size": 3, "stride": 2, "padding": 1}, out=halved),
    Case("stochastic_pool", {"channels": 4, "kernel_size": 3, "stride": 1, "padding": 1}),
]


def test_evaluation_returns_the_expectation():
    block = create_block("stochastic_pool", channels=2, kernel_size=3, stride=2, padding=1).eval()
    x = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    x[0, 1, :4, :4] = -1  # a window of nothing
    result = block(x)
    for channel in range(2):
        for row in range(4):
            for column in range(4):
                rows = range(max(0, 2 * row - 1), min(7, 2 * row + 2))
                columns = range(max(0, 2 * column - 1), min(8, 2 * column + 2))
                strengths = [max(0.0, x[0, channel, i, j].item()) for i in rows for j in columns]
                whole = sum(strengths)
                expected = sum(a * a / whole for a in strengths) if whole else 0.0
                assert result[0, channel, row, column].item() == pytest.approx(expected, abs=1e-12)
    assert result[0, 1, 0, 0] == 0


def test_in_training_a_cell_is_drawn_in_proportion_to_its_strength():
    torch.manual_seed(0)
    window = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    draws = create_block("stochastic_pool", channels=1)(window.expand(8000, 1, 2, 2)).flatten()
    assert set(draws.tolist()) == {1.0, 2.0, 5.0}, "what is nothing is never drawn"
    for strength in (1, 2, 5):
        chance = strength / 8
        spread = (chance * (1 - chance) / 8000) ** 0.5
        assert (draws == strength).double().mean().item() == pytest.approx(chance, abs=5 * spread)


def test_the_mean_of_many_draws_is_what_evaluation_returns():
    torch.manual_seed(0)
    block = create_block("stochastic_pool", channels=3, kernel_size=3, stride=2, padding=1)
    x = torch.rand(1, 3, 6, 6)
    draws = torch.stack([block(x) for _ in range(3000)])
    spread = draws.std(0) / 3000**0.5
    assert ((draws.mean(0) - block.eval()(x)).abs() <= 5 * spread + 1e-6).all()


def test_every_draw_is_a_cell_of_its_window_and_alone_has_the_gradient():
    torch.manual_seed(0)
    block = create_block("stochastic_pool", channels=2)
    x = torch.rand(3, 2, 6, 6, requires_grad=True)
    drawn = block(x)
    drawn.sum().backward()
    cells, gradient = (v.unflatten(2, (3, 2)).unflatten(4, (3, 2)).transpose(3, 4).flatten(4) for v in (x, x.grad))
    assert ((gradient == 1).sum(-1) == 1).all()
    assert (gradient != 0).sum() == drawn.numel()
    assert torch.equal((cells * gradient).sum(-1), drawn)


def test_equal_cells_and_windows_of_nothing_stay_as_they_are():
    block = create_block("stochastic_pool", channels=1, kernel_size=3)
    for value in (0.0, -2.0, 3.0, 1e-30):
        for training in (True, False):
            result = block.train(training)(torch.full((4, 1, 9, 9), value, dtype=torch.float64))
            torch.testing.assert_close(result, torch.full((4, 1, 3, 3), max(0.0, value), dtype=torch.float64))


def test_windows_of_a_tiling_draw_from_the_cells_that_the_dense_block_draws_from():
    torch.manual_seed(0)
    block = create_block("stochastic_pool", channels=1, kernel_size=3, stride=2, padding=1).train()
    picture = torch.arange(1.0, 32 * 32 + 1).view(1, 1, 32, 32)
    layout = Layout.tiling(picture=(32, 32), size=16)
    tiled = foveate(block)(Retina(16, levels=1)(picture, layout=layout))
    drawn = torch.cat([torch.cat([tiled[0, 2 * row + at, 0] for at in (0, 1)], -1) for row in (0, 1)])
    rows, columns = (drawn.long() - 1) // 32, (drawn.long() - 1) % 32
    middle = torch.arange(16) * 2
    assert ((rows - middle[:, None]).abs() <= 1).all()
    assert ((columns - middle).abs() <= 1).all()
    assert (columns[:, 8] == 15).any(), "some from the window beside"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_expectation_of_large_activations_is_finite_in_half_precision(dtype):
    x = 300 + 100 * torch.rand(1, 2, 4, 4)
    block = create_block("stochastic_pool", channels=2).eval()
    found = block(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), block(x), rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_it_has_no_parameters_and_nothing_to_save():
    block = create_block("stochastic_pool", channels=4)
    assert not list(block.parameters())
    assert not block.state_dict()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"channels": 4, "kernel_size": 0}, "kernel_size is 0 and stride 0"),
        ({"channels": 4, "padding": 2}, "padding is 2; expected 0 to 1"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_block("stochastic_pool", **options)
