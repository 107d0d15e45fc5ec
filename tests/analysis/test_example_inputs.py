"""What a network is shown: as many channels as it takes, the sides that its file fixes, all of its inputs."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Does
from onnx import helper
from onnx_graphs import random, save_graph
from torch import nn

import foveal.analysis.example_inputs as module
from foveal.analysis.analyze import analyze
from foveal.analysis.effective_field import unit_field
from foveal.analysis.example_inputs import example_inputs
from foveal.analysis.from_onnx.network import OnnxNetwork, network_from_onnx
from foveal.analysis.report import report


def shapes(network: nn.Module, size: Any = None) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in example_inputs(network, size)]


def conv(name: str, channels: int, *, reads: str = "x", writes: str = "y") -> tuple[Any, dict[str, np.ndarray]]:
    node = helper.make_node("Conv", [reads, f"{name}.weight"], [writes], name)
    return node, {f"{name}.weight": random(4, channels, 3, 3)}


def file_of(folder: Path, shape: Sequence[Any], example: Sequence[int], dtype: Any = np.float32) -> OnnxNetwork:
    """A network of one step that takes this shape."""
    file = folder / "a.onnx"
    node = helper.make_node("Identity", ["x"], ["y"])
    save_graph(file, [node], {"x": np.zeros(example, dtype)}, shapes={"x": shape})
    return network_from_onnx(file)


FIRST = {
    "its only one": (nn.Conv2d(5, 4, 3), 5),
    "the one that runs, where another is registered first": (
        Does(lambda s, x: s.head(s.stem(x)), head=nn.Conv2d(8, 2, 1), stem=nn.Conv2d(3, 8, 3)),
        3,
    ),
    "one behind a step to fewer and wider cells": (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3)), 1),
    "a function without a module": (Does(lambda s, x: F.conv2d(x, s.w), w=nn.Parameter(torch.rand(8, 2, 3, 3))), 2),
    "a grouped one": (nn.Conv2d(6, 6, 3, groups=6), 6),
    "a transposed one": (nn.ConvTranspose2d(7, 4, 3), 7),
    "one that takes what comes": (nn.LazyConv2d(4, 3), 3),
    "none, with a step that 3 do not fit": (nn.Sequential(nn.Flatten(), nn.Linear(256, 4)), 1),
    "none": (nn.ReLU(), 3),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_picture_has_the_channels_that_the_first_convolution_takes(name: str) -> None:
    network, channels = FIRST[name]
    assert shapes(network, 16) == [(1, channels, 16, 16)]
    assert analyze(network, 16).picture == (1, channels, 16, 16)


def test_looking_for_the_first_convolution_changes_nothing() -> None:
    def counting(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.conv(self.norm(x))

    network = Does(counting, norm=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3))
    network.register_buffer("runs", torch.zeros(()))
    assert shapes(network) == [(1, 3, 224, 224)]
    assert network.runs == 0
    assert network.training


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Does(lambda s, x: s.a(x), a=nn.Conv3d(3, 4, 3)), "first convolution is a conv3d, of videos"),
        (Does(lambda s, x: s.a(x), a=nn.Conv1d(9, 4, 3)), "first convolution is a conv1d, of sequences"),
    ],
)
def test_a_network_of_something_else_than_pictures_is_refused_in_one_line(network: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        analyze(network, 32)
    assert "\n" not in str(caught.value)


def test_a_network_of_two_inputs_is_refused_with_their_names() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return image + other

    with pytest.raises(ValueError, match=r"Two takes 2 inputs \(image, other\).*analyze\(network, inputs"):
        analyze(Two(), 32)
    assert analyze(Two(), inputs=[torch.zeros(1, 3, 8, 8)] * 2).flops == 192


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((1, 1, 28, 28), None, (1, 1, 28, 28)),
        ((2, 3, 64, 96), None, (2, 3, 64, 96)),
        ((2, 3, 64, 96), (64, 96), (2, 3, 64, 96)),
        (("batch", 3, "height", "width"), None, (1, 3, 224, 224)),
        (("batch", 3, "height", "width"), (32, 48), (1, 3, 32, 48)),
        (("batch", 1, 64, "width"), (64, 48), (1, 1, 64, 48)),
        ((None, None, None, None), 40, (1, 3, 40, 40)),
        (("batch", "height", "width", 3), (32, 48), (1, 32, 48, 3)),
        ((3, "height", "width"), (32, 48), (3, 32, 48)),
        (("batch", 10), 40, (1, 10)),
    ],
)
def test_a_files_open_sides_are_filled_and_its_own_kept(
    shape: Sequence[Any], size: Any, wanted: tuple[int, ...], tmp_path: Path
) -> None:
    assert shapes(file_of(tmp_path, shape, wanted), size) == [wanted]


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        ((1, 3, 64, 96), 224, "takes pictures of 64 x 96; a size of 224 x 224 contradicts it"),
        ((1, 3, None, 96), (64, 64), "takes pictures of any x 96; a size of 64 x 64"),
        (("batch", "tokens", 192), None, "leaves sides of its input 'x' open: any x any x 192"),
    ],
)
def test_a_size_that_does_not_fit_a_file_is_refused_in_one_line(
    shape: Sequence[Any], size: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        example_inputs(file_of(tmp_path, shape, [side if isinstance(side, int) else 4 for side in shape]), size)
    assert "\n" not in str(caught.value)


def test_types_are_those_of_the_file(tmp_path: Path) -> None:
    (x,) = example_inputs(file_of(tmp_path, (1, 3, 8, 8), (1, 3, 8, 8), np.uint8))
    assert x.dtype == torch.uint8
    (x,) = example_inputs(file_of(tmp_path, (1, 3, 8, 8), (1, 3, 8, 8), np.float16))
    assert x.dtype == torch.float16


def test_all_inputs_of_a_file_are_given(tmp_path: Path) -> None:
    node, weights = conv("stem", 3, writes="maps")
    nodes = [
        node,
        helper.make_node("MatMul", ["code", "fc.weight"], ["row"], "fc"),
        helper.make_node("Unsqueeze", ["row", "axes"], ["bias"]),
        helper.make_node("Add", ["maps", "bias"], ["y"]),
    ]
    weights |= {"fc.weight": random(5, 4), "axes": np.array([2, 3])}
    inputs = {"x": random(1, 3, 10, 10), "code": random(1, 5)}
    opened = {"x": ["n", 3, "h", "w"], "code": ["n", 5]}
    save_graph(tmp_path / "a.onnx", nodes, inputs, weights, shapes=opened)
    network = network_from_onnx(tmp_path / "a.onnx")
    assert shapes(network, 10) == [(1, 3, 10, 10), (1, 5)]
    made = report(network, 10, unit=("stem.stem", None), time=True)
    assert made.analysis.macs == 8 * 8 * 4 * 27 + 20
    assert made.unit is not None
    assert made.unit.box == (4, 6, 4, 6)


def test_a_grey_picture_is_analysed_from_its_file(tmp_path: Path) -> None:
    node, weights = conv("stem", 1)
    save_graph(tmp_path / "a.onnx", [node], {"x": random(1, 1, 28, 28)}, weights)
    made = analyze(network_from_onnx(tmp_path / "a.onnx"))
    assert (made.picture, made.macs) == ((1, 1, 28, 28), 26 * 26 * 36)


def test_fields_of_channels_last_are_not_claimed(tmp_path: Path) -> None:
    node, weights = conv("stem", 3, reads="turned")
    nodes = [helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]), node]
    save_graph(tmp_path / "a.onnx", nodes, {"x": random(1, 12, 10, 3)}, weights)
    network = network_from_onnx(tmp_path / "a.onnx")
    made = report(network, draws=True)
    assert made.analysis.macs == 10 * 8 * 4 * 27
    assert {layer.field for layer in made.analysis.layers} == {None}
    for look in (lambda: report(network, unit=("stem.stem", None)), lambda: unit_field(network, "stem.stem")):
        with pytest.raises(ValueError, match=r"\(B, H, W, C\), in which fields are not followed"):
            look()


def test_whole_numbers_have_no_effective_field(tmp_path: Path) -> None:
    node, weights = conv("stem", 3, reads="floats")
    nodes = [helper.make_node("Cast", ["x"], ["floats"], to=1), node]
    save_graph(tmp_path / "a.onnx", nodes, {"x": np.zeros((1, 3, 8, 8), np.uint8)}, weights)
    network = network_from_onnx(tmp_path / "a.onnx")
    assert report(network, draws=True).unit is None
    with pytest.raises(ValueError, match="uint8, whole numbers, which have no gradient"):
        unit_field(network, "stem.stem")


def test_the_examples_of_the_module_hold() -> None:
    assert doctest.testmod(module, extraglobs={"nn": nn}) == (0, 1)
