"""Features of ONNX files: those of the network that was exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_graphs import save_graph
from torch import nn

from foveal.analysis.feature_pictures import draw_features, network_input
from foveal.analysis.from_onnx.network import OnnxNetwork, network_from_onnx
from foveal.analysis.layer_maps import layers_with_maps, watched
from foveal.analysis.responses import unit_responses

pytestmark = pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript")


def network() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> OnnxNetwork:
    file = tmp_path_factory.mktemp("features") / "a.onnx"
    torch.onnx.export(network(), (torch.rand(1, 3, 24, 32),), file, dynamo=False, opset_version=17)
    return network_from_onnx(file)


def test_layers_with_maps_are_the_nodes(read: OnnxNetwork) -> None:
    found = layers_with_maps(read, torch.rand(1, 3, 24, 32))
    assert list(found.values()) == [(6, 22, 30), (6, 22, 30), (6, 11, 15), (4, 9, 13), (4, 9, 13)]
    assert set(found) <= set(read.nodes)


def test_maps_and_responses_are_those_of_the_network(read: OnnxNetwork) -> None:
    x = torch.rand(1, 3, 24, 32)
    for ours, theirs in (("0.0", "0.0"), ("0", "0.4"), ("0.2.MaxPool", "0.2")):
        with torch.no_grad():
            torch.testing.assert_close(watched(read, ours, x), watched(network(), theirs, x))
    made, wanted = (unit_responses(one, "0", x, 1)[0] for one in (read, network()))
    for view, signal in wanted.items():
        torch.testing.assert_close(made[view], signal, msg=view)


def test_a_file_says_at_what_size_its_pictures_are_read(read: OnnxNetwork) -> None:
    taken = network_input(read)
    assert (taken.height, taken.width) == (24, 32)
    assert draw_features(read, "0.3", torch.rand(3, 24, 32)).mode == "RGB"
    with pytest.raises(ValueError, match="takes pictures of 24 x 32; a size of 64 x 64 contradicts"):
        network_input(read, (64, 64))


def test_a_file_of_other_pictures_is_refused_in_one_line(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    for shape, dtype in (((1, 1, 8, 8), np.float32), ((2, 3, 8, 8), np.float32), ((1, 3, 8, 8), np.float64)):
        file = save_graph(tmp_path / "a.onnx", [node], {"x": np.zeros(shape, dtype)})
        if dtype == np.float64:
            assert network_input(network_from_onnx(file)).height == 8
            continue
        with pytest.raises(ValueError, match="expected one picture in colour") as caught:
            network_input(network_from_onnx(file))
        assert "\n" not in str(caught.value)
