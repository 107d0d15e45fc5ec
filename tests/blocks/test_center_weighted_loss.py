import math

import pytest
import torch
from cases import Case
from torch import nn
from torch.nn import functional as F

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina

CASES = [
    Case(
        "center_weighted_loss",
        {"reduction": "none", "sigma": 0.4},
        out=lambda channels, height, width: (),
        head=True,
    )
]


def test_it_is_the_weighted_mean_of_the_losses_of_all_places():
    losses = torch.rand(2, 3, 6, 10)
    total = torch.zeros(2)
    share = 0.0
    for row in range(6):
        for column in range(10):
            far = math.hypot(row + 0.5 - 1.5, column + 0.5 - 8) / 5  # from (0.25, 0.8), over half the longer side
            weight = 0.1 + 0.9 * math.exp(-(far**2) / (2 * 0.3**2))
            total += weight * losses[:, :, row, column].mean(1)
            share += weight
    block = create_block("center_weighted_loss", sigma=0.3, floor=0.1)
    found = block(losses, fixation=torch.tensor([0.25, 0.8]))
    torch.testing.assert_close(found, (total / share).mean())
    each = create_block("center_weighted_loss", sigma=0.3, floor=0.1, reduction="none")
    torch.testing.assert_close(each(losses, fixation=torch.tensor([[0.25, 0.8]] * 2)), total / share)


def test_it_is_not_the_loss_times_the_mean_of_the_weights():
    """The same errors count more in the centre than at the edge; a loss alike everywhere is unchanged."""
    block = create_block("center_weighted_loss", sigma=0.3)
    near, far = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    near[0, 3, 3], far[0, 0, 0] = 1, 1
    assert block(near) > 3 * block(far)
    torch.testing.assert_close(block(torch.full((2, 8, 8), 0.7)), torch.tensor(0.7))


def test_places_that_do_not_count_change_nothing_not_even_where_they_are_not_finite():
    block = create_block("center_weighted_loss", reduction="none")
    losses, mask = torch.rand(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool)
    mask[0, :, 3:], mask[1] = False, False
    losses[0, 2, 4] = float("nan")
    losses.requires_grad_()
    found = block(losses, mask)
    assert found[1] == 0
    other = losses.detach().clone()
    other[0, :, 3:] = 5.0
    torch.testing.assert_close(block(other, mask), found)
    found.sum().backward()
    assert losses.grad[0, :, :3].gt(0).all()
    assert not losses.grad[0, :, 3:].any()
    torch.testing.assert_close(block(torch.ones(2, 6, 6), mask), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_picture_of_which_nothing_counts_and_a_batch_of_none_give_0(dtype):
    losses = torch.rand(2, 6, 6).to(dtype)
    for block in (create_block("center_weighted_loss"), create_block("center_weighted_loss", floor=0.0, sigma=0.1)):
        found = block(losses, torch.zeros(2, 6, 6, dtype=torch.bool))
        assert (found.item(), found.dtype) == (0, dtype)
        assert block(losses[:0]).item() == 0


def test_tiny_weights_count_as_large_ones_where_they_are_all_there_is():
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 0, 0] = True
    block = create_block("center_weighted_loss", sigma=0.15, floor=0.0)
    assert block(torch.ones(1, 32, 32), mask).item() == 1


def test_losses_of_a_glimpse_are_weighed_around_its_fixation_and_by_area():
    picture = torch.rand(1, 1, 64, 64)
    glimpse = Retina(16, levels=3)(picture, fixation=(0.2, 0.6))
    block = create_block("center_weighted_loss", sigma=0.3, reduction="none")
    areas = glimpse.layout.areas(16)
    weights = 0.25 + 0.75 * torch.exp(-((glimpse.layout.eccentricity(16) / 32) ** 2) / (2 * 0.3**2))
    wanted = (glimpse.pixels[:, :, 0] * weights * areas).sum() / (weights * areas).sum()
    torch.testing.assert_close(foveate(block)(glimpse), wanted[None])


def test_it_trains_a_segmentation_of_the_centre_first():
    torch.manual_seed(0)
    network = nn.Conv2d(2, 3, 3, padding=1)
    x, labels = torch.randn(2, 2, 8, 8), torch.randint(0, 3, (2, 8, 8))
    loss = create_block("center_weighted_loss")(F.cross_entropy(network(x), labels, reduction="none"))
    loss.backward()
    assert network.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma": 0}, "sigma is 0"),
        ({"floor": 1.0}, "floor 1.0"),
        ({"floor": -0.1}, "floor -0.1"),
        ({"reduction": "sum"}, "reduction is 'sum'"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("center_weighted_loss", **options)


def test_losses_that_are_reduced_already_and_other_masks_are_refused():
    block = create_block("center_weighted_loss")
    with pytest.raises(ValueError, match=r"shape \(\); expected \(B, H, W\)"):
        block(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 1, 4, 4\); expected \(2, 1, 8, 8\)"):
        block(torch.rand(2, 8, 8), torch.ones(2, 4, 4))
