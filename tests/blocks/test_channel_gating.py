"""A gate over the channels that keeps count of which of them matter."""

import doctest

import pytest
import torch
from cases import Case
from layouts import maps_of

import foveal.blocks.channel_gating as module
from foveal.blocks.channel_gating import ChannelGating
from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina

CASES = [
    Case("channel_gating", {"channels": 4}),
    Case("channel_gating", {"channels": 4, "reduction": 1}),
]

FOVEAL = Layout.foveal(picture=[(120, 100), (64, 128)], size=16, levels=4, fixation=[(0.2, 0.7), (1.0, 0.0)])


@pytest.fixture
def gating():
    torch.manual_seed(0)
    return ChannelGating(8)


def test_the_gate_looks_at_the_picture_by_area_and_weighs_every_window_alike(gating):
    maps = maps_of(FOVEAL, 4, 8, dtype=torch.float32)
    areas = FOVEAL.areas(4)
    cells = maps.unflatten(0, (2, 4)).movedim(2, 0)  # (C, B, K, n, n)
    squeezed = ((cells * areas).sum((2, 3, 4)) / areas.sum((1, 2, 3))).T
    hidden = torch.relu(squeezed @ gating.squeeze.weight.T + gating.squeeze.bias)
    gate = torch.sigmoid(hidden @ gating.excite.weight.T + gating.excite.bias)
    assert gate.shape == (2, 8)
    expected = maps.unflatten(0, (2, 4)) * gate[:, None, :, None, None]
    torch.testing.assert_close(gating(maps, FOVEAL), expected.flatten(0, 1))
    torch.testing.assert_close(gating.gate(maps, FOVEAL), gate)


def test_it_has_as_many_parameters_as_it_says():
    for channels, reduction in ((8, 4), (64, 4), (64, 16), (2, 4)):
        hidden = max(1, channels // reduction)
        count = sum(parameter.numel() for parameter in ChannelGating(channels, reduction=reduction).parameters())
        assert count == 2 * channels * hidden + hidden + channels


def test_importance_follows_the_gates_while_training_and_only_then(gating):
    maps = maps_of(FOVEAL, 4, 8, dtype=torch.float32)
    gating.eval()
    gating(maps, FOVEAL)
    assert torch.equal(gating.importance, torch.full((8,), 0.5))
    gating.train()
    gate = gating.gate(maps, FOVEAL).detach().mean(0)
    torch.testing.assert_close(gating.importance, 0.99 * 0.5 + 0.01 * gate)
    for _ in range(800):
        gating(maps, FOVEAL)
    torch.testing.assert_close(gating.importance, gate, rtol=0, atol=1e-3)
    assert gating.importance.argmax() == gate.argmax()
    assert not gating.importance.requires_grad
    assert "importance" in gating.state_dict(), "what was learned is saved"


def test_a_channel_that_training_needs_becomes_the_most_important(gating):
    maps = maps_of(FOVEAL, 4, 8, dtype=torch.float32).abs()
    optimiser = torch.optim.Adam(gating.parameters(), lr=0.05)
    wanted = torch.tensor([0, 0, 0, 0, 0, 1.0, 0, 0])[:, None, None]
    for _ in range(200):
        optimiser.zero_grad()
        (gating(maps, FOVEAL) - maps * wanted).square().mean().backward()
        optimiser.step()
    assert gating.importance.argmax() == 5


def test_every_parameter_receives_gradient(gating):
    gating(maps_of(FOVEAL, 4, 8, dtype=torch.float32), FOVEAL).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gating.parameters())


def test_reordered_channels_are_gated_as_before(gating):
    maps = maps_of(FOVEAL, 4, 8, dtype=torch.float32)
    gating.importance.uniform_()
    importance, before = gating.importance.clone(), gating.eval()(maps, FOVEAL)
    order = torch.randperm(8)
    gating.permute_channels(order)
    torch.testing.assert_close(gating(maps[:, order], FOVEAL), before[:, order])
    assert torch.equal(gating.importance, importance[order])


def test_one_layout_serves_a_batch(gating):
    one = Layout.foveal(picture=(60, 64), size=16, levels=3, fixation=(0.9, 0.2))
    maps = maps_of(Layout.stack([one] * 3), 4, 8, dtype=torch.float32)
    assert torch.equal(gating(maps, one), gating(maps, Layout.stack([one] * 3)))


def test_on_pictures_it_is_the_squeeze_excite_of_the_same_weights(gating):
    other = create_block("squeeze_excite", channels=8, reduction=4)
    named = {"squeeze": "gate.fc1", "excite": "gate.fc2"}
    weights = [(*name.split("."), value) for name, value in gating.named_parameters()]
    shapes = {name: value.shape for name, value in other.named_parameters()}
    state = {f"{named[layer]}.{kind}": value for layer, kind, value in weights}
    other.load_state_dict({name: value.view(shapes[name]) for name, value in state.items()})
    x = torch.randn(3, 8, 6, 10)
    torch.testing.assert_close(gating(x), other(x))


def test_through_foveate_it_gates_and_counts_as_it_does_with_a_layout(gating):
    glimpse = Retina(16, levels=3)(torch.randn(2, 8, 50, 64))
    foveated = foveate(gating.train())
    with torch.no_grad():
        gated = foveated(glimpse).flatten(0, 1)
        torch.testing.assert_close(gated, gating(glimpse.pixels.flatten(0, 1), glimpse.layout))
    torch.testing.assert_close(foveated.importance, gating.importance)
    assert not torch.equal(foveated.importance, torch.full((8,), 0.5))


@pytest.mark.parametrize("options", [{"channels": 0}, {"channels": 4, "reduction": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"channels is \d and reduction \d; expected whole numbers of at least 1"):
        create_block("channel_gating", **options)


def test_the_examples_in_the_documentation_are_true():
    names = {"torch": torch, "create_block": create_block}
    assert doctest.testmod(module, extraglobs=names).failed == 0
