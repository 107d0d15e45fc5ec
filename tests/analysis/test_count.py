"""MACs and FLOPs of every kind of operation, against counts made another way: formulas, and loops over places."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from networks import Does
from torch import nn
from torch.nn import functional as F

from foveal.analysis.analysis_text import totals
from foveal.analysis.analyze import analyze
from foveal.analysis.count import cost_of
from foveal.analysis.trace import operation, trace

torchvision = pytest.importorskip("torchvision")


def found(network, *shapes):
    return analyze(network, inputs=[torch.zeros(shape) if isinstance(shape, tuple) else shape for shape in shapes])


def macs(network, *shapes):
    made = found(network, *shapes)
    assert not made.uncounted
    return made.macs


@pytest.fixture(scope="module")
def costs():
    """(MACs, FLOPs, what is uncounted) of each network of the tables, from one trace of all of them side by side."""
    rows = [row for table in (CONVOLUTIONS, TRANSPOSED, PRODUCTS, SIMPLE) for row in table.values()]
    networks = nn.ModuleList([network for network, *_ in rows])
    inputs = [[torch.zeros(shape) for shape in shapes] for _, shapes, *_ in rows]
    run = do(lambda self, given: [one(*its) for one, its in zip(self.networks, given, strict=True)], networks=networks)
    made = analyze(run, inputs=[inputs])

    def cost(at):
        own = [layer for layer in made.layers if f"{layer.name}.".startswith(f"networks.{at}.")]
        unknown = [said for said in made.uncounted if said.startswith((f"networks.{at}.", f"networks.{at}:"))]
        return sum(layer.macs for layer in own), sum(layer.flops for layer in own), unknown

    return {network: cost(at) for at, network in enumerate(networks)}


def loops(x, out, kernel, groups):
    """Products of a convolution, one place after the other: each that comes out takes one channel group's kernel."""
    many = 0
    for _ in range(x[0]):
        for _ in range(out[1]):
            for _ in itertools.product(*(range(side) for side in out[2:])):
                many += (x[1] // groups) * math.prod(kernel)
    return many


CONVOLUTIONS = {
    "1d": (nn.Conv1d(3, 4, 5, 2, 1), [(2, 3, 17)]),
    "2d": (nn.Conv2d(3, 4, 3, 2, 1), [(2, 3, 9, 8)]),
    "3d": (nn.Conv3d(2, 3, (1, 2, 3), padding=1), [(1, 2, 4, 5, 6)]),
    "1x1": (nn.Conv2d(6, 4, 1), [(1, 6, 5, 5)]),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), [(1, 6, 7, 7)]),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), [(1, 6, 7, 7)]),
    "depthwise with a multiplier": (nn.Conv2d(4, 8, 3, groups=4), [(1, 4, 7, 7)]),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2), [(1, 3, 9, 9)]),
    "same padding": (nn.Conv2d(3, 4, 4, padding="same", dilation=2), [(1, 3, 9, 9)]),
    "padding that reflects": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), [(1, 3, 9, 9)]),
    "unbatched": (nn.Conv2d(3, 4, 3), [(3, 9, 9)]),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, costs):
    network, (shape,) = CONVOLUTIONS[name]
    out = network(torch.zeros(shape)).shape
    batched = shape if len(shape) == len(network.weight.shape) else (1, *shape)
    many = loops(batched, tuple(out) if len(shape) == len(batched) else (1, *out), network.kernel_size, network.groups)
    assert costs[network] == (many, 2 * many, [])


TRANSPOSED = {
    "1d": (nn.ConvTranspose1d(3, 4, 5, 2), [(2, 3, 6)]),
    "2d": (nn.ConvTranspose2d(3, 4, 3, 2, 1), [(2, 3, 5, 4)]),
    "3d": (nn.ConvTranspose3d(2, 3, 2, 2), [(1, 2, 3, 4, 5)]),
    "with output padding": (nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), [(1, 3, 5, 4)]),
    "grouped": (nn.ConvTranspose2d(6, 4, 4, 2, 1, groups=2), [(1, 6, 5, 5)]),
    "depthwise, dilated": (nn.ConvTranspose2d(6, 6, 3, 3, groups=6, dilation=2), [(1, 6, 5, 5)]),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions_spread_every_number_that_they_take(name, costs):
    network, (shape,) = TRANSPOSED[name]
    many = math.prod(shape) * (network.out_channels // network.groups) * math.prod(network.kernel_size)
    assert costs[network] == (many, 2 * many, [])


class Functional(nn.Module):
    """No layer at all: weights and functions."""

    def __init__(self):
        super().__init__()
        self.weight, self.up = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4, 5, 2, 2))
        self.head, self.mix = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6, 7))

    def forward(self, x):
        x = F.conv2d(x, self.weight, padding=1)
        x = F.conv_transpose2d(x, self.up, stride=2).mean((2, 3))
        return torch.einsum("bi,ij->bj", F.linear(x, self.head), self.mix) @ self.mix.t()


def do(function, **held):
    return Does(lambda self, *given: function(self, *given), **held)


PRODUCTS = {
    "linear": (nn.Linear(5, 7), [(3, 4, 5)], 3 * 4 * 5 * 7),
    "linear without batch": (nn.Linear(5, 7, bias=False), [(5,)], 5 * 7),
    "matmul": (do(lambda s, a, b: a @ b), [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    "matmul that broadcasts": (do(lambda s, a, b: a @ b), [(2, 1, 3, 4), (6, 4, 5)], 2 * 6 * 3 * 4 * 5),
    "matrix and vector": (do(lambda s, a, b: a @ b), [(3, 4), (4,)], 3 * 4),
    "vector and matrix": (do(lambda s, a, b: a @ b), [(4,), (2, 4, 5)], 2 * 4 * 5),
    "two vectors": (do(lambda s, a, b: a.dot(b)), [(4,), (4,)], 4),
    "inner": (do(lambda s, a, b: torch.inner(a, b)), [(3, 4), (5, 4)], 3 * 4 * 5),
    "bmm": (do(lambda s, a, b: torch.bmm(a, b)), [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    "addmm": (do(lambda s, c, a, b: torch.addmm(c, a, b)), [(3, 5), (3, 4), (4, 5)], 3 * 4 * 5),
    "baddbmm": (do(lambda s, c, a, b: torch.baddbmm(c, a, b)), [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    "addbmm": (do(lambda s, c, a, b: torch.addbmm(c, a, b)), [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    "tensordot": (do(lambda s, a, b: torch.tensordot(a, b, 2)), [(2, 3, 4), (3, 4, 5)], 2 * 3 * 4 * 5),
    "einsum": (do(lambda s, a, b: torch.einsum("bnc,bmc->bnm", a, b)), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
    "einsum with dots": (
        do(lambda s, a, b: torch.einsum("...ij,...jk->...ik", a, b)),
        [(6, 1, 2, 3), (5, 3, 4)],
        6 * 5 * 2 * 3 * 4,
    ),
    "einsum without an arrow": (do(lambda s, a, b: torch.einsum("ij,jk", a, b)), [(2, 3), (3, 4)], 2 * 3 * 4),
    "einsum of three, from the left": (
        do(lambda s, a, b, c: torch.einsum("ij,jk,kl->il", a, b, c)),
        [(3, 4), (4, 5), (5, 6)],
        3 * 4 * 5 + 3 * 5 * 6,
    ),
    "einsum of one": (do(lambda s, a: torch.einsum("ii->i", a)), [(4, 4)], 0),
    "attention": (
        do(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v)),
        [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)],
        2 * 3 * 5 * 7 * (8 + 8),
    ),
    "attention, values of another width": (
        do(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v)),
        [(2, 5, 8), (2, 7, 8), (2, 7, 6)],
        2 * 5 * 7 * (8 + 6),
    ),
    "attention, grouped queries": (
        do(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
        [(1, 6, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)],
        6 * 5 * 7 * (8 + 8),
    ),
    "multi-head attention of itself": (
        do(lambda s, x: s.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)),
        [(3, 5, 8)],
        3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8),
    ),
    "multi-head attention of something else": (
        do(lambda s, x, y, z: s.a(x, y, z), a=nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)),
        [(3, 5, 8), (3, 7, 6), (3, 7, 4)],
        3 * (5 * 8 * 8 + 7 * 6 * 8 + 7 * 4 * 8 + 2 * 5 * 7 * 8 + 5 * 8 * 8),
    ),
    "bilinear form": (nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)], 2 * 5 * (3 * 4 + 3)),
    "LSTM": (nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True), [(2, 3, 4)], 2 * 3 * 2 * 4 * 5 * (4 + 5 + 10 + 5)),
    "LSTM with a projection": (nn.LSTM(4, 5, proj_size=3), [(3, 2, 4)], 6 * (4 * 5 * (4 + 3) + 5 * 3)),
    "GRU": (nn.GRU(4, 5), [(3, 2, 4)], 3 * 2 * 3 * 5 * (4 + 5)),
    "GRU without batch": (nn.GRU(4, 5), [(3, 4)], 3 * 3 * 5 * (4 + 5)),
    "recurrent, tanh": (nn.RNN(4, 5), [(3, 2, 4)], 3 * 2 * 5 * (4 + 5)),
    "LSTM cell": (nn.LSTMCell(4, 5), [(2, 4)], 2 * 4 * 5 * (4 + 5)),
    "functions alone": (
        Functional(),
        [(2, 3, 6, 6)],
        2 * 4 * 36 * 27 + 2 * 4 * 36 * 5 * 4 + 2 * 5 * 6 + 2 * 6 * 7 + 2 * 7 * 6,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, costs):
    network, _, many = PRODUCTS[name]
    made, _, uncounted = costs[network]
    assert (made, uncounted) == (many, [])


@pytest.mark.parametrize("layout", ["batch first", "sequence first"])
@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_layer_in_evaluation_is_not_one_closed_step(training, layout):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=layout == "batch first").train(training)
    tokens, batch, width = 5, 3, 8
    shape = (batch, tokens, width) if layout == "batch first" else (tokens, batch, width)
    many = batch * (4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * 16)
    assert macs(layer, shape) == many
    assert layer.training == training
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_decoder_attends_to_itself_and_to_memory():
    layer, width, many, memory = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 8, 5, 7
    own = 4 * many * width**2 + 2 * many**2 * width
    cross = 2 * many * width**2 + 2 * memory * width**2 + 2 * many * memory * width
    assert macs(layer, (1, many, width), (1, memory, width)) == own + cross + 2 * many * width * 16


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolutions(modulated):
    convolution = nn.Conv2d(4, 6, 3, bias=False)

    def run(self, x, offset, mask):
        return torchvision.ops.deform_conv2d(x, offset, self.c.weight, padding=1, mask=mask if modulated else None)

    places, taps = 8 * 8, 9
    made = found(do(run, c=convolution), (1, 4, 8, 8), (1, 2 * taps, 8, 8), (1, taps, 8, 8))
    assert made.macs == places * 6 * 4 * taps
    # Each tap of each channel: 4 products and 3 sums, with a mask one product more; a place and 4 weights for a tap.
    assert made.flops == 2 * made.macs + places * 4 * taps * (7 + modulated) + 16 * places * taps
    assert not made.uncounted


def test_a_deformable_block_counts_its_offsets():
    block = nn.ModuleDict(
        {"offset": nn.Conv2d(4, 18, 3, padding=1), "conv": torchvision.ops.DeformConv2d(4, 6, 3, padding=1)}
    )
    made = macs(do(lambda s, x: s.b["conv"](x, s.b["offset"](x)), b=block), (2, 4, 8, 8))
    assert made == 2 * 64 * (4 * 18 * 9 + 4 * 6 * 9)


SIMPLE = {
    "max pool": (nn.MaxPool2d(3, 2, 1), [(2, 3, 8, 8)], 2 * 3 * 16 * 9),
    "max pool with places": (nn.MaxPool2d(3, 2, 1, return_indices=True), [(2, 3, 8, 8)], 2 * 3 * 16 * 9),
    "average pool": (nn.AvgPool2d((2, 3)), [(1, 3, 8, 9)], 3 * 4 * 3 * 6),
    "average pool, 1d": (nn.AvgPool1d(4), [(1, 3, 8)], 3 * 2 * 4),
    "average pool, 3d": (nn.AvgPool3d(2), [(1, 3, 4, 4, 4)], 3 * 8 * 8),
    "max pool, 3d": (nn.MaxPool3d(2, return_indices=True), [(1, 3, 4, 4, 4)], 3 * 8 * 8),
    "global pool": (nn.AdaptiveAvgPool2d(1), [(1, 3, 8, 8)], 3 * 64),
    "adaptive pool": (nn.AdaptiveMaxPool2d(2), [(1, 3, 8, 8)], 3 * 64),
    "adaptive pool, 3d": (nn.AdaptiveAvgPool3d(1), [(1, 3, 4, 4, 4)], 3 * 64),
    "mean": (do(lambda s, x: x.mean((2, 3))), [(1, 3, 8, 8)], 3 * 64),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), [(1, 3, 4, 4)], 3 * 64 * 7),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), [(1, 3, 4, 4)], 3 * 64 * 31),
    "trilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), [(1, 3, 2, 2, 2)], 3 * 64 * 15),
    "nearest": (nn.Upsample(scale_factor=2), [(1, 3, 4, 4)], 0),
    "pixel shuffle": (nn.PixelShuffle(2), [(1, 4, 4, 4)], 0),
    "batch norm": (nn.BatchNorm2d(3), [(1, 3, 8, 8)], 2 * 3 * 64),
    "layer norm": (nn.LayerNorm(8), [(1, 3, 8)], 7 * 24),
    "group norm": (nn.GroupNorm(2, 4), [(1, 4, 8, 8)], 7 * 256),
    "instance norm": (nn.InstanceNorm2d(4), [(1, 4, 8, 8)], 7 * 256),
    "instance norm, kept statistics": (nn.InstanceNorm2d(4, track_running_stats=True), [(1, 4, 8, 8)], 2 * 256),
    "relu": (nn.ReLU(inplace=True), [(1, 3, 8)], 24),
    "gelu": (nn.GELU(), [(1, 3, 8)], 5 * 24),
    "softmax": (nn.Softmax(1), [(1, 3, 8)], 5 * 24),
    "broadcast": (do(lambda s, x: x * x[:, :, :1]), [(1, 3, 8)], 24),
    "larger of two": (do(lambda s, x: torch.max(x, x + 1)), [(1, 3, 8)], 24 + 24),
    "folded patches": (do(lambda s, x: F.fold(F.unfold(x, 2), (4, 4), 2)), [(1, 3, 4, 4)], 3 * 4 * 9),
    "dropout in evaluation": (nn.Dropout(0.5), [(1, 3, 8)], 0),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_arithmetic_that_is_no_product(name, costs):
    network, _, flops = SIMPLE[name]
    assert costs[network] == (0, flops, [])


@pytest.mark.parametrize(("mode", "taps"), [("bilinear", 4), ("nearest", 0), ("bicubic", 16)])
def test_sampling_at_places(mode, taps):
    network = do(lambda s, x, at: F.grid_sample(x, at, mode=mode, align_corners=False))
    flops = 5 * 6 * (3 * (2 * taps - 1) + 4 * taps) if taps else 0
    made = found(network, (1, 3, 8, 8), (1, 5, 6, 2))
    assert (made.macs, made.flops, made.uncounted) == (0, flops, ())


def test_sampling_of_volumes_has_eight_taps():
    network = do(lambda s, x, at: F.grid_sample(x, at, align_corners=False))
    assert found(network, (1, 2, 4, 4, 4), (1, 3, 3, 3, 3)).flops == 27 * (2 * 15 + 4 * 8)


VIEWS = {
    "view": lambda s, x: x.view(2, -1),
    "permute": lambda s, x: x.permute(0, 2, 3, 1),
    "flatten": lambda s, x: x.flatten(1),
    "split": lambda s, x: x.split(2, 1),
    "chunk and unbind": lambda s, x: x.chunk(2, 1)[0].unbind(0),
    "slice": lambda s, x: x[:, 1:, ::2, None],
    "expand": lambda s, x: x[:1].expand(4, -1, -1, -1),
    "windows": lambda s, x: x.unfold(2, 2, 1),
    "same type": lambda s, x: x.float().contiguous(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_cost_nothing_and_need_no_memory(name):
    made = found(do(VIEWS[name]), (2, 4, 6, 6))
    assert (made.macs, made.flops, made.activation_bytes, made.layers) == (0, 0, 0, ())
    assert made.peak_bytes == 4 * 2 * 4 * 36


def test_a_copy_is_memory_and_no_arithmetic():
    made = found(do(lambda s, x: x.permute(0, 2, 3, 1).contiguous()), (2, 4, 6, 6))
    assert (made.macs, made.flops, made.activation_bytes) == (0, 0, 4 * 2 * 4 * 36)
    assert [layer.moved_bytes for layer in made.layers] == [2 * 4 * 2 * 4 * 36]


def test_a_module_that_is_called_twice_costs_twice_and_has_its_parameters_once():
    network = do(lambda s, x: s.c(s.c(x)) + s.c(x), c=nn.Conv2d(3, 3, 3, padding=1))
    made = found(network, (1, 3, 8, 8))
    assert made.macs == 3 * 64 * 81
    assert made.parameters == sum(layer.parameters for layer in made.layers) == 84


def test_tied_parameters_count_once():
    first, second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    second.weight = first.weight
    made = found(nn.Sequential(first, nn.Tanh(), second), (2, 5))
    assert (made.macs, made.parameters, made.unused) == (2 * 2 * 25, 25, {})


def test_a_parameter_that_reaches_its_use_through_views_counts():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 5))

        def forward(self):
            return self.weight.t().unsqueeze(0)

    network = do(lambda s, x: s.act(x) @ s.turned(), turned=Turned(), act=nn.ReLU())
    made = found(do(lambda s, x: s.inner(x), inner=network), (4, 2, 5))
    assert made.parameters == sum(layer.parameters for layer in made.layers) == 15


def test_unused_parameters_are_listed_apart():
    network = do(lambda s, x: s.a(x), a=nn.Linear(3, 4), b=nn.Linear(5, 6))
    made = found(network, (1, 3))
    assert made.parameters == 16
    assert made.unused == {"b.weight": 30, "b.bias": 6}


@torch.library.custom_op("foveal_test::thing", mutates_args=())
def thing(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


thing.register_fake(lambda x: torch.empty_like(x))

UNKNOWN = {
    "a Fourier transform": (lambda s, x: torch.fft.rfft2(x).abs(), "fft_rfft2"),
    "an operation of somebody's own": (lambda s, x: thing(x) + 1, "foveal_test.thing"),
    "boxes of regions": (
        lambda s, x: torchvision.ops.roi_align(x, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2),
        "torchvision.roi_align",
    ),
    "distances": (lambda s, x: torch.cdist(x, x), "cdist"),
    "a choice that is part of the graph": (
        lambda s, x: torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,)),
        "higher_order.cond",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nobody_knows_is_listed(name):
    run, says = UNKNOWN[name]
    made = found(do(lambda s, x: s.c(run(s, x)), c=nn.Conv2d(3, 3, 1)), (1, 3, 8, 8))
    assert made.uncounted == (f"the network: {says}",)
    assert made.macs > 0
    assert any("not counted" in line and says in line for line in totals(made))


def test_nothing_in_blocks_without_gradients_or_of_another_precision_is_dropped():
    def run(self, x):
        with torch.no_grad():
            x = self.a(x)
            with torch.enable_grad():
                x = self.b(x)
        with torch.autocast("cpu", torch.bfloat16):
            x = self.c(x).relu()
        with torch.inference_mode():
            return self.d(x.float())

    convolutions = {name: nn.Conv2d(3, 3, 3, padding=1) for name in "abcd"}
    made = found(do(run, **convolutions), (1, 3, 8, 8))
    assert made.macs == 4 * 64 * 81
    assert made.parameters == 4 * 84
    assert not made.uncounted
    assert [layer.name for layer in made.layers if layer.macs] == list("abcd")
    assert all(layer.field is not None for layer in made.layers)
    assert [layer.field.size for layer in made.layers if layer.macs] == [(3, 3), (5, 5), (7, 7), (9, 9)]


def test_weights_that_are_made_from_others_count_with_what_makes_them():
    network = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, bias=False))
    made = found(network, (1, 3, 8, 8))
    assert made.macs == 36 * 4 * 27
    assert not made.uncounted
    assert made.parameters == 4 * 27 + 4


PUBLISHED = [
    "alexnet",
    "vgg16",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mnasnet1_0",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "maxvit_t",
]
LIGHT = ("alexnet", "resnet18", "squeezenet1_1", "mobilenet_v2")


@pytest.mark.parametrize(
    "name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.full) for name in PUBLISHED]
)
def test_totals_of_torchvision_are_the_published_ones(name):
    """Published are G-MACs of three decimals: half a thousandth of one is allowed where that is more than 0.5 %.

    Both Inceptions have auxiliary heads, which evaluation does not use: they count in one's published parameters alone.
    """
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    side = weights.transforms.keywords["crop_size"]
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # a RegNet works out its widths with tensors
        made = analyze(torchvision.models.get_model(name, **options), side)
    published = weights.meta["_ops"]
    assert abs(made.macs / 1e9 - published) <= max(0.005 * published, 0.0005)
    auxiliary = sum(made.unused.values())
    assert made.parameters + auxiliary * (name == "inception_v3") == weights.meta["num_params"]
    assert bool(auxiliary) == (name in ("googlenet", "inception_v3"))
    assert not made.uncounted


def test_every_operation_of_these_tests_has_one_cost():
    """Nothing is in two tables that would count it in unlike ways."""
    from foveal.analysis.count import RULES
    from foveal.analysis.operation_kinds import EACH, MOVES, REDUCING, VIEWS

    tables = [set(EACH), set(REDUCING), MOVES, VIEWS, set(RULES)]
    for one, other in itertools.combinations(tables, 2):
        assert not one & other


def test_costs_of_single_operations_say_whether_they_are_known():
    recorded = trace(do(lambda s, x: torch.fft.fft(x.relu())), [torch.zeros(4)])
    costs = {operation(node): cost_of(node) for node in recorded.operations()}
    assert costs["relu"].known
    assert not costs["fft_fft"].known
