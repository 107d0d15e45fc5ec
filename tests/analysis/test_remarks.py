"""Remarks: each where it belongs, with its numbers, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import Does
from torch import nn

from foveal.analysis.analysis_page import analysis_page
from foveal.analysis.analyze import analyze
from foveal.analysis.from_onnx.network import network_from_onnx


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


def scattered(self, x):
    """Sorts the numbers of a map by size: places that nobody can follow."""
    return self.after(self.before(x).flatten(2).sort(2)[0].view(x.shape[0], 4, *x.shape[2:]))


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
    "a pixel behind padding": (
        nn.Sequential(nn.ZeroPad2d((1, 1, 1, 1)), conv(3, 4, 3, 3)),
        33,
        LOST,
        ["1: a kernel of 3", "33 rows", "last 1;"],
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
    "a later field that nobody knows": (
        Does(scattered, before=conv(3, 4, 3, padding=1), after=conv(4, 4, 3, padding=1)),
        16,
        FIELD,
    ),
    "padding that a pool leaves out": (
        nn.Sequential(conv(3, 8, 3, padding=1), nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2)),
        32,
        LOST,
    ),
    "padding by reflection, with a step between": (
        nn.Sequential(nn.ReflectionPad2d((0, 1, 0, 1)), nn.ReLU(), conv(3, 4, 3, 2)),
        33,
        LOST,
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


class Clumsy(nn.Module):
    """One of each of what is remarked on."""

    def __init__(self):
        super().__init__()
        self.large, self.depthwise = conv(3, 16, 7, padding=3), conv(16, 16, 3, 2, groups=16)
        self.transposed, self.head = nn.ConvTranspose2d(16, 8, 3, 2), nn.Linear(8, 4000)
        self.shrink, self.pool = conv(16, 16, 5, padding=2), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(torch.relu(self.shrink(torch.relu(self.large(x)))))
        x = self.transposed(self.depthwise(x))
        return self.head(x.mean((2, 3)))


class AsFunctions(Clumsy):
    """The same, of functions alone."""

    def forward(self, x):
        x = torch.relu(F.conv2d(x, self.large.weight, self.large.bias, padding=3))
        x = torch.relu(F.conv2d(x, self.shrink.weight, self.shrink.bias, padding=2))
        x = F.conv2d(F.max_pool2d(x, 2), self.depthwise.weight, self.depthwise.bias, stride=2, groups=16)
        x = F.conv_transpose2d(x, self.transposed.weight, self.transposed.bias, stride=2)
        return F.linear(x.mean((2, 3)), self.head.weight, self.head.bias)


def without_names(remarks):
    """In the order of the run, and what is said of them."""
    said = []
    for remark in remarks:
        said.append(remark.partition(": ")[2] if "see" in remark or "transposed" in remark else remark)
    return said


def test_functions_get_the_remarks_of_modules():
    torch.manual_seed(0)
    usual, functions = analyze(Clumsy(), 33).remarks, analyze(AsFunctions(), 33).remarks
    kinds = (KERNEL, LOST, BOARD, MEMORY)
    assert all(any(kind in remark for remark in usual) for kind in (*kinds, FIELD, MOST))
    for kind in kinds:
        ours, theirs = ([r for r in without_names(rows) if kind in r] for rows in (usual, functions))
        if kind == MEMORY:
            ours, theirs = (
                [row.replace(name, "") for row in rows]
                for rows, name in ((ours, "depthwise"), (theirs, "(network), conv2d_2"))
            )
        assert ours == theirs


def test_a_network_and_its_onnx_file_get_the_same_remarks(tmp_path):
    file = tmp_path / "clumsy.onnx"
    torch.onnx.export(Clumsy().eval(), (torch.rand(1, 3, 33, 33),), file, dynamo=False, opset_version=17)
    network = network_from_onnx(file)
    usual, made = analyze(Clumsy(), 33), analyze(network)
    remarks = list(made.remarks)
    for path in network.nodes:  # a layer's path, and then the node's
        remarks = [remark.replace(path, path.rpartition(".")[0]) for remark in remarks]
    assert len(usual.remarks) > 5
    assert remarks == list(usual.remarks)
    kinds = [layer.kind for layer in made.layers]
    assert kinds == ["Conv", "Relu", "Conv", "Relu", "MaxPool", "Conv", "ConvTranspose", "ReduceMean", "Gemm"]


def test_a_pool_is_named_only_where_there_is_one():
    bare, pooled = conv(3, 4, 3), nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    for network, named in ((bare, False), (pooled, True)):
        (remark,) = [remark for remark in analyze(network, 16).remarks if FIELD in remark]
        assert remark.endswith("before the global pool.") == named


def test_no_field_is_summed_up_where_a_later_one_is_unknown():
    made = analyze(Does(scattered, before=conv(3, 4, 3, padding=1), after=conv(4, 4, 3, padding=1)), 16)
    assert "after" in made.unknown
    assert "Receptive field</" not in analysis_page(made, title="t")
    assert "Receptive field</" in analysis_page(analyze(conv(3, 4, 3), 16), title="t")
