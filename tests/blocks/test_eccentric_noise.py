import pytest
import torch
from cases import Case

from foveal.blocks.eccentricity_map import eccentricity_map
from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina

CASES = [Case("eccentric_noise", {"strength": 0.3})]


def spread(block, x, **options):
    """(H, W): the standard deviation of what is added, over pictures and channels."""
    torch.manual_seed(0)
    return (block(x, **options) - x).std((0, 1))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_noise_grows_with_eccentricity(power):
    block = create_block("eccentric_noise", strength=0.2, power=power)
    x = torch.zeros(2000, 3, 9, 9)
    wanted = 0.2 * eccentricity_map(x)[0, 0] ** power
    torch.testing.assert_close(spread(block, x), wanted, rtol=0.06, atol=1e-6)
    assert spread(block, x)[4, 4] == 0


def test_every_picture_may_have_a_fixation_of_its_own():
    block = create_block("eccentric_noise", strength=0.2).train()
    x, places = torch.zeros(2, 500, 9, 9), torch.tensor([[0.5, 0.5], [1 / 18, 17 / 18]])
    added = block(x, fixation=places).std(1)
    assert added[0, 4, 4] < 1e-6 < 0.1 < added[1, 4, 4]
    assert added[1, 0, 8] < 1e-6 < 0.1 < added[0, 0, 8]
    torch.testing.assert_close(added[1, 8, 0], torch.tensor(0.2 * (2 * 8**2) ** 0.5 / 4.5), rtol=0.15, atol=0)


def test_evaluation_and_a_strength_of_0_leave_pictures_as_they_are():
    x = torch.rand(1, 3, 8, 8)
    assert create_block("eccentric_noise", strength=0.5).eval()(x) is x
    assert create_block("eccentric_noise", strength=0.0).train()(x) is x
    assert not list(create_block("eccentric_noise").parameters())


def test_a_glimpse_is_noisier_the_farther_from_its_own_fixation():
    network = foveate(create_block("eccentric_noise", strength=0.2).train())
    glimpse = Retina(16, levels=3)(torch.zeros(400, 1, 64, 64), fixation=(0.3, 0.7))
    torch.manual_seed(0)
    added = network(glimpse)[:, :, 0].std(0)
    wanted = 0.2 * glimpse.layout.eccentricity(16)[0] / 32
    torch.testing.assert_close(added, wanted, rtol=0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"strength": -1}, "strength is -1"), ({"power": 0}, "power 0"), ({"strength": float("nan")}, "strength is nan")],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("eccentric_noise", **options)


def test_a_fixation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="fixation has shape"):
        create_block("eccentric_noise")(torch.rand(2, 3, 8, 8), fixation=torch.rand(3, 2))
