"""Totals, layers, memory and what an analysis says of unusual networks."""

from __future__ import annotations

import io
import json

import pytest
import torch
from networks import Does
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from foveal.analysis.analysis_text import analysis_table, totals
from foveal.analysis.analyze import analyze
from foveal.analysis.chain_field import ChainStep, chain_fields
from foveal.analysis.count import is_view, moved_bytes
from foveal.analysis.example_inputs import example_picture
from foveal.analysis.layer_table import layer_table
from foveal.analysis.report import Report
from foveal.analysis.trace import operation, trace


def do(function, **held):
    return Does(lambda self, *given: function(self, *given), **held)


def chain():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))


def test_layers_and_totals_of_a_chain():
    made = analyze(chain(), 8)
    first, second, third = made.layers
    assert [(layer.name, layer.kind) for layer in made.layers] == [("0", "Conv2d"), ("1", "ReLU"), ("2", "Conv2d")]
    assert (first.input, first.output, third.output) == ((1, 3, 8, 8), (1, 4, 8, 8), (1, 8, 4, 4))
    assert [layer.parameters for layer in made.layers] == [16, 0, 8 * 37]
    assert [layer.macs for layer in made.layers] == [64 * 12, 0, 16 * 8 * 36]
    assert [layer.flops for layer in made.layers] == [2 * 64 * 12, 256, 2 * 16 * 8 * 36]
    assert [layer.activation_bytes for layer in made.layers] == [1024, 1024, 512]
    assert [layer.moved_bytes for layer in made.layers] == [768 + 1024 + 64, 2048, 1024 + 512 + 4 * 8 * 37]
    assert second.intensity == 256 / 2048
    assert (made.macs, made.parameters) == (64 * 12 + 16 * 8 * 36, 16 + 8 * 37)
    assert made.network == "Sequential"
    assert made.picture == (1, 3, 8, 8)


MOVED = {
    # What is written; then the numbers that are read, in bytes.
    "rows of a table": (lambda s, x: F.embedding(torch.tensor([3, 3, 7, 1]), s.table), 4 * 6, 4 * 6 + 2 * 4),
    "rows of a table, by an index": (lambda s, x: s.table[torch.tensor([3, 3, 7, 1])], 4 * 6, 4 * 6 + 2 * 4),
    "more rows than the table has": (lambda s, x: s.few.index_select(0, s.many), 90 * 2, 2 * 2 + 2 * 90),
    "numbers of a table": (lambda s, x: s.table.gather(0, s.spots), 6, 6 + 2 * 6),
    "spread over a shape": (lambda s, x: x * s.gain.expand(1, 3, 8, 8), 192, 192 + 3),
    "a part of a parameter": (lambda s, x: x * s.table[5:8, 2].view(3, 1, 1), 192, 192 + 3),
    "a shape alone": (lambda s, x: torch.zeros_like(x), 192, 0),
}


@pytest.mark.parametrize("name", MOVED)
def test_bytes_that_are_moved_are_those_that_are_touched(name):
    function, written, read = MOVED[name]
    network = do(
        lambda s, x: function(s, x),
        table=nn.Parameter(torch.zeros(50_000, 6)),
        few=nn.Parameter(torch.zeros(2, 2)),
        gain=nn.Parameter(torch.zeros(1, 3, 1, 1)),
        many=nn.Buffer(torch.zeros(90, dtype=torch.long)),
        spots=nn.Buffer(torch.zeros(1, 6, dtype=torch.long)),
    )
    recorded = trace(network, [torch.zeros(1, 3, 8, 8)])
    (node,) = [node for node in recorded.operations() if not is_view(node) and operation(node) not in ("clone", "copy")]
    assert moved_bytes(node) == 4 * (written + read)


def test_the_input_of_a_layer_comes_from_the_picture_and_is_no_table():
    network = do(
        lambda s, x: s.e(torch.arange(3)).sum() + s.inner(x),
        e=nn.Embedding(10, 4),
        inner=do(
            lambda s, x: (s.t[0].sum() + s.u.exp()) * x,
            t=nn.Parameter(torch.ones(2, 5)),
            u=nn.Buffer(torch.ones(7, 1, 1, 1)),
        ),
    )
    inputs = {layer.name: layer.input for layer in analyze(network, 8).layers}
    assert inputs["inner"] == (1, 3, 8, 8)
    assert inputs["e"] == (3,)


def test_what_depends_on_no_pixel_is_told_apart_from_what_nobody_knows():
    network = do(
        lambda s, x: s.table(s.w) + torch.fft.fft2(s.a(x)).abs(),
        a=nn.Conv2d(3, 4, 3),
        w=nn.Parameter(torch.ones(6, 6)),
        table=nn.Linear(6, 6),
    )
    made = analyze(network, 8)
    layers = {layer.name: layer for layer in made.layers}
    assert [(layers[name].blind, layers[name].field is None) for name in ("table", "a", "")] == [
        (True, True),
        (False, False),
        (False, True),
    ]
    assert [row["blind"] for row in Report(made).rows()] == [layer.blind for layer in made.layers]
    assert json.loads(json.dumps(made.as_dict()))["layers"][0]["blind"] is layers[made.layers[0].name].blind
    console = Console(width=160, file=io.StringIO())
    console.print(analysis_table(made))
    rows = {line.split()[0]: line.split()[-1] for line in console.file.getvalue().splitlines() if line.strip()}
    assert (rows["table"], rows["(network)"]) == ("-", "?")
    page = layer_table(made)
    assert ">none</td>" in page
    assert ">?</td>" in page


def test_zeros_of_the_shape_of_a_map_depend_on_no_pixel():
    made = analyze(do(lambda s, x: (s.n(torch.zeros_like(x)), x + 1), n=nn.Tanh()), 8)
    assert {layer.name: (layer.blind, layer.field is None) for layer in made.layers}["n"] == (True, True)


def test_a_film_is_counted_and_has_no_fields_that_are_known():
    made = analyze(nn.Conv3d(3, 2, 3), inputs=[torch.zeros(1, 3, 4, 8, 8)])
    assert made.macs == 2 * 36 * 2 * 81
    assert [(layer.field, layer.blind) for layer in made.layers] == [(None, False)]


def test_fields_of_a_chain():
    first, _, third = analyze(chain(), 8).layers
    assert (first.field.size, first.field.jump, first.field.start, first.field.padded) == (
        (1, 1),
        (1, 1),
        (0.5, 0.5),
        0,
    )
    assert (third.field.size, third.field.jump, third.field.start) == ((3, 3), (2, 2), (0.5, 0.5))
    assert third.field.padded == 7 / 16  # the first row and column reach out
    assert not third.field.whole


def test_the_start_is_the_one_that_the_recurrence_of_chains_gives():
    layers = analyze(nn.Sequential(nn.Conv2d(3, 2, 7, 2), nn.Conv2d(2, 2, 3, 2, 1)), 64).layers
    wanted = chain_fields([ChainStep(7, 2), ChainStep(3, 2, 1)], 64)
    assert [layer.field.start for layer in layers] == [(found.start, found.start) for found in wanted]


def test_fields_of_uneven_steps():
    (layer,) = analyze(nn.Conv2d(3, 4, (2, 5), (3, 1), (0, 2)), (9, 12)).layers
    assert (layer.field.size, layer.field.jump, layer.field.start) == ((2, 5), (3, 1), (1, 0.5))


def test_a_field_is_whole_after_attention_or_a_global_pool_and_not_before():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert [layer.field.whole for layer in analyze(network, 16).layers] == [False, True, True]
    gated = do(
        lambda s, x: s.b((y := s.a(x)) * y.mean((2, 3), keepdim=True)), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 4, 3)
    )
    assert [layer.field.whole for layer in analyze(gated, 16).layers if layer.name] == [False, True]


def test_a_field_that_is_as_large_as_the_picture_is_not_yet_whole():
    """It is by its kernel's size, and in a larger picture it would not be."""
    (layer,) = analyze(nn.Conv2d(3, 4, 33, padding=16), 16).layers
    assert not layer.field.whole


def test_windows_of_a_picture_are_not_the_whole_of_it():
    def windows(self, x):
        tokens = x.unflatten(3, (4, 4)).unflatten(2, (4, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 4)
        mixed = torch.softmax(tokens @ tokens.transpose(1, 2), 2) @ tokens
        back = mixed.view(-1, 4, 4, 4, 4, 4).permute(0, 5, 1, 3, 2, 4).reshape(-1, 4, 16, 16)
        return self.b(back)

    made = analyze(nn.Sequential(nn.Conv2d(3, 4, 1), do(windows, b=nn.Conv2d(4, 4, 1))), 16)
    assert made.layers[-1].field.size == (4, 4)
    assert not made.layers[-1].field.whole


def test_the_start_is_that_of_all_channels():
    network = do(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 2, 5, padding=2))
    last = analyze(network, 9).layers[-1]
    assert (last.field.size, last.field.start, last.field.padded) == ((5, 5), (0.5, 0.5), pytest.approx(1 - 25 / 81))


def test_fields_of_channels_last_maps_are_those_of_their_places():
    made = analyze(do(lambda s, x: s.n(s.a(x).permute(0, 2, 3, 1)), a=nn.Conv2d(3, 4, 3), n=nn.LayerNorm(4)), (16, 20))
    assert made.layers[-1].field.size == (3, 3)


PEAKS = {
    # The picture stays; a map is freed after what takes it last. 4 bytes for a number.
    "chain": (chain(), 768 + max(1024 + 1024, 1024 + 512)),
    "residual": (do(lambda s, x: x + s.b(s.a(x)), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 3, 1)), 768 + 2048 + 768),
    "kept for later": (
        do(lambda s, x: torch.cat([y := s.a(x), s.b(s.b(y))], 1), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)),
        768 + max(3 * 1024, 2 * 1024 + 2048),
    ),
    "views hold what they show": (
        do(
            lambda s, x: s.c((y := s.a(x)).flatten(2)) + s.b(y).flatten(2),
            a=nn.Conv2d(3, 4, 1),
            b=nn.Conv2d(4, 4, 1),
            c=nn.Tanh(),
        ),
        768 + 3 * 1024,
    ),
    "returned are held": (
        do(lambda s, x: [y := s.a(x), z := s.b(y), s.b(z)], a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)),
        768 + 3 * 1024,
    ),
    "views of the picture": (do(lambda s, x: s.a(x.permute(0, 1, 3, 2)), a=nn.Conv2d(3, 4, 1)), 768 + 1024),
    "half": (chain().half(), (768 + 2048) // 2),
    "double": (chain().double(), (768 + 2048) * 2),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_memory_is_that_of_a_count_by_hand(name):
    network, peak = PEAKS[name]
    assert analyze(network, 8).peak_bytes == peak


def test_a_batch_costs_its_size():
    one, four = (analyze(chain(), inputs=[torch.zeros(batch, 3, 8, 8)]) for batch in (1, 4))
    assert (four.macs, four.flops, four.activation_bytes) == (4 * one.macs, 4 * one.flops, 4 * one.activation_bytes)
    assert (four.parameters, four.peak_bytes) == (one.parameters, 4 * one.peak_bytes)
    assert [layer.field for layer in four.layers] == [layer.field for layer in one.layers]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_cost_the_same_in_other_bytes(dtype):
    usual, other = analyze(chain(), 8), analyze(chain().to(dtype), 8)
    assert (other.macs, other.flops) == (usual.macs, usual.flops)
    assert other.activation_bytes == usual.activation_bytes * dtype.itemsize // 4
    assert example_picture(chain().to(dtype), 8).dtype == dtype


def test_fields_are_of_the_first_of_several_inputs():
    network = do(lambda s, x, y: s.a(x) + s.b(y), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 4, 5, padding=1))
    made = analyze(network, inputs=[torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)])
    assert made.macs == 36 * (4 * 27 + 4 * 75)
    assert {layer.name: layer.field and layer.field.size for layer in made.layers} == {
        "a": (3, 3),
        "b": None,
        "": (3, 3),
    }
    assert made.peak_bytes == 2 * 768 + 3 * 36 * 4 * 4


def test_inputs_in_lists_and_dictionaries_and_numbers_are_taken():
    network = do(lambda s, x, more, times: s.a(x) * times + more["y"][0], a=nn.Conv2d(3, 3, 1))
    made = analyze(network, inputs=[torch.zeros(1, 3, 8, 8), {"y": [torch.zeros(1, 3, 8, 8)]}, 3], time=True)
    assert made.macs == 64 * 9
    assert all(layer.milliseconds is not None for layer in made.layers)


def test_tokens_have_no_fields_and_all_else():
    made = analyze(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 5)), inputs=[torch.zeros(2, 7, dtype=torch.long)])
    assert made.macs == 2 * 7 * 20
    assert made.parameters == 40 + 25
    assert [layer.field for layer in made.layers] == [None, None]


def test_what_is_returned_may_have_any_form():
    network = do(lambda s, x: {"maps": [s.a(x), (s.b(x), None)], "same": x}, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 5, 1))
    assert {layer.name: layer.macs for layer in analyze(network, 8).layers} == {"a": 36 * 108, "b": 64 * 15}


def test_a_network_that_computes_nothing_has_no_layers():
    made = analyze(nn.Identity(), 8)
    assert (made.macs, made.layers, made.peak_bytes) == (0, (), 768)


def test_a_layer_of_many_operations_is_told_by_them():
    network = do(lambda s, x: torch.relu(s.a(x)) + 1, a=nn.Conv2d(3, 4, 3))
    assert [(layer.name, layer.kind) for layer in analyze(network, 8).layers] == [("a", "Conv2d"), ("", "relu + add")]


def test_time_is_measured_where_it_is_asked_for():
    made = analyze(chain(), 8, time=True)
    assert all(layer.milliseconds > 0 for layer in made.layers)
    assert all(layer.milliseconds is None for layer in analyze(chain(), 8).layers)


def test_all_of_it_is_plain_enough_for_json():
    made = analyze(chain(), 8)
    said = json.loads(json.dumps(made.as_dict()))
    assert said["totals"]["macs"] == made.macs
    assert [layer["field"]["size"] for layer in said["layers"]] == [[1, 1], [1, 1], [3, 3]]
    assert said["layers"][0]["intensity"] == made.layers[0].intensity


def test_what_is_not_counted_stands_under_the_table():
    made = analyze(do(lambda s, x: torch.fft.rfft2(s.a(x)).abs(), a=nn.Conv2d(3, 4, 3)), 8)
    assert made.uncounted == ("the network: fft_rfft2",)
    assert any("fft_rfft2" in line for line in totals(made))
    assert made.layers[-1].field is None


@pytest.mark.parametrize("size", [0, (0, 3), (1, 2, 3), (-4, 4)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="expected a height and a width"):
        analyze(chain(), size)
