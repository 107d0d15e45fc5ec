"""`foveal explain` and `foveal features`, as a person types them."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from foveal.analysis.explain.topics import TOPICS
from foveal.cli import main


@pytest.fixture
def foveal_says(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty folder; gives its exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def small_network():
    """A network of its own, for `--model MODULE:FUNCTION`."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3), nn.ReLU())


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(sys.modules, "network_of_a_test", sys.modules[__name__])
    return "network_of_a_test:small_network"


def is_one_line(text):
    return text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text


# ---- explain -------------------------------------------------------------------------------------------------------

FIGURES = {
    "kernel": ["256", "1,792", "4,864", "9,472", "15,616", "23,296"],
    "stride": ["222 x 222", "224 x 224", "111 x 111", "112 x 112", "74 x 74", "75 x 75", "56 x 56"],
    "padding": ["3 4 1 2 3 4 1 2", "0.44"],
    "pooling": ["9 1 1", "3 1 1", "9 9 1", "4.58", "5.68"],
    "receptive-field": ["(7, 2)", "27", "97 x 97", "102,400", "73,728"],
    "sharing": ["1,792", "89,915,392", "483,388,358,656", "484"],
    "convolutions": ["73,728", "8,192", "18,432", "8,768", "131,072", "36,864", "81", "72"],
    "filters": ["0 0 3 6 9 9", "0 0 36 36 0 0", "0 0 9 -9 0 0"],
}
WORDS = {
    "en": {
        "kernel": "typical use", "stride": "padding", "padding": "replicate", "pooling": "overlapping max",
        "receptive-field": "jump", "sharing": "fully connected", "convolutions": "depthwise separable",
        "filters": "Laplacian",
    },
    "zh": {
        "kernel": "常见用途", "stride": "填充", "padding": "复制边缘", "pooling": "重叠最大",
        "receptive-field": "感受野", "sharing": "全连接", "convolutions": "深度可分离", "filters": "拉普拉斯",
    },
}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("topic", TOPICS)
def test_every_page_prints_its_figures(foveal_says, topic, language):
    code, out, err = foveal_says("explain", topic, "--lang", language)
    assert (code, err) == (0, "")
    for figure in (*FIGURES[topic], WORDS[language][topic]):
        assert figure.replace(" x ", "×" if language == "zh" else " x ") in out
    assert "\x1b" not in out


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_figures_stand_in_the_rows_where_they_belong(foveal_says, language):
    def row(topic, start):
        _, out, _ = foveal_says("explain", topic, "--lang", language)
        lines = out.replace("×", " x ").splitlines()
        (found,) = [line.split() for line in lines if line.strip().startswith(start)]
        return found

    assert row("kernel", "7 x 7")[3] == "9,472"
    assert row("receptive-field", "pool k3")[4:7] == ["97", "97", "x"]
    last = [
        line for line in foveal_says("explain", "receptive-field", "--lang", language)[1].splitlines() if "27" in line
    ]
    assert len(last) == 1
    assert last[0].split()[-4:] == ["27", "27", "4", "13.5"]
    standard, separable = (
        foveal_says("explain", "convolutions", "--lang", language)[1].split("---\n")[-1].splitlines()[:2]
    )
    assert (standard.split()[-1], separable.split()[-1]) == ("81", "72")


def test_topics_and_languages_may_be_written_in_capitals(foveal_says):
    assert foveal_says("explain", "KERNEL", "--lang", "ZH") == foveal_says("explain", "kernel", "--lang", "zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_without_a_topic_they_are_listed(foveal_says, language):
    code, out, err = foveal_says("explain", "--lang", language)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(TOPICS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "kernl"], ["TOPIC", "no topic is called 'kernl'", "did you mean 'kernel'?"]),
        (["explain", "zzz"], ["there are kernel, stride"]),
        (["explain", "kernel", "--lang", "fr"], ["--lang", "language 'fr'", "en, zh"]),
        (["explain", "--lang", "fr"], ["--lang", "language 'fr'"]),
        (["explain", "two\nlines"], ["no topic"]),
        (["features"], ["PICTURE"]),
        (["features", "photo.png"], ["--model"]),
        (["features", "photo.png", "-m", "torch.nn:ReLU", "--layer", "x"], ["--layer", "ReLU has no layers with maps"]),
        (
            ["features", "photo.png", "-m", "MODEL", "--layer", "7"],
            ["--layer", "no layer is called '7'", "0, 1, 2, 3, 4"],
        ),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "--view", "x"], ["--view", "maps, gradient, guided"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "--unit", "-1"], ["--unit"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "--size", "3"], ["--size", "8 to 4096"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "--size", "a,b"], ["--size", "N or H,W"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "-o", "x.jpg"], ["--out", ".png"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "-o", "./photo.png"], ["--out", "is what is read"]),
        (["features", "photo.png", "-m", "MODEL", "--layer", "0", "-o", "no/x.png"], ["--out", "no folder"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(foveal_says, photo, model, arguments, words):
    before = photo.read_bytes()
    code, out, err = foveal_says(*(model if argument == "MODEL" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert is_one_line(err), err
    for word in words:
        assert word in err
    assert photo.read_bytes() == before


def test_help_tells_of_both_commands_without_torch():
    code = """
import sys
from foveal.cli import main
assert main(["explain", "--help"]) == main(["features", "--help"]) == 0
print(sorted({"torch", "numpy", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for word in ("receptive-field", "--lang", "--layer", "--weights"):
        assert word in done.stdout


# ---- features ------------------------------------------------------------------------------------------------------


def test_random_weights_are_told(foveal_says, photo):
    code, out, _ = foveal_says("features", photo, "--model", "conv k3 p1", "--layer", "conv1", "--size", "32")
    assert code == 0
    assert "(random weights; give --weights for taught ones)" in out


def test_features_draws_the_maps_of_a_layer(foveal_says, photo, model, tmp_path):
    code, out, err = foveal_says("features", photo, "--model", model, "--layer", "1", "--size", "32,48")
    assert (code, err) == (0, "")
    assert out.startswith("photo.features.png: 1 of network_of_a_test:small_network")
    assert "random" not in out  # what a function returns may have been taught
    drawing = Image.open("photo.features.png")
    assert drawing.format == "PNG"
    assert f"{drawing.width} x {drawing.height}" in out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.features.png", "photo.png"]


@pytest.mark.parametrize(
    "options", [["--unit", "2"], ["--unit", "0", "--view", "deconv"], ["--view", "gradient"], ["--view", "guided"]]
)
def test_features_draws_what_channels_respond_to(foveal_says, photo, model, options):
    code, _, err = foveal_says(
        "features", photo, "--model", model, "--layer", "4", "--size", "48", "-o", "a.png", *options
    )
    assert (code, err) == (0, "")
    assert Image.open("a.png").width > 300


def test_weights_of_a_file_are_used(foveal_says, photo, model):
    network = small_network()
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[0].bias)
    save_file(network.state_dict(), "taught.safetensors")
    run = ("features", photo, "--model", model, "--layer", "1", "--size", "32")
    assert foveal_says(*run, "-o", "random.png")[0] == 0
    code, out, _ = foveal_says(*run, "--weights", "taught.safetensors", "-o", "taught.png")
    assert code == 0
    assert "random weights" not in out
    assert Image.open("random.png").tobytes() != Image.open("taught.png").tobytes()
    code, out, err = foveal_says(*run, "--weights", "lost.safetensors")
    assert (code, out, is_one_line(err)) == (1, "", True)


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript")
def test_features_of_an_onnx_file_are_listed_and_drawn_with_its_own_weights(foveal_says, photo):
    pytest.importorskip("onnx")
    torch.onnx.export(small_network().eval(), (torch.rand(1, 3, 32, 48),), "n.onnx", dynamo=False, opset_version=17)
    code, out, err = foveal_says("features", photo, "--model", "n.onnx")
    assert (code, err) == (0, "")
    assert "channels of" in out
    code, out, err = foveal_says("features", photo, "--model", "n.onnx", "--layer", "1", "-o", "a.png")
    assert (code, err) == (0, "")
    assert "random" not in out
    code, out, err = foveal_says("features", photo, "--model", "n.onnx", "--weights", "a.safetensors")
    assert (code, out, is_one_line(err)) == (1, "", True)
    assert "has its own weights" in err


def test_random_weights_are_the_same_each_time(foveal_says, photo):
    pytest.importorskip("torchvision")
    for name in ("a.png", "b.png"):
        model = ("--model", "torchvision:squeezenet1_1", "--layer", "features.0", "--size", "64", "-o", name)
        assert foveal_says("features", photo, *model)[0] == 0
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes()


def test_without_a_layer_those_with_maps_are_listed(foveal_says, photo, model, tmp_path):
    code, out, err = foveal_says("features", photo, "--model", model, "--size", "32")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "0  5 channels of 30 x 30",
        "1  5 channels of 30 x 30",
        "2  5 channels of 15 x 15",
        "3  4 channels of 13 x 13",
        "4  4 channels of 13 x 13",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_a_channel_or_a_model_that_is_not_there_is_one_line(foveal_says, photo, model, tmp_path):
    code, out, err = foveal_says("features", photo, "--model", model, "--layer", "0", "--unit", "5", "--size", "32")
    assert (code, out, is_one_line(err)) == (1, "", True)
    assert "unit 5: 0 has 5 channels, 0 to 4" in err
    code, out, err = foveal_says("features", photo, "--model", "nope", "--layer", "0")
    assert (code, out, is_one_line(err)) == (1, "", True)
    (tmp_path / "bad.png").write_text("no picture")
    code, out, err = foveal_says("features", "bad.png", "--model", model, "--layer", "0")
    assert (code, out, is_one_line(err)) == (1, "", True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.png", "photo.png"]


def test_features_goes_from_standard_input_to_standard_output(photo, model, monkeypatch, capsysbinary, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    assert main(["features", "-", "--model", model, "--layer", "0", "--size", "32", "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    assert Image.open(io.BytesIO(out)).format == "PNG"
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
