"""What channels respond to agrees with computing it by hand, layers are found whatever their maps' shape, and sheets
show what they say."""

import doctest

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import foveal.analysis.feature_pictures
import foveal.analysis.layer_maps
import foveal.analysis.picture_grid
import foveal.analysis.responses
from foveal.analysis.feature_pictures import (
    MOST_MAPS,
    MOST_UNITS,
    STRONGEST_MAPS,
    NetworkInput,
    draw_features,
    network_input,
    read_pixels,
)
from foveal.analysis.layer_maps import find_layer, layers_with_maps, maps_of, watched
from foveal.analysis.picture_grid import Tile, draw_grid, rising, signed
from foveal.analysis.responses import unit_responses
from foveal.picture import PictureError


class Small(nn.Module):
    """Convolution, ReLU, max pool, convolution, ReLU; the ReLUs in one of the ways in which networks write them."""

    def __init__(self, relu="module"):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3)
        nn.init.constant_(self.second.bias, 0.3)  # so that no channel is silent
        self.pool = nn.MaxPool2d(2)
        self.last, self.head = nn.Identity(), nn.Linear(5, 2)
        ways = {
            "module": nn.ReLU(),
            "module in place": nn.ReLU(inplace=True),
            "F.relu": F.relu,
            "F.relu in place": lambda x: F.relu(x, inplace=True),
            "torch.relu": torch.relu,
            "method": lambda x: x.relu(),
            "method in place": lambda x: x.relu_(),
            "answer not taken": self._not_taken,
        }
        self.relu = ways[relu]

    @staticmethod
    def _not_taken(x):
        F.relu_(x)
        return x

    def forward(self, x):
        x = self.pool(self.relu(self.first(x)))
        return self.head(self.last(self.relu(self.second(x))).mean((2, 3)))


RELUS = ["module", "module in place", "F.relu", "F.relu in place", "torch.relu", "method", "method in place"]
RELUS += ["answer not taken"]


@pytest.fixture
def x():
    return torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1)) - 0.3


def by_hand(network, x, unit, view):
    """The deconvolutional network as the paper draws it: unpool by switches, rectify, filter with turned kernels; and
    for guided backpropagation the gates of the way forward as well. Begins with 1 at the strongest cell."""
    with torch.no_grad():
        before_1 = network.first(x)
        pooled, switches = F.max_pool2d(before_1.clamp(min=0), 2, return_indices=True)
        before_2 = network.second(pooled)
        maps = before_2.clamp(min=0)
        strongest = maps[0, unit] == maps[0, unit].max()
        assert strongest.sum() == 1
        signal = torch.zeros_like(maps)
        signal[0, unit][strongest] = 1.0
        for before, filters, padding in ((before_2, network.second, 0), (before_1, network.first, 1)):
            if before is before_1:
                signal = F.max_unpool2d(signal, switches, 2, output_size=before_1.shape)
            if view != "gradient":
                signal = signal.clamp(min=0)
            if view != "deconv":
                signal = signal * (before > 0)
            signal = F.conv_transpose2d(signal, filters.weight, padding=padding)
        return signal[0], tuple(strongest.nonzero()[0].tolist())


@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("view", ["gradient", "guided", "deconv"])
def test_signals_are_those_computed_by_hand_however_the_relus_are_written(relu, view, x):
    network = Small(relu)
    for unit in range(5):
        wanted, at = by_hand(network, x, unit, view)
        signals, place = unit_responses(network, "last", x, unit, views=[view])
        assert place == at
        torch.testing.assert_close(signals[view], wanted)
        assert wanted.abs().max() > 0


def test_the_three_views_differ(x):
    signals, _ = unit_responses(Small(), "last", x, 0)
    assert set(signals) == {"gradient", "guided", "deconv"}
    pairs = [("gradient", "guided"), ("gradient", "deconv"), ("guided", "deconv")]
    assert all(not torch.allclose(signals[one], signals[other]) for one, other in pairs)


def test_the_gradient_is_what_finite_differences_say(x):
    network, x = Small().double(), x.double()
    signals, place = unit_responses(network, "last", x, 2, views=["gradient"])

    def cell(pixels):
        with torch.no_grad():
            return watched(network, "last", pixels)[0, 2][place].item()

    for at in [(0, 4, 5), (1, 6, 7), (2, 2, 9)]:
        step = torch.zeros_like(x)
        step[0][at] = 1e-6
        assert (cell(x + step) - cell(x - step)) / 2e-6 == pytest.approx(signals["gradient"][at].item(), abs=1e-7)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(), nn.ReLU6(), nn.ELU()])
def test_smooth_rectifiers_pass_the_positive_part_with_their_own_derivative(activation, x):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 2, 1))
    signals, place = unit_responses(network, "2", x, 1, views=["guided", "deconv"])
    before = network[0](x).detach().requires_grad_()
    seed = torch.zeros(1, 4, *before.shape[2:])
    seed[0, :, place[0], place[1]] = network[2].weight[1].detach().flatten().clamp(min=0)
    (guided,) = torch.autograd.grad(activation(before), before, seed)
    for view, signal in (("guided", guided), ("deconv", seed)):
        wanted = F.conv_transpose2d(signal, network[0].weight.detach())[0]
        torch.testing.assert_close(signals[view], wanted)


def test_a_place_may_be_named_and_the_signal_stays_within_its_field(x):
    signals, place = unit_responses(Small(), "last", x, 1, place=(3, 0))
    assert place == (3, 0)
    for signal in signals.values():
        assert not signal[:, :, 8 + 1 :].any()  # two cells to the right, pooled, plus a pixel of the first kernel


def test_the_network_is_left_as_it_was(x):
    network = Small().train()
    network.pool.eval()
    unit_responses(network, "last", x, 0)
    draw_features(network, "first", torch.rand(3, 12, 16))
    assert network.training
    assert not network.pool.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.last._forward_hooks
    assert torch.equal(F.relu(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_signals_are_computed_where_gradients_are_switched_off(x):
    with torch.no_grad():
        signals, _ = unit_responses(Small(), "last", x, 0, views=["guided"])
    assert signals["guided"].abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": 5}, "unit 5: last has 5 channels, 0 to 4"),
        ({"unit": -1}, "unit -1"),
        ({"views": ["deconvolution"]}, "view 'deconvolution'; expected some of gradient, guided, deconv"),
        ({"place": (0, 6)}, r"place \(0, 6\) lies outside the map of last, 4 x 6 cells"),
        ({"layer": "lst"}, "no layer is called 'lst'; the nearest are last"),
        ({"layer": "head"}, r"layer 'head' gives \(1, 2\), which is no map"),
    ],
)
def test_impossible_questions_are_refused(change, message, x):
    asked = {"layer": "last", "unit": 0, **change}
    with pytest.raises(ValueError, match=message):
        unit_responses(Small(), asked.pop("layer"), x, asked.pop("unit"), **asked)
    with pytest.raises(ValueError, match="expected one picture"):
        unit_responses(Small(), "last", torch.rand(2, 3, 8, 8), 0)


# ---- layers --------------------------------------------------------------------------------------------------------


def test_a_layer_s_output_is_caught_before_it_is_changed_in_place(x):
    network = Small("module in place")
    assert torch.equal(watched(network, "first", x), network.first(x))
    assert (watched(network, "first", x) < 0).any()


def test_an_unknown_layer_names_the_near_ones_or_what_there_is():
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18()
    with pytest.raises(ValueError, match=r"'layer2.0.con1'; the nearest are layer2.0.conv1"):
        find_layer(network, "layer2.0.con1")
    with pytest.raises(
        ValueError, match=r"'layer2.0.qqqqqqqqqqqqqqqqqqqq'; the nearest are layer2.0.conv1, layer2.0.bn1"
    ):
        find_layer(network, "layer2.0.qqqqqqqqqqqqqqqqqqqq")
    with pytest.raises(ValueError, match=r"'zzz'; the nearest are conv1, bn1, relu, maxpool, layer1"):
        find_layer(network, "zzz")
    with pytest.raises(ValueError, match="no layer is called ''"):
        find_layer(network, "")


def test_a_layer_that_never_runs_or_gives_no_tensor_is_refused(x):
    network = Small()
    network.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="layer 'unused' does not run"):
        watched(network, "unused", x)

    class Named(nn.Module):
        def forward(self, x):
            return {"out": x}

    with pytest.raises(ValueError, match=r"layer '0' gives dict; expected a tensor"):
        watched(nn.Sequential(Named()), "0", x)


def test_a_picture_that_the_network_does_not_take_is_refused_with_its_own_reason():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            assert x.shape[2] == 16, "height must be 16"
            return self.inner(x)

    network, x = Fixed(), torch.rand(1, 3, 12, 16)
    network.train()
    for asked in (lambda: watched(network, "inner", x), lambda: layers_with_maps(network, x)):
        with pytest.raises(ValueError, match=r"the network does not take \(1, 3, 12, 16\): height must be 16"):
            asked()
    assert network.training
    assert not network.inner._forward_hooks


@pytest.mark.parametrize(
    ("shape", "picture", "maps"),
    [
        ((1, 8, 14, 14), (224, 224), (1, 8, 14, 14)),
        ((1, 14, 14, 8), (224, 224), (1, 8, 14, 14)),
        ((1, 14, 14, 14), (224, 224), (1, 14, 14, 14)),
        ((1, 8, 54, 72), (224, 298), (1, 8, 54, 72)),
        ((1, 10, 20, 8), (160, 320), (1, 8, 10, 20)),
        ((1, 197, 8), (224, 224), (1, 8, 14, 14)),
        ((1, 201, 8), (224, 224), (1, 8, 14, 14)),
        ((1, 201, 8), (160, 320), (1, 8, 10, 20)),
    ],
)
def test_maps_are_told_from_what_layers_give(shape, picture, maps):
    output = torch.arange(float(np.prod(shape))).view(shape)
    found = maps_of(output, "layer", picture)
    assert found.shape == maps
    assert found[0, 3, -1, -1] == (output[0, -1, 3] if len(shape) == 3 else
                                   output[0, -1, -1, 3] if maps != shape else output[0, 3, -1, -1])  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 10), (1, 8, 4, 4, 4), (1, 1000, 8)])
def test_what_is_no_map_is_refused(shape):
    with pytest.raises(ValueError, match="which is no map; name an earlier one"):
        maps_of(torch.zeros(shape), "layer", (224, 224))


def test_layers_with_maps_are_listed_in_the_network_s_order(x):
    assert layers_with_maps(Small(), x) == {
        "first": (6, 12, 16),
        "second": (5, 4, 6),
        "pool": (6, 6, 8),
        "last": (5, 4, 6),
        "relu": (6, 12, 16),
    }


# ---- reading pictures ----------------------------------------------------------------------------------------------


def test_the_centre_of_a_picture_is_read_without_distortion():
    array = np.zeros((100, 300, 3), dtype=np.uint8)
    array[:, 100:200] = 255  # the middle square
    assert torch.equal(read_pixels(array, 50, 50), torch.ones(3, 50, 50))
    whole = read_pixels(array, 10, 30)
    assert whole[0, 5, :9].max() == 0
    assert whole[0, 5, 11:19].min() == 1
    assert read_pixels(torch.full((3, 7, 9), 0.25), 14, 14).unique().tolist() == [0.25]
    with pytest.raises(ValueError, match="has 4 channels; expected 3"):
        read_pixels(torch.rand(4, 9, 9), 8, 8)
    with pytest.raises(PictureError):
        read_pixels(b"no picture", 8, 8)


def test_a_network_says_itself_what_it_wants():
    network = nn.Sequential(nn.Conv2d(3, 1, 1))
    assert network_input(network) == NetworkInput()
    network.pretrained_cfg = {"input_size": (3, 96, 128), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    assert network_input(network) == NetworkInput(96, 128, (0.5,) * 3, (0.25,) * 3)
    assert network_input(network, (64, 48)) == NetworkInput(64, 48, (0.5,) * 3, (0.25,) * 3)


# ---- sheets --------------------------------------------------------------------------------------------------------


def test_tiles_lie_in_rows_and_show_their_pictures():
    tiles = [Tile(Image.new("RGB", (4, 4), (number * 40, 0, 0)), str(number)) for number in range(5)]
    sheet = np.asarray(draw_grid(tiles, title="five", columns=3, side=40))
    reds = [(sheet == (number * 40, 0, 0)).all(-1) for number in range(5)]
    corners = [tuple(red.nonzero()[axis].min() for axis in (0, 1)) for red in reds[1:]]
    assert [red.sum() for red in reds[1:]] == [1600] * 4
    assert corners[0][0] == corners[1][0] < corners[2][0] == corners[3][0]
    assert corners[0][1] == corners[3][1] < corners[1][1]
    assert corners[2][1] == 12
    below = sheet[corners[1][0] + 40 : corners[2][0], corners[1][1] : corners[1][1] + 40]
    assert (below < 150).any()  # its label
    with pytest.raises(ValueError, match="no tiles"):
        draw_grid([], title="", columns=2, side=9)


def test_long_titles_are_broken_and_long_labels_cut_within_the_sheet():
    tile = Tile(Image.new("RGB", (4, 4), (255, 255, 255)), "features.denseblock4.denselayer16.conv2, a long label")
    sheet = np.asarray(draw_grid([tile], title="a title of many more words than fit " * 3, columns=1, side=120))
    assert sheet.shape[1] == 144
    assert (sheet[:, -12:] == 255).all()  # nothing runs into the margin
    assert (sheet < 200).any()


def test_colours_rise_and_have_a_middle():
    ramp = np.linspace(0, 1, 9)[None]
    brightness = np.asarray(rising(ramp).convert("L")).astype(int)[0]
    assert (np.diff(brightness) > 0).all()
    blue, white, red = np.asarray(signed(np.array([[-2.0, 0.0, 2.0]])))[0].astype(int)
    assert blue[2] > blue[0]
    assert white.min() > 240
    assert red[0] > red[2]
    for flat in (rising(np.zeros((2, 2))), signed(np.zeros((2, 2)))):
        assert len(np.unique(np.asarray(flat).reshape(-1, 3), axis=0)) == 1


@pytest.fixture
def drawn(monkeypatch):
    """What was put on the last sheet."""
    seen = {}

    def note(tiles, **options):
        seen.update(tiles=tiles, **options)
        return draw_grid(tiles, **options)

    monkeypatch.setattr(foveal.analysis.feature_pictures, "draw_grid", note)
    return seen


def test_a_sheet_of_maps_shows_every_channel_with_its_own_values(drawn):
    network, pixels = Small(), torch.rand(3, 24, 32)
    taken = NetworkInput(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    draw_features(network, "last", pixels, taken=taken)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (taken.mean, taken.std))
    with torch.no_grad():
        maps = watched(network, "last", ((pixels - mean) / std)[None])[0]
    assert [tile.label for tile in drawn["tiles"]] == [
        "the picture", *(f"{unit}: {values.max().item():.3g}" for unit, values in enumerate(maps))
    ]  # fmt: skip
    assert drawn["tiles"][0].image.size == (32, 24)
    brightness = np.asarray(drawn["tiles"][3].image.convert("L")).astype(float)
    assert brightness.shape == maps[2].shape
    np.testing.assert_array_equal(brightness.argmax(), maps[2].argmax())
    assert "5 channels of 10 x 14" in drawn["title"]


def test_of_many_channels_the_strongest_are_drawn_first_and_the_title_says_so(drawn):
    network = nn.Sequential(nn.Conv2d(3, MOST_MAPS + 36, 1))
    draw_features(network, "0", torch.rand(3, 9, 9))
    assert len(drawn["tiles"]) == STRONGEST_MAPS + 1 == drawn["columns"] ** 2
    assert f"the {STRONGEST_MAPS} with the highest values" in drawn["title"]
    values = [float(tile.label.split(": ")[1]) for tile in drawn["tiles"][1:]]
    assert values == sorted(values, reverse=True)


def test_all_maps_of_a_layer_are_coloured_by_the_scale_that_the_sheet_tells(drawn):
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    nn.init.ones_(network[0].weight)
    network[0].bias.data = torch.tensor([-50.0, 50.0])  # one map wholly below 0, one wholly above
    draw_features(network, "0", torch.rand(3, 9, 9))
    assert "blue below 0" in drawn["title"]
    below, above = (np.asarray(tile.image).astype(int) for tile in drawn["tiles"][1:])
    assert (below[..., 2] > below[..., 0]).all()
    assert (above[..., 0] > 150).all()
    assert (above[..., 1] < 100).all(), "red, not the yellow of the other scale"
    draw_features(network, "0", torch.rand(3, 9, 9), unit=1)
    assert (np.asarray(drawn["tiles"][1].image)[..., 1] < 100).all()


@pytest.mark.parametrize(("view", "signals"), [(None, 3), ("gradient", 1), ("guided", 1), ("deconv", 1), ("maps", 0)])
def test_one_channel_is_shown_with_its_pixels_that_have_a_gradient_enlarged_and_its_signals(drawn, view, signals):
    network, pixels = Small(), torch.rand(3, 40, 40)
    draw_features(network, "last", pixels, unit=3, view=view)
    tiles = drawn["tiles"]
    assert [tile.label for tile in tiles[3:]] == (
        ["gradient", "guided", "deconv"] if signals == 3 else [view] * signals
    )
    # 3 x 3 after a pool of 2 after 3 x 3: what 8 x 8 pixels hold.
    assert tiles[2].label == "gradient in 8 x 8 pixels"
    framed, enlarged = np.asarray(tiles[0].image), np.asarray(tiles[2].image)
    top, left = np.argwhere((framed == (255, 206, 64)).all(-1)).min(0)
    np.testing.assert_array_equal(framed[top + 1 : top + 7, left + 1 : left + 7], enlarged[1:7, 1:7])
    assert all(tile.image.size == (8, 8) for tile in tiles[2:])


def test_without_a_channel_the_strongest_have_a_row_each(drawn):
    network = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU())
    draw_features(network, "1", torch.rand(3, 40, 40), view="guided")
    assert len(drawn["tiles"]) == MOST_UNITS * drawn["columns"] == MOST_UNITS * 4
    assert [tile.label for tile in drawn["tiles"][3::4]] == ["guided"] * MOST_UNITS


def test_what_has_gradients_all_over_the_picture_is_not_enlarged(drawn):
    draw_features(Small(), "last", torch.rand(3, 9, 9), unit=0)
    assert [tile.label for tile in drawn["tiles"][2:]] == ["gradient", "guided", "deconv"]


def test_a_channel_that_is_silent_everywhere_is_drawn_all_the_same():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(network[0].bias, -99.0)
    assert draw_features(network, "1", torch.rand(3, 20, 20), unit=1).mode == "RGB"
    assert draw_features(network, "1", torch.rand(3, 20, 20)).mode == "RGB"


def test_impossible_drawings_are_refused():
    network, pixels = Small(), torch.rand(3, 12, 12)
    with pytest.raises(ValueError, match="view is 'saliency'; expected one of maps, gradient, guided, deconv"):
        draw_features(network, "last", pixels, view="saliency")
    with pytest.raises(ValueError, match="unit 9: last has 5 channels"):
        draw_features(network, "last", pixels, unit=9)
    with pytest.raises(ValueError, match=r"expected \(3, H, W\)"):
        draw_features(network, "last", torch.rand(1, 12, 12))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
def test_networks_of_torchvision_are_drawn(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    network, pixels = models.get_model(name, weights=None), torch.rand(3, 64, 64)
    layer = list(layers_with_maps(network, pixels[None]))[-3]
    assert draw_features(network, layer, pixels, unit=0).width > 400


def test_weights_that_are_taught_answer_to_what_is_in_the_picture(shared_data):
    skimage_data = pytest.importorskip("skimage.data")
    models = pytest.importorskip("torchvision").models
    from safetensors.torch import load_file

    network = models.squeezenet1_1()
    network.load_state_dict(load_file(shared_data / "weights" / "squeezenet1_1.safetensors"))
    pixels = read_pixels(skimage_data.chelsea(), 224, 224)
    x = ((pixels - torch.tensor(NetworkInput().mean).view(3, 1, 1)) / torch.tensor(NetworkInput().std).view(3, 1, 1))[
        None
    ]
    maps = watched(network, "features.12", x)[0]
    unit = int(maps.flatten(1).amax(1).argmax())
    signals, place = unit_responses(network, "features.12", x, unit, views=["gradient", "guided"])
    near = torch.zeros(224, 224, dtype=torch.bool)
    row, column = ((cell + 0.5) * 224 / 13 for cell in place)
    near[max(0, int(row) - 56) : int(row) + 56, max(0, int(column) - 56) : int(column) + 56] = True
    shares = {
        view: (signal.abs().amax(0)[near].sum() / signal.abs().amax(0).sum()).item() for view, signal in signals.items()
    }
    assert shares["guided"] > 0.8  # it points at the eye that the channel is strongest at
    assert shares["guided"] > shares["gradient"]


@pytest.mark.parametrize("module", ["feature_pictures", "layer_maps", "picture_grid", "responses"])
def test_examples_hold(module):
    module = getattr(foveal.analysis, module)
    names = {"torch": torch, "np": np, "Image": Image}
    assert doctest.testmod(module, extraglobs=names).failed == 0
