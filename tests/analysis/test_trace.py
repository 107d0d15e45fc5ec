"""Recording a run: all that is computed is there, running it again gives the same, the network stays as it is."""

from __future__ import annotations

import functools

import pytest
import torch
from networks import Does
from torch import nn

from foveal.analysis.analyze import analyze
from foveal.analysis.replay import node_times, replay
from foveal.analysis.trace import Untraceable, layer_of, operation, trace


def do(function, **held):
    return Does(lambda self, *given: function(self, *given), **held)


class Holds(nn.Module):
    """Tensors that are no buffers, one that is no part of the state, and numbers that are written down."""

    def __init__(self):
        super().__init__()
        self.scale = torch.full((1, 3, 1, 1), 2.0)
        self.register_buffer("shift", torch.arange(3.0).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        return x * self.scale + self.shift + torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)


def mixed(self, x):
    with torch.no_grad():
        x = self.a(x)
    with torch.autocast("cpu", torch.bfloat16):
        x = self.b(x)
    return {"sum": x.float().sum(1), "parts": (x, [self.a(x.float())])}


def nested(self, x, pair, named, nothing, number):
    assert nothing is None
    return x * pair[0] + self.a(pair[1]) * number + named["z"]


def convolutions(*names):
    torch.manual_seed(0)
    return {name: nn.Conv2d(3, 3, 3, padding=1) for name in names}


def picture(*shape, seed=0):
    return torch.randn(shape or (2, 3, 8, 8), generator=torch.Generator().manual_seed(seed))


RUNS = {
    "chain": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), [picture()]),
    "constants": (Holds(), [picture()]),
    "blocks": (do(mixed, **convolutions("a", "b")), [picture()]),
    "several inputs": (
        do(nested, **convolutions("a")),
        [picture(), (picture(seed=1), picture(seed=2)), {"z": picture(seed=3)}, None, 3],
    ),
    "dictionary": (do(lambda s, x: {"a": s.a(x), "b": x + 1}, **convolutions("a")), [picture()]),
    "float64": (nn.Conv2d(3, 4, 3).double(), [picture().double()]),
    "float16": (nn.Linear(8, 4).half(), [picture().half()]),
    "in place": (do(lambda s, x: x.clone().add_(1).mul_(2).relu_()), [picture()]),
    "recurrent": (nn.GRU(8, 4, batch_first=True), [picture(2, 5, 8)]),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [picture(2, 5, 8)]),
}


def leaves(value):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_gives_what_the_network_gives(name):
    network, inputs = RUNS[name]
    network.eval()
    recorded = trace(network, inputs)
    ends = recorded.graph.output_node().all_input_nodes
    with torch.no_grad():
        given = replay(recorded, inputs, ends)
        for node, value in zip(ends, leaves(network(*inputs)), strict=True):
            torch.testing.assert_close(given[node], value, rtol=1e-5, atol=1e-6)
    assert set(node_times(recorded, inputs, repeats=1)) == set(recorded.operations())


def test_names_of_layers_are_kept_in_blocks_of_their_own():
    recorded = trace(do(mixed, **convolutions("a", "b")), [picture()])
    assert [layer_of(node)[0] for node in recorded.operations() if operation(node) == "conv2d"] == ["a", "b", "a"]


def branching(self, x):
    x = self.a(x)
    return self.a(x) if x.sum() > 0 else x


FAILING = {
    "decides by its numbers": (do(branching, **convolutions("a")), [picture()], "data-dependent"),
    "is as large as its numbers say": (do(lambda s, x: x[x > 0]), [picture()], "its shapes depend on the numbers"),
    "does not fit": (nn.Conv2d(4, 4, 3), [picture()], r"\(2, 3, 8, 8\)"),
    "asks for a number": (do(lambda s, x: x[: int(x.sum().item())]), [picture()], "cannot be recorded"),
    "breaks": (do(lambda s, x: x.nothing), [picture()], "nothing"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_cannot_be_recorded_is_told_in_one_line(name, capfd):
    network, inputs, says = FAILING[name]
    network.train()
    with pytest.raises(Untraceable, match=says) as told:
        trace(network, inputs)
    message = str(told.value)
    assert "\n" not in message
    assert len(message) < 500
    assert message.startswith(f"{type(network).__name__} cannot be recorded on an input of (2, 3, 8, 8)")
    assert capfd.readouterr() == ("", "")
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_that_memory_ran_out_is_told_as_it_is(error):
    def runs_out(self, x):
        raise error

    with pytest.raises(type(error)) as told:
        trace(do(runs_out), [picture()])
    assert told.value is error


def test_the_network_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.ReLU())).train()
    network[1].eval()
    network[2][0].eval()
    calls = []
    network[0].register_forward_hook(lambda *given: calls.append(1))
    network[1].weight.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    attributes = [set(vars(module)) for module in network.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
    analyze(network, 16)
    assert [module.training for module in network.modules()] == modes
    assert [set(vars(module)) for module in network.modules()] == attributes
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()] == hooks
    assert not network[1].weight.requires_grad
    assert network[0].weight.requires_grad
    assert network[0].weight.grad is None
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert torch.is_grad_enabled()


class Remembers(nn.Module):
    """Works out a table from its parameters once, and drops it when its mode is set, as attention of timm does."""

    def __init__(self):
        super().__init__()
        self.bias, self.table = nn.Parameter(torch.randn(3)), {}

    def train(self, mode=True):
        super().train(mode)
        self.table = {}

    def forward(self, x):
        if "here" not in self.table:
            self.table["here"] = self.bias[torch.tensor([2, 1, 0])].view(3, 1, 1)
        return x + self.table["here"]


@pytest.mark.parametrize("before", ["never run", "run before"])
def test_a_parameter_behind_what_a_network_remembers_is_used(before):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Remembers()).eval()
    if before == "run before":
        network(picture())
    table = dict(network[1].table)
    made = analyze(network, inputs=[picture()])
    assert made.parameters == 12 + 3
    assert not made.unused
    assert network[1].table.keys() == table.keys()


class Late(nn.Module):
    """Makes a layer in its first run, or works out a number that no graph can hold."""

    def __init__(self, what):
        super().__init__()
        self.what, self.a, self.made = what, nn.Conv2d(3, 3, 1), None

    def forward(self, x):
        if self.made is None:
            self.made = nn.Conv2d(3, 3, 3) if self.what == "layer" else int(torch.tensor(5.0).sqrt().item())
        return self.made(self.a(x)) if self.what == "layer" else self.a(x)[..., : self.made]


def test_a_layer_that_is_made_in_the_first_run_is_made():
    network = Late("layer")
    made = analyze(network, 8)
    assert [layer.kind for layer in made.layers] == ["Conv2d", "Conv2d"]
    assert (made.parameters, made.unused) == (12 + 84, {})


def test_a_number_that_is_worked_out_in_the_first_run_is_worked_out_in_a_copy():
    network = Late("number")
    assert trace(network, [picture()]).operations()[-1].args[-1] == 2
    assert network.made is None


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x):
        self.runs += 1
        return self.a(x) * self.runs


def test_numbers_that_a_network_counts_up_stay():
    network = Counts()
    analyze(network, 8, time=True)
    assert float(network.runs) == 0


class NoCopy(nn.Sequential):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of me")


def test_a_network_that_cannot_be_copied_runs_itself():
    network = NoCopy(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    assert analyze(network, 8).macs == 36 * 108
    assert all(module.training for module in network.modules())


@functools.cache
def ramp(length):
    return torch.arange(float(length))


def test_tables_that_all_networks_share_keep_their_numbers():
    network = do(lambda s, x: x * ramp(x.shape[-1]))
    trace(network, [picture()])
    assert ramp(8).tolist() == list(range(8))
    torch.testing.assert_close(network(picture()), picture() * torch.arange(8.0))


def test_lazy_layers_take_their_shapes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d())
    assert analyze(network, 8).parameters == 4 * 28 + 5 * 37 + 10
    assert network[1].weight.shape == (5, 4, 3, 3)


def test_unused_and_tied_parameters_are_found_by_what_they_are():
    network = do(lambda s, x: s.b(s.a(x)), **convolutions("a", "b", "c"))
    network.b.weight = network.a.weight
    recorded = trace(network, [picture()])
    assert recorded.unused == ("c.weight", "c.bias")
    assert sum(value.numel() for value in {id(v): v for _, v in recorded.parameters.values()}.values()) == 81 + 3 + 3


def test_the_operation_of_a_node_is_named_with_its_space():
    recorded = trace(do(lambda s, x: torch.split(x, 1, 1)[0] + 1), [picture()])
    assert [operation(node) for node in recorded.operations() if node.users][-1] == "add"
    assert "getitem" in [operation(node) for node in recorded.operations()]
