import pytest
import torch
from cases import Case

from foveal.blocks.eccentricity_map import eccentricity_map
from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.retina import Retina

CASES = [Case("eccentric_blur", {"strength": 1.5, "steps": 2})]


@pytest.fixture
def drawn(monkeypatch):
    """Whatever is drawn is 1, so that every picture has the full strength."""
    monkeypatch.setattr(torch, "rand_like", torch.ones_like)


@pytest.mark.parametrize(("strength", "steps"), [(4.0, 1), (4.0, 2), (4.0, 4), (0.9, 3)])
def test_the_variance_of_the_blur_is_that_of_the_formula_at_every_place(drawn, strength, steps):
    """A parabola rises under a blur by the variance of its kernel, wherever it is."""
    block = create_block("eccentric_blur", strength=strength, steps=steps).double().train()
    x = torch.arange(101.0, dtype=torch.float64).square().expand(1, 1, 101, 101)
    inside = slice(40, 61), slice(25, 76)  # where no kernel reaches the border
    wanted = (strength * eccentricity_map(x)[0, 0].clamp(max=1)).square().clamp(max=block.variances[-1])
    assert block.variances[-1] == pytest.approx(strength**2, rel=0.15)
    found = (block(x) - x)[0, 0]
    torch.testing.assert_close(found[inside], wanted[inside], rtol=1e-4, atol=1e-3)


def test_the_fixation_stays_sharp_and_every_picture_may_have_its_own(drawn):
    block = create_block("eccentric_blur", strength=4.0).train()
    x = torch.rand(2, 3, 33, 33)
    changed = (block(x, fixation=torch.tensor([[0.5, 0.5], [0.5 / 33, 32.5 / 33]])) - x).abs().amax(1)
    assert changed[0, 16, 16] < 1e-6 < 1e-2 < changed[1, 16, 16]
    assert changed[1, 0, 32] < 1e-6


def test_every_picture_draws_its_own_strength_between_none_and_the_full_one():
    block = create_block("eccentric_blur", strength=2.0).train()
    x = torch.arange(64.0).square().expand(200, 1, 64, 64)
    torch.manual_seed(0)
    rise = (block(x) - x)[:, 0, 32, 48]
    sigma = rise.clamp(min=0).sqrt()
    full = 2.0 * eccentricity_map(x)[0, 0, 32, 48]
    assert sigma.max() < full * 1.01
    assert sigma.mean().item() == pytest.approx(full.item() / 2, rel=0.1)
    assert sigma.std() > 0.2 * full


def test_evaluation_leaves_pictures_as_they_are():
    x = torch.rand(1, 3, 16, 16)
    block = create_block("eccentric_blur")
    assert block.eval()(x) is x
    assert not list(block.parameters())
    assert not block.state_dict()


def test_all_windows_of_a_picture_draw_the_same_strength():
    x = torch.arange(64.0, dtype=torch.float64).square().expand(3, 1, 64, 64)
    glimpse = Retina(32, levels=2)(x)
    torch.manual_seed(1)
    rise = (foveate(create_block("eccentric_blur", strength=2.0).double().train())(glimpse) - glimpse.pixels)[:, :, 0]
    full = 2.0 * (glimpse.layout.eccentricity(32) / 32).clamp(max=1)
    # By how much a parabola rises, in cells, of which those of the wider window are of 2 pixels.
    found = rise / full.square() / torch.tensor([1.0, 4.0])[:, None, None]
    strengths = found[:, 0, 16, 24].sqrt()
    torch.testing.assert_close(found[:, 1, 16, 20].sqrt(), strengths, rtol=0.02, atol=0)
    assert strengths.std() > 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 0}, "strength is 0"),
        ({"steps": 0}, "steps 0"),
        ({"strength": 0.9, "steps": 4}, "0.9 in 4 steps"),
        ({"steps": 1.5}, "steps 1.5"),
        ({"border": "none"}, "border is 'none'"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("eccentric_blur", **options)


def test_a_fixation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="fixation has shape"):
        create_block("eccentric_blur").train()(torch.rand(2, 3, 16, 16), fixation=torch.rand(3, 2))
