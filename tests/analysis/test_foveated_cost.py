"""A foveated network's cost by level, against PyTorch's own counter on the network at work."""

from __future__ import annotations

import json

import pytest
import torch
from networks import Does
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveal import Layout, Retina, foveate
from foveal.analysis.analyze import analyze
from foveal.analysis.foveated_cost import foveated_cost
from foveal.blocks import create_block
from foveal.convert.foveate import UnsupportedModule
from foveal.retina import Glimpse

timm = pytest.importorskip("timm")


def counted(network, picture: int, size: int, levels: int, channels: int = 3, dtype=torch.float32) -> dict[str, int]:
    """MACs by operation of one look without halos, as PyTorch counts the running code."""
    layout = Layout.foveal(picture=(picture, picture), size=size, levels=levels)
    pixels = torch.rand(1, layout.num_windows, channels, size, size, dtype=dtype)
    foveated = foveate(network.eval(), halo=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        foveated(Glimpse(pixels, layout))
    found = counter.get_flop_counts()["Global"]
    return {str(operation).removeprefix("aten."): many // 2 for operation, many in found.items()}


@pytest.mark.parametrize(
    "name", ["resnet18", "seresnet18", pytest.param("mobilenetv3_small_050", marks=pytest.mark.full)]
)
def test_convolutional_networks_cost_what_the_running_code_does(name):
    network = timm.create_model(name)
    cost = foveated_cost(network, 256, size=64, levels=3)
    found = counted(network, 256, 64, 3)
    products = {operation: many for operation, many in found.items() if operation != "bmm"}  # pools, as products
    assert set(products) <= {"convolution", "addmm", "mm"}
    assert cost.macs == sum(products.values())
    assert [(level.level, level.windows) for level in cost.levels] == [(0, 1), (1, 1), (2, 1)]
    assert sum(level.macs for level in cost.levels) + cost.once == cost.macs
    assert cost.ratio == cost.dense.macs / cost.macs


def test_a_vision_transformer_costs_what_the_running_code_does_and_its_attention():
    """Attention by its formula: whether PyTorch counts that of a CPU differs between its releases.

    The `bmm` lay the positions over the windows.
    """
    network = timm.create_model("vit_tiny_patch16_224", depth=3)
    cost = foveated_cost(network, 224, size=64, levels=3)
    found = counted(network, 224, 64, 3)
    tokens = sum(level.tokens for level in cost.levels) + 1
    assert cost.macs == found["convolution"] + found["addmm"] + found["bmm"] + 3 * 2 * tokens**2 * 192
    assert [level.field for level in cost.levels] == [None] * 3


def test_levels_share_the_work_by_their_tokens():
    cost = foveated_cost(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=256), 256, size=64, levels=3)
    assert [level.tokens for level in cost.levels] == [16, 12, 12]  # 16 x (1 + 0.75 x 2)
    fovea, middle, outer = (level.macs for level in cost.levels)
    assert middle == outer < fovea
    assert abs(sum(level.macs for level in cost.levels) + cost.once - cost.macs) <= 3


def test_a_gate_for_the_whole_picture_sees_all_of_it():
    gate = create_block("squeeze_excite", channels=4)
    cost = foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), gate), 64, size=16, levels=3)
    assert [level.field for level in cost.levels] == [None] * 3


def test_fields_grow_with_the_level():
    cost = foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)), 64, size=16, levels=3)
    assert [level.field for level in cost.levels] == [(5, 5), (10, 10), (20, 20)]
    assert (cost.cells, cost.pixels, cost.size) == (3 * 16 * 16, 64 * 64, 16)
    assert [level.tokens for level in cost.levels] == [64, 48, 48]


def test_a_head_is_done_once():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    cost = foveated_cost(network, 64, size=16, levels=3)
    assert cost.once == 40
    assert [level.macs for level in cost.levels] == [16 * 16 * 4 * 27] * 3


def test_a_level_of_many_windows_costs_them_all():
    cost = foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), 32, size=32, levels=1)
    assert cost.ratio == 1
    assert cost.levels[0].macs == cost.dense.macs


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_and_channels(dtype):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)).to(dtype)
    assert foveated_cost(network, 64, size=16, levels=2).macs == 2 * 256 * 36
    transformer = timm.create_model("vit_tiny_patch16_224", depth=1, in_chans=1, img_size=64).to(dtype)
    cost = foveated_cost(transformer, 64, size=32, levels=2)
    found = counted(transformer, 64, 32, 2, 1, dtype)
    tokens = sum(level.tokens for level in cost.levels) + 1
    assert cost.macs == found["convolution"] + found["addmm"] + found["bmm"] + 2 * tokens**2 * 192


def test_the_dense_network_is_analysed_where_no_analysis_is_there_to_be_taken():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    dense = analyze(network, 64)
    assert foveated_cost(network, 64, size=16, levels=3).dense == dense
    assert foveated_cost(network, 64, size=16, levels=3, dense=dense).dense is dense


def test_it_is_plain_enough_for_json_and_leaves_the_network_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)).train()
    said = json.loads(json.dumps(foveated_cost(network, 64, size=16, levels=3).as_dict()))
    assert said["macs"] * said["ratio"] == pytest.approx(said["dense"])
    assert all(module.training for module in network.modules())


def test_what_cannot_be_foveated_is_refused():
    with pytest.raises(UnsupportedModule):
        foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Does(lambda self, x: x.flip(3))), 64, size=16)
    with pytest.raises(ValueError, match="levels is 0"):
        foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), 256, size=64, levels=0)


def test_a_retina_looks_at_as_many_cells():
    cost = foveated_cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), 256, size=64, levels=3)
    assert Retina(64, 3)(torch.rand(3, 256, 256)).pixels[:, :, 0].numel() == cost.cells
