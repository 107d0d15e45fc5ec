"""Receptive fields: boxes of pixels must be exactly those that gradients find, and those of closed formulas."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Does, randomised
from torch import nn
from torch.nn import functional as F

from foveal.analysis.analyze import analyze
from foveal.analysis.boxes import EMPTY, Reach
from foveal.analysis.reach import reaches
from foveal.analysis.replay import replay
from foveal.analysis.trace import Trace, operation, shape_of, trace

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


def last_map(recorded: Trace, local: bool = False):
    """The last (B, C, H, W) that depends on the picture; with `local`, before anything takes the whole picture."""
    found = reaches(recorded)
    maps = [node for node in found if node.op == "call_function" and len(shape_of(node)) == 4]
    return [node for node in maps if not (local and found[node].whole)][-1]


def gradient_boxes(recorded: Trace, node, units, inputs: int = 1):
    """Of each unit, all channels together: first and last row and column of the pixels that move it."""
    generator, shape = torch.Generator().manual_seed(1), shape_of(recorded.inputs[0])
    moved = {unit: torch.zeros(shape[-2:]) for unit in units}
    for _ in range(inputs):
        picture = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        map_ = replay(recorded, [picture], [node])[node]
        weights = torch.rand(map_.shape[:2], generator=generator, dtype=torch.float64) + 0.5
        for y, x in units:
            (gradient,) = torch.autograd.grad((map_[:, :, y, x] * weights).sum(), picture, retain_graph=True)
            moved[y, x] += gradient.abs().sum((0, 1)) > 0
    return {unit: box_of(seen) for unit, seen in moved.items()}


def box_of(seen):
    rows, columns = seen.sum(1).nonzero().flatten(), seen.sum(0).nonzero().flatten()
    return None if not len(rows) else (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]))


def units_of(shape):
    """Middle, two corners, three edges of a map."""
    height, width = shape[-2:]
    low, right = height - 1, width - 1
    places = [(height // 2, width // 2), (0, 0), (low, right), (0, width // 2), (height // 2, right), (low, 0)]
    return list(dict.fromkeys(places))


def check(network: nn.Module, size, *, batch: int = 4, inputs: int = 1, local: bool = False) -> Reach:
    """Every unit's box is that of its gradients; the field without edges is given back."""
    sides = (size, size) if isinstance(size, int) else size
    recorded = trace(randomised(network), [torch.zeros(batch, 3, *sides, dtype=torch.float64)])
    return check_boxes(recorded, last_map(recorded, local), reaches(recorded, beyond=False), reaches(recorded), inputs)


def check_boxes(recorded: Trace, node, inside, nominal, inputs: int) -> Reach:
    assert nominal[node].known
    for unit, box in gradient_boxes(recorded, node, units_of(shape_of(node)), inputs).items():
        said = inside[node].unit(*unit)
        assert (said if said[0] <= said[1] and said[2] <= said[3] else None) == box, (unit, said, box)
    return nominal[node]


def conv(*args, **options):
    return nn.Conv2d(*args, **options)


def functional(do, **held):
    return Does(lambda self, x: do(x, self), **held)


def same(x, kernel, stride):
    """TensorFlow's "same": what is odd goes to the bottom and right."""
    tall, wide = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
    return F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


class UNet(nn.Module):
    def __init__(self, up):
        super().__init__()
        self.a, self.b, self.c = conv(3, 4, 3, padding=1), conv(4, 6, 3, 2, 1), conv(6, 6, 3, 2, 1)
        self.up, self.d, self.e = up, conv(12, 4, 3, padding=1), conv(8, 4, 3, padding=1)

    def forward(self, x):
        fine = F.silu(self.a(x))
        middle = F.silu(self.b(fine))
        middle = F.silu(self.d(torch.cat([middle, self.up(self.c(middle))], 1)))
        return self.e(torch.cat([fine, F.interpolate(middle, fine.shape[2:])], 1))


class Gate(nn.Module):
    """Squeeze-excite."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Linear(channels, 2), nn.Linear(2, channels)

    def forward(self, x):
        return x * torch.sigmoid(self.up(torch.tanh(self.down(x.mean((2, 3))))))[:, :, None, None]


class Attention(nn.Module):
    def __init__(self, causal=False):
        super().__init__()
        self.qkv, self.causal = nn.Linear(4, 12), causal

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(tokens).view(len(x), -1, 3, 2, 2).permute(2, 0, 3, 1, 4)
        made = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return made.transpose(1, 2).reshape(len(x), -1, 4).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """ConvNeXt's: depthwise, then channels last."""

    def __init__(self, channels):
        super().__init__()
        self.conv = conv(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.up, self.down = nn.LayerNorm(channels), nn.Linear(channels, 8), nn.Linear(8, channels)

    def forward(self, x):
        inner = self.down(F.gelu(self.up(self.norm(self.conv(x).permute(0, 2, 3, 1)))))
        return x + inner.permute(0, 3, 1, 2)


def unlike(x, self):
    return torch.cat([self.a(x), self.b(x), self.c(x)], 1)


def shuffled(x, self):
    inner = self.a(x)  # two groups, and what comes after sees one of them
    inner = inner.view(len(x), 2, 4, *inner.shape[2:]).transpose(1, 2).reshape(inner.shape)
    return self.b(inner)


def weights_from_picture(x, self):
    return F.conv2d(x, x.mean((0, 2, 3))[:, None, None] * self.a.weight)


SMALL = {
    "chain": lambda: (nn.Sequential(conv(3, 4, 3, padding=1), nn.SiLU(), conv(4, 4, 5, 2, 2)), (19, 24)),
    "dilation": lambda: (nn.Sequential(conv(3, 4, 3, dilation=3, padding=3), conv(4, 4, 3, 2, 2, dilation=2)), 21),
    "asymmetric kernels": lambda: (
        nn.Sequential(conv(3, 4, (1, 7), padding=(0, 3)), conv(4, 4, (5, 1), 1, (2, 0))),
        20,
    ),
    "asymmetric strides": lambda: (nn.Sequential(conv(3, 4, 3, (2, 1), 1), conv(4, 4, 3, (1, 3), 1)), (20, 23)),
    "even kernels": lambda: (nn.Sequential(conv(3, 4, 4, 2, 1), conv(4, 4, 2, 1, 1), conv(4, 4, 6)), 24),
    "same padding, even kernel": lambda: (nn.Sequential(conv(3, 4, 4, padding="same"), conv(4, 4, 3, 2)), 17),
    "stride larger than the kernel": lambda: (nn.Sequential(conv(3, 4, 2, 5), conv(4, 4, 1, 2)), (31, 29)),
    "more padding than kernel": lambda: (nn.Sequential(conv(3, 4, 1, padding=2), conv(4, 4, 3, padding=1)), 9),
    "ceil-mode max pool": lambda: (nn.Sequential(conv(3, 16, 3), nn.MaxPool2d(3, 2, ceil_mode=True)), 20, 4),
    "max pool with dilation": lambda: (nn.Sequential(conv(3, 16, 3), nn.MaxPool2d(2, 2, 1, 2)), 20, 4),
    "average pool, ceil mode": lambda: (nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil_mode=True), conv(3, 4, 3)), 18),
    "transposed": lambda: (nn.Sequential(conv(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)), 18),
    "transposed, kernel smaller than stride": lambda: (nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 3), conv(4, 4, 3)), 8),
    "transposed, grouped, dilated, then a wide kernel": lambda: (
        nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2, 2, 1, groups=2, dilation=2), conv(4, 4, 7, padding=3)),
        9,
        1,
        4,
    ),
    "nearest": lambda: (nn.Sequential(conv(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), conv(4, 4, 5, padding=2)), 16),
    "nearest, crooked": lambda: (functional(lambda x, s: F.interpolate(x, scale_factor=1.7)), (11, 7)),
    "nearest, to a size": lambda: (functional(lambda x, s: F.interpolate(x, (13, 5))), (9, 11)),
    "nearest-exact": lambda: (functional(lambda x, s: F.interpolate(x, (13, 5), mode="nearest-exact")), (9, 11)),
    "bilinear": lambda: (
        nn.Sequential(conv(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear"), conv(4, 4, 3, padding=1)),
        16,
    ),
    "bilinear, crooked": lambda: (functional(lambda x, s: F.interpolate(x, scale_factor=1.7, mode="bilinear")), (9, 7)),
    "bilinear with corners": lambda: (
        functional(lambda x, s: F.interpolate(x, (10, 17), mode="bilinear", align_corners=True)),
        (7, 12),
    ),
    "bilinear, smaller": lambda: (functional(lambda x, s: F.interpolate(x, (5, 4), mode="bilinear")), (17, 13)),
    "antialiased": lambda: (
        functional(lambda x, s: F.interpolate(x, (5, 9), mode="bilinear", antialias=True)),
        (17, 8),
    ),
    "bicubic": lambda: (functional(lambda x, s: F.interpolate(x, (13, 30), mode="bicubic")), (8, 12)),
    "bicubic, antialiased": lambda: (
        functional(lambda x, s: F.interpolate(x, (5, 7), mode="bicubic", antialias=True)),
        (23, 18),
    ),
    "pixel shuffle": lambda: (
        nn.Sequential(conv(3, 8, 3, 2, 1), nn.PixelShuffle(2), conv(2, 4, 5, padding=2)),
        16,
    ),
    "pixel unshuffle": lambda: (nn.Sequential(nn.PixelUnshuffle(2), conv(12, 4, 3, padding=1)), 16),
    "reflecting rim": lambda: (nn.Sequential(nn.ReflectionPad2d(3), conv(3, 4, 3)), 12),
    "replicating rim": lambda: (nn.Sequential(nn.ReplicationPad2d(3), conv(3, 4, 3)), 12),
    "circular rim": lambda: (nn.Sequential(nn.CircularPad2d((3, 1, 2, 0)), conv(3, 4, 3)), 12),
    "convolution that reflects": lambda: (conv(3, 4, 5, padding=2, padding_mode="reflect"), 12),
    "constant rim, cut again": lambda: (nn.Sequential(nn.ZeroPad2d((4, 0, -2, 3)), conv(3, 4, 3)), 12),
    "rims on unlike sides": lambda: (
        functional(lambda x, s: F.pad(s.a(x), (4, 0)) + F.pad(x, (0, 4)), a=conv(3, 3, 5, padding=2)),
        12,
    ),
    "rims of unlike channels": lambda: (
        functional(lambda x, s: torch.cat([F.pad(s.a(x), (4, -4)), x], 1), a=conv(3, 3, 5, padding=2)),
        12,
    ),
    "TensorFlow's same": lambda: (functional(lambda x, s: s.a(same(x, 3, 2)), a=conv(3, 4, 3, 2)), (16, 17)),
    "slices": lambda: (functional(lambda x, s: s.a(x[:, :, 3:, 1::2]), a=conv(3, 4, 3, padding=1)), 16),
    "focus": lambda: (
        functional(
            lambda x, s: s.a(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2]], 1)),
            a=conv(9, 4, 3, padding=1),
        ),
        16,
    ),
    "roll": lambda: (functional(lambda x, s: s.a(torch.roll(x, (3, -2), (2, 3))), a=conv(3, 4, 3, padding=1)), 12),
    "flip": lambda: (functional(lambda x, s: s.a(x + s.a(x).flip(3)), a=conv(3, 3, 3, padding=1)), 12),
    "turned": lambda: (functional(lambda x, s: s.a(x.transpose(2, 3)), a=conv(3, 4, (3, 5), (2, 1))), (16, 12)),
    "places written down": lambda: (
        functional(lambda x, s: s.a(x[:, :, torch.arange(11, -1, -2)]), a=conv(3, 4, 3)),
        12,
    ),
    "places held": lambda: (
        functional(lambda x, s: x.index_select(3, s.at), at=nn.Buffer(torch.tensor([7, 1, 0]))),
        12,
    ),
    "unlike branches": lambda: (
        functional(unlike, a=conv(3, 2, 1), b=conv(3, 2, 5, padding=2), c=conv(3, 2, 3, padding=4, dilation=4)),
        16,
    ),
    "residual of a window": lambda: (functional(lambda x, s: x + s.a(x)[..., :1, :1], a=conv(3, 3, 3)), 9),
    "groups": lambda: (
        functional(lambda x, s: s.b(torch.cat([x, s.a(x)], 1)), a=conv(3, 3, 5, padding=2), b=conv(6, 4, 1, groups=2)),
        12,
    ),
    "shuffled groups": lambda: (
        functional(
            lambda x, s: shuffled(torch.cat([x, s.c(x)], 1), s),
            a=conv(6, 8, 3, padding=1, groups=2),
            b=conv(8, 4, 1, groups=4),
            c=conv(3, 3, 5, padding=2),
        ),
        12,
    ),
    "rim of channels": lambda: (
        functional(
            lambda x, s: s.b(F.pad(s.a(x), (0, 0, 0, 0, 1, 1)) + F.pad(x, (0, 0, 0, 0, 1, 2))),
            a=conv(3, 4, 3, padding=1),
            b=conv(6, 2, 1, groups=2),
        ),
        9,
    ),
    "adaptive pool": lambda: (nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d((7, 3)), conv(4, 4, 2)), (20, 23)),
    "adaptive max pool": lambda: (nn.Sequential(conv(3, 32, 3), nn.AdaptiveMaxPool2d(3)), 12, 4),
    "global pool, spread": lambda: (functional(lambda x, s: x[..., :3, :3] + F.adaptive_avg_pool2d(x, 1)), 9),
    "squeeze-excite": lambda: (nn.Sequential(conv(3, 4, 3, 2, 1), Gate(4), conv(4, 4, 3, padding=1)), 12),
    "efficient channel attention": lambda: (
        functional(
            lambda x, s: x * torch.sigmoid(s.a(x.mean((2, 3))[:, None])).transpose(1, 2)[..., None],
            a=nn.Conv1d(1, 1, 3, padding=1),
        ),
        9,
    ),
    "attention": lambda: (nn.Sequential(conv(3, 4, 4, 4), Attention(), conv(4, 4, 1)), 16),
    "causal attention": lambda: (nn.Sequential(conv(3, 4, 4, 4), Attention(causal=True)), 16),
    "running sum": lambda: (functional(lambda x, s: x.cumsum(2)), 8),
    "row attention by products": lambda: (
        functional(lambda x, s: torch.softmax(x @ x.transpose(2, 3), 3) @ x),
        6,
    ),
    "einsum over rows": lambda: (functional(lambda x, s: torch.einsum("bchw,hg->bcgw", x, torch.ones(9, 4).to(x))), 9),
    "einsum with dots": lambda: (
        functional(lambda x, s: torch.einsum("...hw,wv->...hv", x, torch.ones(9, 4).to(x))),
        9,
    ),
    "product with a vector": lambda: (functional(lambda x, s: (x @ torch.ones(9).to(x))[..., None] + x[..., :2]), 9),
    "ConvNeXt block": lambda: (nn.Sequential(conv(3, 4, 2, 2), Block(4), Block(4)), 24),
    "group norm": lambda: (
        functional(lambda x, s: s.n(s.a(x))[..., 2:4, 2:4], a=conv(3, 4, 3), n=nn.GroupNorm(2, 4)),
        9,
    ),
    "norm of its own statistics": lambda: (
        nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        9,
    ),
    "instance norm": lambda: (nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4)), 9),
    "instance norm with kept statistics": lambda: (
        nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
        9,
    ),
    "gated halves": lambda: (nn.Sequential(conv(3, 8, 3), nn.GLU(1), conv(4, 4, 3)), 12),
    "larger of two": lambda: (
        functional(lambda x, s: torch.max(s.a(x), s.b(x)), a=conv(3, 8, 3, padding=1), b=conv(3, 8, 1)),
        9,
        4,
    ),
    "patches side by side": lambda: (
        functional(lambda x, s: s.a(F.unfold(x, 3, padding=1, stride=2).view(len(x), 27, 6, 6)), a=conv(27, 4, 3)),
        12,
    ),
    "patches laid back": lambda: (
        functional(
            lambda x, s: F.fold(F.unfold(s.a(x), 3, padding=1), x.shape[2:], 3, padding=1), a=conv(3, 2, 3, padding=1)
        ),
        12,
    ),
    "patches laid back with gaps": lambda: (
        functional(
            lambda x, s: F.fold(F.unfold(x, (2, 3), (2, 1), (1, 2), (3, 4)), (12, 9), (2, 3), (2, 1), (1, 2), (3, 4)),
        ),
        (12, 9),
    ),
    "patches laid on a finer map": lambda: (
        functional(
            lambda x, s: F.fold(s.a(F.unfold(x, 3, padding=1, stride=2)), 23, 5, stride=3), a=nn.Conv1d(27, 50, 1)
        ),
        (14, 14),
    ),
    "as zeros": lambda: (functional(lambda x, s: s.a(torch.zeros_like(x)) + x[:, :1], a=conv(3, 4, 5, padding=2)), 9),
    "weights from the picture": lambda: (functional(weights_from_picture, a=conv(3, 4, 3)), 9),
    "slices of depth": lambda: (
        functional(lambda x, s: s.a(x[:, None]).flatten(1, 2), a=nn.Conv3d(1, 2, (2, 3, 3), (1, 2, 1), (0, 1, 1))),
        12,
    ),
    "U-Net, nearest": lambda: (UNet(nn.Upsample(scale_factor=2)), 24),
    "U-Net, bilinear": lambda: (UNet(nn.Upsample(scale_factor=2, mode="bilinear")), 24),
    "U-Net, transposed": lambda: (UNet(nn.ConvTranspose2d(6, 6, 2, 2)), 24),
}


@functools.cache
def side_by_side(size, channels):
    """All small networks that take one picture in one trace, since each takes a while: their names and last maps."""
    made = {name: make() for name, make in SMALL.items()}
    mine = {name: network for name, (network, *takes) in made.items() if taken(*takes)[:2] == (size, channels)}
    together = Does(lambda self, x: [one(x) for one in self.networks], networks=nn.ModuleList(mine.values()))
    sides = (size, size) if isinstance(size, int) else size
    recorded = trace(randomised(together), [torch.zeros(4, channels, *sides, dtype=torch.float64)])
    maps = dict(zip(mine, recorded.graph.output_node().args[0], strict=True))
    return recorded, maps, reaches(recorded, beyond=False), reaches(recorded)


def taken(size, inputs=1, channels=3):
    return size, channels, inputs


@pytest.mark.parametrize("name", SMALL)
def test_boxes_are_those_of_the_gradients(name):
    size, channels, inputs = taken(*SMALL[name]()[1:])
    recorded, maps, inside, nominal = side_by_side(size, channels)
    check_boxes(recorded, maps[name], inside, nominal, inputs)


GOING_ON = {
    "chain": 12,
    "dilation": 12,
    "asymmetric strides": 12,
    "even kernels": 12,
    "ceil-mode max pool": 12,
    "transposed": 12,
    "nearest": 12,
    "bilinear": 12,
    "pixel shuffle": 12,
    "pixel unshuffle": 12,
    "reflecting rim": 12,
    "TensorFlow's same": 12,
    "ConvNeXt block": 12,
    "unlike branches": 12,
    "patches laid back": 12,
    "U-Net, nearest": 12,
    "U-Net, bilinear": 12,
    "U-Net, transposed": 12,
}


@functools.cache
def last_reach(name, side, beyond=True):
    recorded = trace(SMALL[name]()[0].double(), [torch.zeros(1, 3, side, side, dtype=torch.float64)])
    return reaches(recorded, beyond=beyond)[last_map(recorded)]


@pytest.mark.parametrize("name", GOING_ON)
def test_beyond_the_edge_boxes_are_those_of_a_larger_picture(name):
    margin = 48
    small, large = last_reach(name, 24), last_reach(name, 24 + 2 * margin, beyond=False)
    far = [round(margin / jump) for jump in small.jump]
    for y, x in units_of(small.shape):
        box = large.unit(y + far[0], x + far[1])
        assert small.unit(y, x) == tuple(side - margin for side in box), (y, x)


def test_jumps_of_finer_maps():
    for name, jump in {
        "nearest": 1,
        "pixel shuffle": 1,
        "pixel unshuffle": 2,
        "U-Net, bilinear": 1,
        "focus": 2,
    }.items():
        assert last_reach(name, 24).jump == (jump, jump), name


def windowed(x, s):
    """The mean of every window taken away, and every second place of what remains."""
    rows, columns = x.shape[2] // 4, x.shape[3] // 4
    windows = x.view(len(x), 3, rows, 4, columns, 4)
    return s.a((windows - windows.mean((3, 5), keepdim=True)).reshape(x.shape))


def crossed(x, s):
    """One map of fine columns and one of fine rows."""
    return s.a(x[:, :, :, ::4][:, :, :8]) + s.a(x[:, :, ::4][..., :8])


def repeated(x, s):
    """Cells with gaps like those of no map."""
    return x[..., [0, 1, 5, 6, 20, 22, 30]]


def test_a_box_without_rows_has_no_columns():
    recorded = trace(functional(lambda x, s: F.pad(x, (-2, 3, 1, -4))), [torch.zeros(1, 3, 24, 24)])
    reach = reaches(recorded, beyond=False)[last_map(recorded)]
    assert reach.unit(0, 4) == reach.unit(5, 24) == reach.at(0, 0, 5, 24) == EMPTY
    assert reach.unit(5, 21) == (4, 4, 23, 23)


JUMPS = {
    "rolled by one": (lambda x, s: torch.roll(x, 1, 3), {}, (1, 1)),
    "rolled by half": (lambda x, s: torch.roll(x, (16, 16), (2, 3)), {}, (1, 1)),
    "rolled, then every second": (lambda x, s: s.a(torch.roll(x, 2, 3)), {"a": conv(3, 3, 3, 2, 1)}, (2, 2)),
    "turned around": (lambda x, s: s.a(x.flip(3))[..., ::3], {"a": conv(3, 3, 3, 2, 1)}, (2, 6)),
    "windows": (windowed, {"a": conv(3, 3, 1, 2)}, (2, 2)),
    "rolled, then one of four places": (
        lambda x, s: torch.roll(x, 3, 3).view(len(x), 3, 16, 2, 16, 2)[:, :, :, 1, :, 0],
        {},
        (2, 2),
    ),
    "tokens and back": (lambda x, s: s.a(x).flatten(2).mT.reshape(-1, 8, 8, 3), {"a": conv(3, 3, 4, 4)}, (4, 4)),
    "side by side": (lambda x, s: torch.cat([x, x], 2), {}, (1, 1)),
    "patches laid back": (lambda x, s: F.fold(F.unfold(x, 3, padding=1), 32, 3, padding=1), {}, (1, 1)),
    "patches laid on a finer map": (
        lambda x, s: F.fold(s.a(F.unfold(x, 2, stride=2)), 64, 4, stride=4),
        {"a": nn.Conv1d(12, 48, 1)},
        (0.5, 0.5),
    ),
    "finest along each axis": (crossed, {"a": conv(3, 3, 1)}, (1, 1)),
    "cut": (lambda x, s: torch.roll(x, 5, 2)[:, :, 3:, 1::4], {}, (1, 4)),
    "places that are no row": (repeated, {}, (1, None)),
}


@functools.cache
def jumps():
    networks = [functional(do, **held) for do, held, _ in JUMPS.values()]
    together = Does(lambda self, x: [one(x) for one in self.networks], networks=nn.ModuleList(networks))
    recorded = trace(together, [torch.zeros(1, 3, 32, 32)])
    found = reaches(recorded)
    ends = recorded.graph.output_node().args[0]
    return {name: found[node].jump for name, node in zip(JUMPS, ends, strict=True)}


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_after_steps_that_move_rows(name):
    assert tuple(None if math.isnan(step) else step for step in jumps()[name]) == JUMPS[name][2]


def test_jumps_between_stages_of_shifted_windows():
    network = torchvision.models.SwinTransformer([4, 4], 8, [2, 2, 2], [2, 2, 2], [3, 3], num_classes=2)
    layers = {layer.name: layer for layer in analyze(network, 96).layers}
    assert layers["features.0.0"].field.jump == (4, 4)
    assert layers["features.2.reduction"].field.jump == (8, 8)
    assert layers["features.4.reduction"].field.jump == (16, 16)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("resnet18", 435),
        ("vgg16", 212),
        ("alexnet", 195),
        pytest.param("resnet50", 427, marks=pytest.mark.full),
    ],
)
def test_published_fields_of_last_maps(name, field):
    """Araujo et al. 2019; their ResNet-50 of 483 has its strides elsewhere, torchvision's in its 3 x 3 kernels."""
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
        recorded = trace(network.eval(), [torch.empty(1, 3, 224, 224)])
    node = last_map(recorded, local=True)
    assert reaches(recorded)[node].field() == (field, field)


def test_a_network_without_weights_on_the_meta_device_is_enough():
    with torch.device("meta"):
        recorded = trace(nn.Sequential(conv(3, 4, 3), conv(4, 4, 3)), [torch.empty(1, 3, 8, 8)])
    assert reaches(recorded)[last_map(recorded)].field() == (5, 5)


def check_chain(steps):
    size, jump, start, modules = 1, 1, 0.0, []
    for kernel, stride, padding, dilation in steps:
        start += ((kernel - 1) * dilation / 2 - padding) * jump
        size, jump = size + (kernel - 1) * dilation * jump, jump * stride
        modules.append(conv(3, 3, kernel, stride, padding, dilation))
    found = check(nn.Sequential(*modules), 2 * size + 2 * jump)
    assert found.field() == (size, size)
    assert found.jump == (jump, jump)
    top, bottom, left, right = found.unit(0, 0)
    assert ((top + bottom) / 2, (left + right) / 2) == (start, start)


def check_branches(branches):
    modules = [
        nn.Sequential(*(conv(3, 3, kernel, padding=(kernel - 1) // 2 * rate, dilation=rate) for kernel, rate in branch))
        for branch in branches
    ]
    found = check(functional(lambda x, s: sum(part(x) for part in s.parts), parts=nn.ModuleList(modules)), 16)
    widest = max(1 + sum((kernel - 1) * rate for kernel, rate in branch) for branch in branches)
    assert found.field() == (widest, widest)


chain = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=4
)
branches = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3)), max_size=2), min_size=2, max_size=4
)
few = settings(max_examples=6, deadline=None, derandomize=True)
many = settings(max_examples=24, deadline=None, derandomize=True)

test_chains_have_the_field_jump_and_start_of_the_formula = few(given(chain)(check_chain))
test_branches_see_what_the_widest_of_them_does = few(given(branches)(check_branches))
test_many_chains_too = pytest.mark.full(many(given(chain)(check_chain)))
test_many_branches_too = pytest.mark.full(many(given(branches)(check_branches)))


def test_what_nobody_knows_is_the_whole_picture_and_told():
    network = functional(lambda x, s: s.a(torch.fft.rfft2(x).abs()), a=conv(3, 4, 3))
    recorded = trace(network, [torch.zeros(1, 3, 16, 16)])
    found = reaches(recorded)
    assert not found[last_map(recorded)].known
    assert found[last_map(recorded)].unit(3, 3)[0] <= 0
    assert next(operation(node) for node in found if not found[node].known) == "fft_rfft2"


@pytest.mark.parametrize(
    "do",
    [
        lambda x, s: x.sort(2).values,
        lambda x, s: torch.gather(x, 2, x.argsort(2)),
        lambda x, s: x[:, :, x.mean((0, 1, 3)).argmax()[None]],
        lambda x, s: x.flatten(2).topk(4, 2).values[..., None],
        lambda x, s: F.one_hot(x.argmax(1), 3).to(x),
        lambda x, s: s.a(x.flatten(2).transpose(1, 2))[0][..., None],
        lambda x, s: F.linear(x, x[0, 0]),
    ],
)
def test_numbers_that_choose_places_are_told_and_never_taken_for_places(do):
    recorded = trace(functional(do, a=nn.GRU(3, 4, batch_first=True)), [torch.randn(2, 3, 9, 9)])
    reach = reaches(recorded)[last_map(recorded)]
    top, bottom, left, right = reach.box
    assert not reach.known
    assert bool((top <= 0).all() and (bottom >= 8).all() and (left <= 0).all() and (right >= 8).all())


def test_channels_last_maps_have_places_of_their_own():
    network = functional(lambda x, s: F.pad(s.a(x).permute(0, 2, 3, 1), (0, 0, 1, 3, 2, 0)), a=conv(3, 4, 3, 2))
    recorded = trace(network, [torch.zeros(1, 3, 17, 19)])
    node = recorded.operations()[-1]
    reach = reaches(recorded)[node]
    assert reach.places() == (1, 2)
    assert reach.field() == (3, 3)
    assert reach.at(0, 0, 0, 0) == (-4, -2, -2, 0)
    assert reach.at(0, 9, 12, 3) == (14, 16, 22, 24)


def test_windows_that_are_shifted_see_their_windows():
    body = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [3, 3], num_classes=2).features
    network = nn.Sequential(body, torchvision.ops.Permute([0, 3, 1, 2]))
    found = check(network, 60, batch=1)
    assert found.field()[0] > 4 * 3 * 2


REAL = {
    "alexnet": (lambda: torchvision.models.alexnet().features, 227),
    "shufflenet_v2_x0_5": (lambda: torchvision.models.shufflenet_v2_x0_5(), 224),
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(), 224),
    "vgg11": (lambda: torchvision.models.vgg11().features, 224),
    "resnet18": (lambda: torchvision.models.resnet18(), 480),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(), 512),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False), 480),
    "inception_v3": (lambda: torchvision.models.inception_v3(init_weights=False), 480),
    "densenet121": (lambda: torchvision.models.densenet121(), 480),
    "resnext26ts": (lambda: timm.create_model("resnext26ts"), 480),
    "convnext_atto": (lambda: timm.create_model("convnext_atto", ls_init_value=None), 480),
}
ORDINARY = ("alexnet", "squeezenet1_1")


@pytest.mark.parametrize(
    "name", [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.full) for name in REAL]
)
def test_fields_of_known_networks_are_those_of_their_gradients(name):
    make, size = REAL[name]
    check(make(), size, batch=1, inputs=2, local=True)
