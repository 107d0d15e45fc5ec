"""Remarks: each where it belongs, with its numbers, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from networks import Does
from torch import nn

from foveal.analysis.analyze import analyze


def conv(*args, **options):
    return nn.Conv2d(*args, **options)


def alone(*modules):
    """With nothing else to remark: a head that pools nothing and a field as large as a small picture."""
    return nn.Sequential(*modules)


FIELD, KERNEL, LOST, BOARD = "less than the picture's", "stacked 3 x 3", "never sees the last", "checkerboard"
MEMORY, MOST, UNUSED = "waits for memory", "of all parameters", "not used in evaluation"


def attended(self, x):
    tokens = x.flatten(2).transpose(1, 2)
    return (torch.softmax(tokens @ tokens.transpose(1, 2), 2) @ tokens).transpose(1, 2).reshape(x.shape)


def unused():
    module = nn.Sequential(conv(3, 4, 3))
    module.idle = nn.Linear(2, 3)
    return Does(lambda self, x: self.body[0](x), body=module)


FIRES = {
    "a small field": (nn.Sequential(conv(3, 4, 3)), (32, 40), FIELD, ["3 x 3", "32 x 40"]),
    "a field that is small one way": (nn.Sequential(conv(3, 4, (1, 9), padding=(0, 4))), 8, FIELD, ["1 x 9", "8 x 8"]),
    "a small field before the pool": (nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d(1)), 16, FIELD, ["3 x 3"]),
    "a kernel of 7": (nn.Sequential(conv(16, 16, 7, padding=3)), 6, KERNEL, ["7 x 7", "12,544", "3 stacked", "6,912"]),
    "a kernel of 5": (nn.Sequential(conv(8, 8, 5)), 9, KERNEL, ["1,600", "2 stacked", "1,152"]),
    "an odd side at stride 2": (
        nn.Sequential(conv(3, 4, 3, 2)),
        32,
        LOST,
        ["kernel of 3", "stride 2", "32 rows", "last 1"],
    ),
    "columns alone": (nn.Sequential(conv(3, 4, 3, 2)), (33, 32), LOST, ["32 columns", "last 1"]),
    "two rows": (nn.Sequential(conv(3, 4, 3, 3)), 32, LOST, ["last 2"]),
    "a pool": (nn.Sequential(conv(3, 4, 1), nn.MaxPool2d(2)), 15, LOST, ["1: a kernel of 2", "15 rows", "last 1"]),
    "an average pool": (nn.Sequential(nn.AvgPool2d((3, 2), (2, 2))), 16, LOST, ["kernel of 3", "16 rows", "last 1"]),
    "3 at stride 2, transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2)), 8, BOARD, ["kernel of 3", "stride 2"]),
    "5 at stride 3, transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 5, 3)), 8, BOARD, ["kernel of 5"]),
    "depthwise": (
        nn.Sequential(conv(32, 32, 3, groups=32)),
        64,
        MEMORY,
        ["1 convolution", "0: 2.2", "100.0% of the MACs"],
    ),
    "a large head": (
        nn.Sequential(conv(3, 4, 3), conv(4, 4, 3), nn.Flatten(), nn.Linear(64, 100)),
        8,
        MOST,
        ["3 holds 96%", "6,500 of 6,760"],
    ),
    "idle parameters": (unused(), 8, UNUSED, ["2 parameters are", "9 numbers", "body.idle.weight"]),
}


@pytest.mark.parametrize("name", FIRES)
def test_a_remark_is_made_with_its_numbers(name):
    network, size, says, numbers = FIRES[name]
    made = analyze(network, size)
    remarks = [remark for remark in made.remarks if says in remark]
    assert len(remarks) == 1, made.remarks
    for number in numbers:
        assert number in remarks[0]


SILENT = {
    "a field of the picture's size": (nn.Sequential(conv(3, 4, 3, padding=1), conv(4, 4, 7, padding=3)), 9, FIELD),
    "attention after a small field": (
        nn.Sequential(conv(3, 4, 4, 4), Does(lambda self, x: attended(self, x)), conv(4, 4, 1)),
        32,
        FIELD,
    ),
    "no map": (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), 8, FIELD),
    "few channels in": (nn.Sequential(conv(3, 64, 7, 2, 3)), 16, KERNEL),
    "a kernel of 3": (nn.Sequential(conv(16, 16, 3)), 9, KERNEL),
    "a depthwise kernel of 7": (nn.Sequential(conv(16, 16, 7, groups=16)), 9, KERNEL),
    "a dilated kernel of 5": (nn.Sequential(conv(16, 16, 5, dilation=2)), 12, KERNEL),
    "1 x 7": (nn.Sequential(conv(16, 16, (1, 7))), 12, KERNEL),
    "an even kernel": (nn.Sequential(conv(16, 16, 6)), 12, KERNEL),
    "a side that fits": (nn.Sequential(conv(3, 4, 3, 2)), 33, LOST),
    "padding": (nn.Sequential(conv(3, 4, 3, 2, 1)), 32, LOST),
    "stride 1": (nn.Sequential(conv(3, 4, 3)), 32, LOST),
    "a kernel smaller than its stride": (nn.Sequential(conv(3, 4, 1, 2)), 32, LOST),
    "same padding": (nn.Sequential(conv(3, 4, 3, padding="same")), 32, LOST),
    "a pool that rounds up": (nn.Sequential(conv(3, 4, 1), nn.MaxPool2d(2, ceil_mode=True)), 15, LOST),
    "a pool that fits": (nn.Sequential(conv(3, 4, 1), nn.MaxPool2d(3, 2, 1)), 16, LOST),
    "4 at stride 2, transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1)), 8, BOARD),
    "2 at stride 2, transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2)), 8, BOARD),
    "3 at stride 1, transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), 8, BOARD),
    "a dense kernel": (nn.Sequential(conv(32, 32, 3)), 64, MEMORY),
    "no convolution": (nn.Sequential(nn.ReLU()), 64, MEMORY),
    "layers alike": (nn.Sequential(conv(3, 3, 3), conv(3, 3, 3), conv(3, 3, 3)), 12, MOST),
    "two layers": (nn.Sequential(conv(3, 4, 1), conv(4, 64, 3)), 12, MOST),
    "nothing idle": (nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4)), 12, UNUSED),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_remark_is_not_made_where_it_does_not_belong(name):
    network, size, says = SILENT[name]
    assert not [remark for remark in analyze(network, size).remarks if says in remark]


def test_nothing_is_remarked_on_a_sound_network():
    network = nn.Sequential(
        conv(3, 16, 3, padding=1), nn.ReLU(), conv(16, 16, 3, 2, 1), nn.ReLU(), conv(16, 16, 3, 1, 1)
    )
    assert analyze(network, 9).remarks == ()


def test_time_stands_beside_what_waits_for_memory():
    remarks = analyze(nn.Sequential(conv(32, 32, 3, groups=32), conv(32, 32, 1)), 32, time=True).remarks
    assert any(MEMORY in remark and "of the time" in remark for remark in remarks)


def test_a_layer_that_is_called_twice_is_remarked_on_once():
    network = Does(lambda self, x: self.c(torch.relu(self.c(x))), c=conv(8, 8, 5, padding=2))
    assert len([remark for remark in analyze(network, 9).remarks if KERNEL in remark]) == 1
