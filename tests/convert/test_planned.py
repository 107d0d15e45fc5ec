"""Networks of one layout: the same results, in graphs that hold the tables as constants."""

import pytest
import torch
from torch import nn

import foveal.winograd
from foveal import Retina, foveate, planned
from foveal.models import CenterFocusCNN


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1)]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def operations(network: nn.Module, given: object) -> list[str]:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    torch.compile(network, fullgraph=True, backend=backend)(given)
    assert len(graphs) == 1
    return [getattr(node.target, "__name__", str(node.target)) for node in graphs[0].graph.nodes]


def test_it_gives_what_the_network_gives(network):
    retina = Retina(16, 3)
    glimpse = retina(torch.rand(2, 3, 64, 64))
    made, fast = foveate(network), planned(foveate(network), glimpse)
    other = retina(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        assert torch.equal(fast(other.pixels), made(other))
        compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(other.pixels), made(other))
    with pytest.raises(ValueError, match="was planned for"):
        fast(other.pixels[:1])


def test_its_graph_works_no_table_out(network):
    glimpse = Retina(16, 3)(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        mine = operations(planned(foveate(network), glimpse), glimpse.pixels)
        every = operations(foveate(network), glimpse)
    worked_out = {"argsort", "floor", "gather"}
    assert worked_out & set(every)
    assert not worked_out & set(mine)
    assert len(mine) < len(every) / 2


def test_gradients_pass_through_a_planned_graph(network):
    glimpse = Retina(16, 3)(torch.rand(1, 3, 64, 64))
    made, fast = foveate(network), planned(foveate(network), glimpse)
    wanted = torch.autograd.grad(made(glimpse).square().sum(), list(made.parameters()))
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(glimpse.pixels).square().sum(), list(fast.parameters()))
    for mine, one in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, one)


def test_few_multiplications_are_planned_too(network, monkeypatch):
    monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1)
    monkeypatch.setattr(foveal.winograd, "FEWEST_CHANNELS", 1)
    glimpse = Retina(16, 3)(torch.rand(2, 3, 64, 64))
    made = foveate(network)
    fast = planned(made, glimpse)
    with torch.no_grad():
        assert "bmm" in operations(fast, glimpse.pixels)
        compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(glimpse.pixels), made(glimpse))
        for value in made.parameters():
            value.data.mul_(1.5)  # a graph that does not freeze them goes on with the weights as they are
        torch.testing.assert_close(compiled(glimpse.pixels), made(glimpse))
    assert "bmm" not in operations(fast, glimpse.pixels)  # where gradients are kept


def test_a_planned_network_in_another_dtype(network, monkeypatch):
    monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1)
    monkeypatch.setattr(foveal.winograd, "FEWEST_CHANNELS", 1)
    glimpse = Retina(16, 3)(torch.rand(1, 3, 64, 64))
    fast = planned(foveate(network), glimpse).double()
    torch.compiler.reset()
    compiled, pixels = torch.compile(fast, fullgraph=True, backend="aot_eager"), glimpse.pixels.double()
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels), fast(pixels))


def test_a_planned_network_can_be_exported(network):
    glimpse = Retina(16, 3)(torch.rand(1, 3, 64, 64))
    fast = planned(foveate(network), glimpse)
    exported = torch.export.export(fast, (glimpse.pixels,), strict=True).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(glimpse.pixels), fast(glimpse.pixels))


def test_the_given_network_keeps_its_modes(network):
    network.train()
    network[1].eval()
    glimpse = Retina(16, 3)(torch.rand(2, 3, 64, 64))
    fast = planned(foveate(network), glimpse)
    assert [module.training for module in fast.network.network][:3] == [True, False, True]


def test_networks_of_ours_can_be_planned():
    network, glimpse = CenterFocusCNN("nano").eval(), Retina(32, 2)(torch.rand(1, 3, 64, 64))
    compiled = torch.compile(planned(network, glimpse), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(glimpse.pixels), network(glimpse))
