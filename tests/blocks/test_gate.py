"""Gates put into a trained network: nothing changes at first, and then they learn."""

import doctest

import pytest
import torch
from cases import Case

import foveal.blocks.gate as module
from foveal.blocks.gate import Gate
from foveal.blocks.gaussian_attention import GaussianSpatialAttention
from foveal.blocks.registry import create_block, list_blocks
from foveal.convert.foveate import foveate
from foveal.retina import Retina

GATES = list_blocks(family="attention")


@pytest.fixture(params=GATES)
def gate(request):
    return Case(request.param, {"channels": 4}).make()


def test_all_attention_blocks_are_gates(gate):
    assert isinstance(gate, Gate)
    assert "strength" not in gate.state_dict(), "keys are those of the gate alone"


def test_one_that_starts_as_the_identity_changes_nothing_bit_for_bit(gate):
    x = torch.randn(2, 4, 16, 16)
    assert not torch.equal(gate(x), x)
    gate.start_as_identity()
    assert torch.equal(gate(x), x)
    assert torch.equal(gate.train()(x), x)
    glimpse = Retina(16, levels=3)(torch.randn(2, 4, 50, 40))
    assert torch.equal(foveate(gate.eval())(glimpse), glimpse.pixels)


def test_full_strength_is_the_gate_itself(gate):
    x = torch.randn(2, 4, 16, 16)
    gated = gate(x)
    gate.start_as_identity()
    gate.strength.data.fill_(1)
    torch.testing.assert_close(gate(x), gated)


@pytest.mark.parametrize("name", GATES)
def test_after_one_step_every_weight_learns(name):
    gate = Case(name, {"channels": 32}).make()
    gate.start_as_identity()
    x, wanted = torch.randn(8, 32, 16, 16) + torch.randn(8, 32, 1, 1), torch.randn(8, 32, 16, 16)
    (gate(x) - wanted).square().sum().backward()
    assert gate.strength.grad.abs() > 0
    gate.strength.data -= 0.01 * gate.strength.grad.sign()
    gate.zero_grad()
    (gate(x) - wanted).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in gate.parameters())


def test_the_gradient_at_the_start_is_that_of_the_formula():
    gate = Case("spatial_channel_attention", {"channels": 4}).make().double()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    gated = gate(x).detach()
    gate.start_as_identity()
    gate(x).square().sum().backward()
    torch.testing.assert_close(gate.strength.grad, (2 * x * (gated - x)).sum())


def test_with_a_layout_it_starts_as_the_identity_too():
    glimpse = Retina(16, levels=3)(torch.randn(2, 4, 50, 40))
    maps = glimpse.pixels.flatten(0, 1)
    for gate in (GaussianSpatialAttention(0.3), create_block("channel_gating", channels=4)):
        gate.start_as_identity()
        assert torch.equal(gate(maps, glimpse.layout), maps)


def test_its_strength_is_saved_and_has_the_dtype_of_the_gate():
    gate = create_block("pixel_attention", channels=4).double()
    gate.start_as_identity()
    assert gate.strength.dtype == torch.float64
    assert "strength" in gate.state_dict()


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
