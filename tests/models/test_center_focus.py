"""The backbone: the dense network in one window or cut into tiles, and a periphery that costs what it computes."""

import doctest

import numpy as np
import pytest
import torch
from layouts import cut, joined
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import foveal.models.center_focus as module
import foveal.winograd
from foveal.blocks.slim import SlimConv2d, SlimNorm2d
from foveal.layout import Layout
from foveal.models.center_focus import SIGMAS, SIZES, CenterFocusCNN
from foveal.retina import Glimpse, Retina

LEVELS = 5


def lively(name="nano", **options):
    """A network in evaluation whose norms, gates and residual branches all do something."""
    torch.manual_seed(0)
    network = CenterFocusCNN(name, **options).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    for gate in network.gates:
        nn.init.uniform_(gate.importance)
    return network


def look(height=300, width=200, *, size=32, levels=LEVELS, fixation=(0.3, 0.8), dtype=torch.float32):
    """A glimpse of noise, read natively."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(3, height, width, dtype=dtype, generator=generator)
    layout = Layout.foveal(picture=(height, width), size=size, levels=levels, fixation=fixation)
    return Retina(size)(picture, layout=layout)


def dense_features(network, picture):
    """(B, 3, H, W) -> (B, C, H / 16, W / 16): the plain network, written out without windows."""

    def conv(layer, x):
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding)

    def norm(layer, x):
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)

    x = picture.contiguous(memory_format=torch.channels_last)
    height, width = x.shape[2:]
    x = norm(network.stem_norm, conv(network.stem, x)).relu()
    for stage, blocks in enumerate(network.stages):
        for block in blocks:
            shortcut = x if block.project is None else norm(block.project_norm, conv(block.project, x))
            branch = norm(block.norm1, conv(block.conv1, x)).relu()
            x = (norm(block.norm2, conv(block.conv2, branch)) + shortcut).relu()
        cell = height / x.shape[2]
        rows, columns = ((torch.arange(side, dtype=torch.float64) + 0.5) * cell for side in x.shape[2:])
        apart = ((rows[:, None] - height / 2) ** 2 + (columns - width / 2) ** 2).sqrt().float() / (
            max(height, width) / 2
        )
        attention = network.attentions[stage]
        weight = attention.floor + (1 - attention.floor) * torch.exp(-apart.square() / (2 * attention.sigma.square()))
        x = x * weight.to(x.dtype)
        if network.gates:
            gate = network.gates[stage]
            hidden = torch.relu(gate.squeeze(x.mean((2, 3))))
            x = x * torch.sigmoid(gate.excite(hidden))[..., None, None]
    return x


# ---- dense is one window, and any number of tiles ---------------------------------------------------------------


@pytest.mark.parametrize("gating", [False, True])
@pytest.mark.parametrize("name", SIZES)
@torch.inference_mode()
def test_one_window_equals_the_dense_network_bit_for_bit(name, gating):
    network = lively(name, gating=gating)
    picture = torch.randn(2, 3, 96, 96)
    features = network(Glimpse(picture[:, None], Layout.dense(picture=(96, 96))))
    assert features.shape == (2, 1, network.channels, 6, 6)
    assert torch.equal(features[:, 0], dense_features(network, picture))


@pytest.mark.parametrize(
    ("dtype", "atol"),
    # The features stay below 100; sums in another order differ by some 1e-6 of that.
    [(torch.float32, 1e-4), (torch.float64, 1e-10)],
)
@pytest.mark.parametrize("gating", [False, True])
@pytest.mark.parametrize(("size", "sides"), [(64, (192, 128)), (32, (64, 96)), (16, (48, 48))])
@torch.inference_mode()
def test_tiles_of_the_whole_picture_equal_the_dense_network(size, sides, gating, dtype, atol):
    network = lively(gating=gating).to(dtype)
    picture = torch.randn(3, *sides, dtype=dtype, generator=torch.Generator().manual_seed(0))
    layout = Layout.tiling(picture=sides, size=size)
    expected = dense_features(network, picture[None])[0]
    features = network(Glimpse(cut(picture, layout)[None], layout))[0]
    assert 0.1 < expected.abs().max() < 100
    torch.testing.assert_close(joined(features, layout), expected, rtol=0, atol=atol)
    without = network
    without.halo = False
    if len(features) > 1:
        apart = joined(without(Glimpse(cut(picture, layout)[None], layout))[0], layout)
        assert (apart - expected).abs().max() > 1e-2, "it is the halo that makes them equal"


@torch.inference_mode()
def test_a_retinas_single_window_of_224_is_the_plain_dense_model():
    network = lively()
    picture = torch.rand(3, 224, 224)
    glimpse = Retina(224, levels=1)(picture)
    assert torch.equal(network(glimpse)[0, 0], dense_features(network, picture[None])[0])


# ---- windows ----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_coarse_windows_do_not_depend_on_finer_ones():
    network, glimpse = lively(), look()
    before = network(glimpse)
    pixels = glimpse.pixels.clone()
    pixels[:, 1] += 1  # of level 1
    after = network(Glimpse(pixels, glimpse.layout))
    assert torch.equal(after[:, 2:], before[:, 2:])
    assert not torch.equal(after[:, 1], before[:, 1])
    assert not torch.equal(after[:, 0], before[:, 0]), "the fovea's rim comes from there"


@torch.inference_mode()
def test_without_halo_every_window_is_alone():
    network, glimpse = lively(halo=False), look()
    before = network(glimpse)
    pixels = glimpse.pixels.clone()
    pixels[:, 1] += 1
    after = network(Glimpse(pixels, glimpse.layout))
    changed = (after != before).flatten(2).any(-1)[0]
    assert changed.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
@torch.inference_mode()
def test_a_fixation_at_a_corner_works(corner):
    features = lively(periphery_channels=0.5, gating=True)(look(fixation=corner))
    assert features.shape == (1, LEVELS, 128, 2, 2)
    assert features.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"gating": True}, {"periphery_channels": 0.5}], ids=str)
@torch.inference_mode()
def test_a_batch_of_unlike_pictures_sees_what_each_alone_would(options):
    network, retina = lively(**options), Retina(32, "auto")
    pictures = [torch.rand(3, *sides) for sides in ((50, 40), (300, 200), (32, 9))]
    fixations = [(0.1, 0.9), (0.7, 0.2), (0.5, 0.5)]
    together = network(retina(pictures, fixations))
    for sample, (picture, fixation) in enumerate(zip(pictures, fixations, strict=True)):
        alone = network(retina(picture, fixation))[0]
        torch.testing.assert_close(together[sample, : len(alone)], alone, rtol=0, atol=1e-5)


def test_a_window_that_the_networks_stride_does_not_divide_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="windows of 40 cells are not a multiple of the network's stride 16"):
        CenterFocusCNN("nano")(look(size=40, levels=4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "huge"}, "unknown size 'huge'; choose one of nano, tiny, small, base"),
        ({"periphery_channels": 0}, "periphery_channels is 0; expected a fraction in"),
        ({"periphery_channels": 1.5}, "periphery_channels is 1.5"),
        ({"floor": 1.0}, "floor 1.0"),
    ],
)
def test_impossible_networks_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CenterFocusCNN(**options)


def test_attention_is_narrow_in_shallow_stages_and_wider_in_deep_ones_and_all_of_it_is_learned():
    network = CenterFocusCNN("nano").train()
    sigmas = [attention.sigma.item() for attention in network.attentions]
    assert sigmas == pytest.approx(SIGMAS)
    assert sigmas == sorted(sigmas)
    network(look()).square().mean().backward()
    assert all(attention.raw_sigma.grad.abs() > 0 for attention in network.attentions)


@pytest.mark.parametrize("options", [{}, {"periphery_channels": 0.5, "gating": True}], ids=str)
def test_every_parameter_receives_gradient(options):
    network = lively(**options).train()
    network(look()).square().mean().backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


# ---- a narrow periphery -----------------------------------------------------------------------------------------


def narrow_by_masks(network, glimpse):
    """The narrow network's function, computed in full width everywhere and masked after every layer."""
    layout = glimpse.layout
    coarse = (layout.levels > 0).flatten()[:, None, None, None]

    def conv(layer, x):
        y = layer(x, layout)  # of a tensor: all channels of all windows
        return y.masked_fill(coarse & (torch.arange(y.shape[1]) >= layer.narrow)[:, None, None], 0)

    def norm(layer, x):
        narrow = layer.periphery.num_features
        around = F.pad(layer.periphery(x[:, :narrow]), (0, 0, 0, 0, 0, x.shape[1] - narrow))
        return torch.where(coarse, around, layer(x))

    x = norm(network.stem_norm, conv(network.stem, glimpse.pixels.flatten(0, 1))).relu()
    for stage, blocks in enumerate(network.stages):
        for block in blocks:
            shortcut = x if block.project is None else norm(block.project_norm, conv(block.project, x))
            branch = norm(block.norm1, conv(block.conv1, x)).relu()
            x = (norm(block.norm2, conv(block.conv2, branch)) + shortcut).relu()
        x = network.attentions[stage](x, layout)
        if network.gates:
            x = network.gates[stage](x, layout)
    return x.unflatten(0, glimpse.pixels.shape[:2])


@pytest.mark.parametrize("gating", [False, True])
@pytest.mark.parametrize("width", [0.25, 0.5])
@torch.inference_mode()
def test_a_narrow_periphery_is_the_masked_network(width, gating):
    network = lively(periphery_channels=width, gating=gating).double()
    glimpse = look(dtype=torch.float64)
    features = network(glimpse)
    torch.testing.assert_close(features, narrow_by_masks(network, glimpse), rtol=0, atol=1e-10)
    narrow = round(network.channels * width)
    assert not features[:, 1:, narrow:].any(), "what the periphery does not compute is zero"
    assert features[:, 1:, :narrow].any()
    assert features[:, 0, narrow:].any()


def flops(network, glimpse):
    """Of all convolutions in full, those that are computed with fewer multiplications too."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(glimpse)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_a_narrow_periphery_saves_what_its_channels_cost(name, monkeypatch):
    monkeypatch.setattr(foveal.winograd, "FEWEST_TILES", 1 << 40)
    glimpse = look()
    full, half = (CenterFocusCNN(name, periphery_channels=width).eval() for width in (1.0, 0.5))
    expected = {1.0: 0, 0.5: 0}
    sides = {"stem": 16, **{f"stages.{stage}.": 16 >> stage for stage in range(4)}}
    for layer_name, layer in half.named_modules():
        if isinstance(layer, SlimConv2d):
            side = next(side for start, side in sides.items() if layer_name.startswith(start))
            for width in expected:
                inputs = layer.in_channels if layer_name == "stem" else layer.in_channels * width
                around = (LEVELS - 1) * inputs * layer.out_channels * width
                cells = side * side * layer.kernel_size[0] ** 2
                expected[width] += 2 * round(cells * (layer.in_channels * layer.out_channels + around))
    assert flops(full, glimpse) == expected[1.0]
    assert flops(half, glimpse) == expected[0.5]
    # A fifth of the windows in full width, four fifths at a quarter of the cost; the stem saves only half.
    assert 0.4 < expected[0.5] / expected[1.0] < 0.42
    three = look(width=100, height=100, levels=3)
    assert 0.5 < flops(half, three) / flops(full, three) < 0.52


@torch.no_grad()
def test_training_keeps_statistics_of_fovea_and_periphery_apart():
    network, glimpse = CenterFocusCNN("nano", periphery_channels=0.5), look()
    stem = network.stem(glimpse.pixels.flatten(0, 1), glimpse.layout)  # the first window is the fovea
    inside = glimpse.layout.inside(stem.shape[-1])[0]
    assert 0.5 < inside.float().mean() < 1
    network.train()(glimpse)
    fine, coarse = slice(0, 1), slice(1, None)
    for norm, windows in ((network.stem_norm, fine), (network.stem_norm.periphery, coarse)):
        cells = stem[windows, : norm.num_features].permute(0, 2, 3, 1)[inside[windows]]  # none beside the picture
        torch.testing.assert_close(norm.running_mean, 0.1 * cells.mean(0))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * cells.var(0))


@torch.inference_mode()
def test_sorting_the_channels_keeps_the_function_and_puts_the_important_ones_first():
    network, glimpse = lively("tiny", gating=True), look()
    importance = [gate.importance.clone() for gate in network.gates]
    before = network(glimpse)
    order = network.sort_channels()
    assert torch.equal(order, importance[-1].argsort(descending=True, stable=True))
    torch.testing.assert_close(network(glimpse), before[:, :, order], rtol=0, atol=1e-5)
    assert not torch.allclose(network(glimpse), before, atol=1e-3)
    for gate, learned in zip(network.gates, importance, strict=True):
        assert torch.equal(gate.importance, learned.sort(descending=True).values)
        half = len(learned) // 2
        assert gate.importance[:half].min() >= gate.importance[half:].max(), "the leading half is the best half"
    again = network(glimpse)
    assert torch.equal(network.sort_channels(), torch.arange(len(order))), "what is sorted stays as it is"
    assert torch.equal(network(glimpse), again)


@pytest.mark.parametrize("options", [{}, {"gating": True, "periphery_channels": 0.5}])
def test_what_cannot_be_sorted_is_refused(options):
    with pytest.raises(ValueError, match="needs gating=True and a full-width network"):
        CenterFocusCNN("nano", **options).sort_channels()


def test_narrowed_it_sees_with_the_leading_channels_of_the_same_weights():
    network, glimpse = lively(gating=True), look()
    network.sort_channels()
    narrow = network.narrowed(0.5)
    assert (narrow.periphery_channels, narrow.halo, narrow.training) == (0.5, True, False)
    for name, value in network.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], value)
    for name, part in narrow.named_modules():
        if isinstance(part, SlimNorm2d):
            full = network.get_submodule(name)
            half = part.periphery.num_features
            assert half == part.num_features // 2
            assert torch.equal(part.periphery.running_var, full.running_var[:half])
            assert torch.equal(part.periphery.weight, full.weight[:half])
    features = narrow(glimpse)
    half = features.shape[2] // 2
    coarse = glimpse.layout.levels[0] > 0
    assert features[:, coarse, half:].abs().max() == 0
    assert features[:, coarse, :half].abs().max() > 0
    network.stem.requires_grad_(False)
    double = network.double().narrowed(0.25)
    assert {value.dtype for value in double.parameters()} == {torch.float64}
    assert [name for name, value in double.named_parameters() if not value.requires_grad] == ["stem.weight"]
    with pytest.raises(ValueError, match=r"already computes only 0\.5"):
        narrow.narrowed(0.25)


def test_halo_or_not_the_weights_are_the_same_ones():
    with_halo, without = CenterFocusCNN("nano"), CenterFocusCNN("nano", halo=False)
    without.load_state_dict(with_halo.state_dict())


# ---- compilers and exporters ------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("gating", [False, True])
def test_the_compiled_network_equals_the_eager_one_also_for_another_layout(gating):
    torch._dynamo.reset()
    network = lively(gating=gating)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for fixation in ((0.3, 0.8), (1.0, 0.1)):
            glimpse = look(fixation=fixation)
            torch.testing.assert_close(compiled(glimpse), network(glimpse), rtol=1e-4, atol=1e-5)


class FromTensors(nn.Module):
    """A network whose layout comes as tensors."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels, origins, levels, pictures, fixations, valid):
        return self.network(Glimpse(pixels, Layout(pixels.shape[-1], origins, levels, pictures, fixations, valid)))


@pytest.mark.full
@torch.no_grad()
def test_onnx_runtime_gives_what_the_network_gives_for_any_layout(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = FromTensors(lively(gating=True)).eval()

    def inputs_of(fixation):
        glimpse = look(fixation=fixation)
        layout = glimpse.layout
        return glimpse.pixels, layout.origins, layout.levels, layout.pictures, layout.fixations, layout.valid

    torch.onnx.export(network, inputs_of((0.3, 0.8)), dynamo=True, verbose=False).save(tmp_path / "network.onnx")
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    names = ("pixels", "origins", "levels", "pictures", "fixations", "valid")
    wanted = {value.name for value in session.get_inputs()}
    results = []
    for fixation in ((0.3, 0.8), (1.0, 0.1)):
        inputs = inputs_of(fixation)
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True) if name in wanted}
        results.extend(session.run(None, feed))
        np.testing.assert_allclose(results[-1], network(*inputs).numpy(), rtol=1e-4, atol=1e-4)
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(module, extraglobs={"Retina": Retina}).failed == 0
