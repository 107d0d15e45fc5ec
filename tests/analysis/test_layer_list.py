"""Typed layer lists become the modules that they say, and the recurrences of a chain agree with what gradients show."""

import doctest

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import foveal.analysis.chain_field
import foveal.analysis.layer_list
from foveal.analysis.chain_field import ChainField, ChainStep, chain_fields
from foveal.analysis.layer_list import ALIASES, KINDS, parse_layers, read_layers

# ---- what a list says ----------------------------------------------------------------------------------------------


def test_a_convolution_has_every_option_that_was_typed():
    (conv,) = parse_layers("conv k7x5 s2x1 p3x2 d2 c128 g2", channels=6)
    typed = nn.Conv2d(6, 128, (7, 5), (2, 1), (3, 2), 2, 2)
    assert repr(conv) == repr(typed)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("conv k3", nn.Conv2d(3, 64, 3)),
        ("pointwise c8", nn.Conv2d(3, 8, 1)),
        ("depthwise k5 p same c6", nn.Conv2d(3, 6, 5, padding=2, groups=3)),
        ("transposed k4 s2 p1 op1 c8", nn.ConvTranspose2d(3, 8, 4, 2, 1, 1)),
        ("pool k3 s2 p1 d1", nn.MaxPool2d((3, 3), (2, 2), (1, 1), (1, 1))),
        ("pool k2", nn.MaxPool2d((2, 2), (2, 2), (0, 0), (1, 1))),
        ("avgpool k3x1 s1 p1x0", nn.AvgPool2d((3, 1), (1, 1), (1, 0))),
        ("global", nn.AdaptiveAvgPool2d(1)),
        ("globalmax", nn.AdaptiveMaxPool2d(1)),
        ("upsample 2", nn.Upsample(scale_factor=(2.0, 2.0))),
        ("global; flatten; linear 10", nn.Linear(3, 10)),
        ("norm", nn.BatchNorm2d(3)),
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("silu", nn.SiLU()),
        ("sigmoid", nn.Sigmoid()),
        ("tanh", nn.Tanh()),
    ],
)
def test_every_kind_makes_its_module(text, module):
    assert repr(parse_layers(text)[-1]) == repr(module)


def test_a_separable_layer_is_a_depthwise_and_a_pointwise_one():
    depthwise, pointwise = parse_layers("separable k3 s2 p1 c10", channels=4)[0]
    assert repr(depthwise) == repr(nn.Conv2d(4, 4, 3, 2, 1, groups=4))
    assert repr(pointwise) == repr(nn.Conv2d(4, 10, 1))


def test_every_alias_stands_for_a_kind_and_none_hides_one():
    assert set(ALIASES.values()) <= set(KINDS)
    assert not set(ALIASES) & set(KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "conv k5 s2 p1; pool k3 s1; conv k3",
        "CONV 5 s=2 p 1,maxpool 3 s1,conv2d k=3",
        "conv k5 s2 p1\npool 3 s1 -> conv 3",
    ],
)
def test_the_same_list_may_be_written_in_several_ways(text):
    assert repr(parse_layers(text)) == repr(parse_layers("conv k5 s2 p1; pool k3 s1 p0; conv k3 s1 p0 d1 g1 c64"))


def test_channels_are_3_then_64_then_as_before():
    text = "conv k3; pool k2; depthwise k3; conv k3 c32; separable k3; pointwise"
    assert [layer.out_channels for layer in read_layers(text)] == [64, 64, 64, 32, 32, 32]
    assert read_layers("depthwise k3; conv k3")[1].out_channels == 64
    assert read_layers("input c1; conv k3")[0].channels == 1
    assert parse_layers("input c5; norm; pool k2", channels=9)[0].num_features == 5


def test_modules_are_named_by_kind_and_number():
    network = parse_layers("conv k3; relu; pool k2; conv k3; relu; gap; linear 10")
    names = [name for name, _ in network.named_children()]
    assert names == ["conv1", "relu1", "pool1", "conv2", "relu2", "global1", "flatten1", "linear1"]


def test_linear_layers_know_what_goes_into_them():
    assert parse_layers("conv k3 c8; flatten; linear 5", size=(10, 12)).linear1.in_features == 8 * 8 * 10
    assert parse_layers("conv k3 c8; linear 5", size=(10, 12))(torch.rand(2, 3, 10, 12)).shape == (2, 5)
    assert parse_layers("conv k3 c8; global; pointwise c4; linear 5; relu; fc 3")(torch.rand(2, 3, 10, 12)).shape == (
        2,
        3,
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 3, 2), (4, 1, 1), (2, 1, 3), (7, 4, 1)]
)
@pytest.mark.parametrize("side", [12, 13, 31])
def test_same_padding_keeps_the_size_over_the_stride_rounded_up(kernel, stride, dilation, side):
    network = parse_layers(f"conv k{kernel} s{stride} d{dilation} p same c2")
    assert network(torch.rand(1, 3, side, side)).shape[-1] == -(-side // stride)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty", "example"]),
        (" ; ", ["empty"]),
        ("konv k3", ["layer 1, 'konv k3'", "'konv'", "did you mean 'conv'?"]),
        ("conv k3; zzz", ["layer 2, 'zzz'", "there are conv"]),
        ("conv", ["layer 1", "kernel missing", "conv k3"]),
        ("pool s2", ["layer 1", "kernel missing", "pool k3"]),
        ("conv k3 z1", ["layer 1", "'z1'", "s (stride)", "';' goes between"]),
        ("conv k3 relu", ["'relu'", "';' goes between"]),
        ("conv 3 5", ["'5'"]),
        ("conv k3 k5", ["'k' is given twice", "'k5'"]),
        ("conv k0", ["'k0'", "at least 1"]),
        ("conv k3x0", ["'k3x0'", "at least 1"]),
        ("conv k-3", ["'k-3'"]),
        ("conv k3 c3x3", ["'c3x3'", "a number"]),
        ("conv ksame", ["'ksame'", "a number"]),
        ("conv k99999999999", ["'k99999999999'"]),
        ("conv k3 g7", ["'g7'", "3 channels that go in", "no multiple of 7"]),
        ("conv k3 g3", ["'g3'", "64 channels that come out"]),
        ("depthwise k3 c7", ["'c7'", "no multiple of 3"]),
        ("depthwise k3 g2", ["takes no groups ('g2')"]),
        ("conv k3; pool k3 c8", ["layer 2", "takes no channels ('c8')"]),
        ("avgpool k3 d2", ["takes no dilation ('d2')"]),
        ("pool k3 p2", ["'p2'", "half of the kernel 'k3'"]),
        ("avgpool k3 p2", ["'p2'", "half of the kernel 'k3'"]),
        ("conv k2 s2 p same", ["'same'", "odd kernel"]),
        ("pool k2 p same", ["'same'", "odd kernel"]),
        ("transposed k3 s2 p same", ["'same'", "transposed"]),
        ("transposed k3 s2 op2", ["'op2'", "less than the stride"]),
        ("relu k3", ["takes no kernel ('k3')", "no options"]),
        ("conv k3; linear 10", ["layer 2, 'linear 10'", "'global' before it"]),
        ("global; linear", ["layer 2", "channels missing", "linear c3"]),
        ("global; linear 3; conv k3", ["layer 3, 'conv k3'", "no map left"]),
        ("input c0; conv k3", ["'c0'"]),
        ("input k3; conv k3", ["'k3'", "such as c1"]),
        ("conv k3; input c1", ["layer 2", "'input'"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_names_the_layer_and_the_word(text, words):
    with pytest.raises(ValueError, match="lay") as error:
        parse_layers(text)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_window_that_does_not_fit_is_refused_where_the_size_is_known():
    with pytest.raises(ValueError, match=r"layer 2, 'conv k9': its window does not fit into the map of 6 x 8 cells"):
        parse_layers("conv k3; conv k9", size=(8, 10))
    with pytest.raises(ValueError, match="channels is 0"):
        parse_layers("conv k3", channels=0)


# ---- the recurrences of a chain ------------------------------------------------------------------------------------


def test_the_textbook_chain_has_field_27_and_jump_4():
    last = chain_fields([ChainStep(7, 2), ChainStep(3, 2), ChainStep(3), ChainStep(3)], 224)[-1]
    assert (last.field, last.jump, last.start) == (27, 4, 13.5)


def test_200_pixels_end_as_97():
    steps = [layer.step(0) for layer in read_layers("conv 5 s2 p1; pool 3 s1 p0; conv 3 s1 p1")]
    assert [found.size for found in chain_fields(steps, 200)] == [99, 97, 97]


def read_pixels(network, side, cell):
    """First and last pixel of a row that one output cell depends on, by gradients."""
    picture = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    out = network(picture)
    (gradient,) = torch.autograd.grad(out[0, 0, out.shape[2] // 2, cell], picture)
    touched = gradient[0, 0].abs().sum(0).nonzero().flatten()
    return touched.min().item(), touched.max().item() + 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conv", "avgpool"]),
            st.integers(1, 5),
            st.integers(1, 3),
            st.integers(0, 2),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_sizes_and_fields_agree_with_what_gradients_show(layers):
    words = []
    for kind, kernel, stride, padding, dilation in layers:
        padding = min(padding, kernel // 2)
        words.append(f"{kind} k{kernel} s{stride} p{padding}" + (f" d{dilation} c1" if kind == "conv" else ""))
    text, side = "; ".join(words), 81
    steps = [layer.step(1) for layer in read_layers(text, channels=1)]
    fields = chain_fields(steps)
    assume(fields[-1].field <= side // 2)
    last = chain_fields(steps, side)[-1]
    network = parse_layers(text, channels=1).double()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.1)  # so that nothing cancels
    assert network(torch.zeros(1, 1, side, side, dtype=torch.float64)).shape[-1] == last.size
    cells = range(last.size)
    inside = [cell for cell in cells if last.box(cell)[0] >= 0 and last.box(cell)[1] <= side]
    assume(inside)  # large strides can leave none but those that reach into the padding
    middle = inside[len(inside) // 2]
    first, end = read_pixels(network, side, middle)
    assert (first, end) == last.box(middle)
    # At the border the field reaches into the padding; of the picture it reads the rest.
    first, end = read_pixels(network, side, 0)
    assert end <= last.box(0)[1]
    assert first >= max(0, last.box(0)[0])


def test_uneven_padding_moves_the_start_by_what_lies_before_the_map():
    (step,) = [layer.step(1) for layer in read_layers("conv k4 p same c1", channels=1)]
    assert (step.padding, step.padding_after) == (1, 2)
    (found,) = chain_fields([step], 10)
    assert (found.size, found.box(3)) == (10, (2, 6))
    network = parse_layers("conv k4 p same c1", channels=1).double()
    assert read_pixels(network, 10, 3) == (2, 6)


def test_layers_that_slide_no_window_are_no_step_of_a_chain():
    layers = read_layers("conv k3; relu; transposed k2 s2; global; linear 4")
    assert [layer.step(0) for layer in layers] == [ChainStep(3, padding_after=0), ChainStep(1), None, None, None, None]


def test_impossible_steps_and_chains_are_refused():
    for wrong in (
        {"kernel": 0},
        {"kernel": 3, "stride": 0},
        {"kernel": 3, "padding": -1},
        {"kernel": 3, "dilation": 0},
    ):
        with pytest.raises(ValueError, match="expected a whole number of at least"):
            ChainStep(**wrong)
    with pytest.raises(ValueError, match="padding_after is -1"):
        ChainStep(3, padding_after=-1)
    with pytest.raises(ValueError, match=r"layer 2: a window of 9 cells does not fit into the padded map of 8"):
        chain_fields([ChainStep(3), ChainStep(5, dilation=2)], 10)


def test_a_chain_of_nothing_changes_nothing():
    assert chain_fields([]) == []
    assert chain_fields([ChainStep(1)], 7) == [ChainField(size=7)]


@pytest.mark.parametrize("module", [foveal.analysis.layer_list, foveal.analysis.chain_field])
def test_examples_hold(module):
    names = {"torch": torch, "parse_layers": parse_layers}
    assert doctest.testmod(module, extraglobs=names).failed == 0
