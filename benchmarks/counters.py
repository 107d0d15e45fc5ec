"""How counters of MACs agree with closed formulas, on networks of every kind: a table in Markdown.

    python benchmarks/counters.py

Each tool is called as its documentation says, and its number brought to multiply-accumulates: FLOPs are halved where a
tool counts two for each. A tool that is not installed is told so:
    pip install torchinfo fvcore ptflops calflops thop
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.analysis.analyze import analyze

RIGHT, NEAR = 0.005, 0.03
"""How far from the formula's number is right, and how far is near: norms, activations and pools are in it then."""


class Case(NamedTuple):
    """A network, what it takes, and what it costs by a closed formula.

    Args:
        make: the network.
        shape: of its input.
        macs: products of convolutions, linear layers, matrix products and attention.
        parameters: that it has, all of which it uses.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    macs: int
    parameters: int


class Deformable(nn.Module):
    """A deformable convolution, whose offsets come from an ordinary one."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(64, 18, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(64, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offsets(x))


class SelfAttention(nn.Module):
    """PyTorch's attention, asked as in every Transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(256, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Functional(nn.Module):
    """Weights and functions, and no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(64, 3, 3, 3))
        self.head = nn.Parameter(torch.randn(128, 64))
        self.mix = nn.Parameter(torch.randn(128, 128))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.conv2d(x, self.kernel, stride=2, padding=1).flatten(2).transpose(1, 2)
        tokens = F.linear(tokens, self.head) @ self.mix
        return torch.einsum("bnc,bmc->bnm", tokens, tokens)


def resnet50() -> int:
    """The stem, then blocks of 1 x 1, 3 x 3, 1 x 1, the first of a stage with a projection; the head."""
    many, channels = 112**2 * 64 * 3 * 49, 64
    for width, blocks, side in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        for block in range(blocks):
            before = side * (2 if block == 0 and width > 64 else 1)
            many += before**2 * channels * width + side**2 * (9 * width**2 + 4 * width**2)
            many += side**2 * channels * 4 * width * (block == 0)
            channels = 4 * width
    return many + 2048 * 1000


def vit_b_16() -> int:
    """Patches; in each of 12 layers four projections, a network of four times the width, scores and sums; the head."""
    width, tokens = 768, 14 * 14 + 1
    return 196 * width * 3 * 256 + 12 * (12 * tokens * width**2 + 2 * tokens**2 * width) + width * 1000


def convnext_tiny() -> int:
    """The stem; in each block a depthwise 7 x 7 and a network of four times the width; steps between; the head."""
    many, before = 56**2 * 96 * 3 * 16, 0
    for width, blocks, side in ((96, 3, 56), (192, 3, 28), (384, 9, 14), (768, 3, 7)):
        many += side**2 * width * before * 4 + blocks * side**2 * (49 * width + 8 * width**2)
        before = width
    return many + 768 * 1000


def decoder() -> nn.Module:
    """Three transposed convolutions, each of which doubles the sides."""
    layers = [nn.ConvTranspose2d(c, d, 4, 2, 1) for c, d in ((128, 64), (64, 32), (32, 3))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


# A transposed convolution multiplies every number that it takes with the kernel of each channel that comes out.
DECODER = 16 * (16**2 * 128 * 64 + 32**2 * 64 * 32 + 64**2 * 32 * 3)

CASES = {
    "ResNet-50": Case(torchvision.models.resnet50, (1, 3, 224, 224), resnet50(), 25_557_032),
    "ViT-B/16": Case(torchvision.models.vit_b_16, (1, 3, 224, 224), vit_b_16(), 86_567_656),
    "ConvNeXt-T": Case(torchvision.models.convnext_tiny, (1, 3, 224, 224), convnext_tiny(), 28_589_128),
    "transposed decoder": Case(decoder, (1, 128, 16, 16), DECODER, 16 * (128 * 64 + 64 * 32 + 32 * 3) + 64 + 32 + 3),
    "deformable block": Case(Deformable, (1, 64, 56, 56), 56**2 * 64 * 9 * (18 + 64), 64 * 9 * (18 + 64) + 18 + 64),
    "nn.MultiheadAttention": Case(
        SelfAttention, (1, 196, 256), 4 * 196 * 256**2 + 2 * 196**2 * 256, 4 * 256**2 + 4 * 256
    ),
    "functional model": Case(
        Functional,
        (1, 3, 64, 64),
        1024 * 64 * 27 + 1024 * 64 * 128 + 1024 * 128**2 + 1024**2 * 128,
        64 * 27 + 64 * 128 + 128**2,
    ),
}

Counted = tuple[float, int | None, str]
"""MACs, parameters where the tool tells them, and what it says that it did not count."""


def by_foveal(network: nn.Module, x: Tensor) -> Counted:
    found = analyze(network, inputs=[x])
    return found.macs, found.parameters, ", ".join(found.uncounted)


def by_torchinfo(network: nn.Module, x: Tensor) -> Counted:
    import torchinfo

    found = torchinfo.summary(network, input_data=x, verbose=0)
    return found.total_mult_adds, found.total_params, ""


def by_fvcore(network: nn.Module, x: Tensor) -> Counted:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    found = FlopCountAnalysis(network, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    total = found.total()  # one for each multiply-accumulate
    return total, parameter_count(network)[""], ", ".join(sorted(found.unsupported_ops()))


def by_flop_counter(network: nn.Module, x: Tensor) -> Counted:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() / 2, None, ""  # two for each


def by_flop_counter_in_training(network: nn.Module, x: Tensor) -> Counted:
    return by_flop_counter(network.train(), x)  # in evaluation PyTorch's attention is one step that it does not count


def by_ptflops(network: nn.Module, x: Tensor, backend: str = "aten") -> Counted:
    from ptflops import get_model_complexity_info

    options: dict[str, Any] = {"as_strings": False, "print_per_layer_stat": False, "backend": backend}
    macs, parameters = get_model_complexity_info(network, tuple(x.shape[1:]), **options)
    return macs, parameters, ""


def by_ptflops_of_modules(network: nn.Module, x: Tensor) -> Counted:
    return by_ptflops(network, x, "pytorch")


def by_calflops(network: nn.Module, x: Tensor) -> Counted:
    from calflops import calculate_flops

    options: dict[str, Any] = {"output_as_string": False, "print_results": False}
    _, macs, parameters = calculate_flops(network, input_shape=tuple(x.shape), **options)
    return macs, parameters, ""


def by_thop(network: nn.Module, x: Tensor) -> Counted:
    import thop

    macs, parameters = thop.profile(network, inputs=(x,), verbose=False)
    return macs, int(parameters), ""


TOOLS: dict[str, Callable[[nn.Module, Tensor], Counted]] = {
    "foveal": by_foveal,
    "torchinfo": by_torchinfo,
    "fvcore": by_fvcore,
    "torch": by_flop_counter,
    "torch, training": by_flop_counter_in_training,
    "ptflops, aten": by_ptflops,
    "ptflops, pytorch": by_ptflops_of_modules,
    "calflops": by_calflops,
    "thop": by_thop,
}


def version_of(tool: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(tool.partition(",")[0])
    except importlib.metadata.PackageNotFoundError:
        return "" if tool == "foveal" else None


def verdict(found: float, truth: float) -> str:
    """A number beside the truth, in words."""
    if not found:
        return "missing"
    off = found / truth - 1
    word = "right" if abs(off) <= RIGHT else "near" if abs(off) <= NEAR else "wrong"
    told = f"{found / 1e6:,.1f}"
    return f"{word} {told}" if word == "right" else f"{word} {told} ({off:+.1%})"


def told(tool: str, network: nn.Module, x: Tensor) -> Counted | str:
    """What a tool says of a network of its own; how it fails, if it does."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return TOOLS[tool](copy.deepcopy(network), x)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"fails: {type(error).__name__} {lines[0][:60] if lines else ''}"


def main() -> None:
    """Prints the tables of MACs and of parameters, and what tools say that they did not count."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    names = [tool.partition(", ") for tool in TOOLS]
    heads = [" ".join(filter(None, [tool, version_of(tool), way])) for tool, _, way in names]
    tables: dict[str, list[str]] = {"M-MACs": [], "parameters": []}
    said = []
    for name, case in CASES.items():
        network = case.make().eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == case.parameters
        rows = {"M-MACs": [f"{case.macs / 1e6:,.1f}"], "parameters": [f"{case.parameters:,}"]}
        for tool in TOOLS:
            found = told(tool, network, torch.randn(case.shape)) if version_of(tool) is not None else "not installed"
            if isinstance(found, str):
                for row in rows.values():
                    row.append(found)
                continue
            macs, parameters, left = found
            rows["M-MACs"].append(verdict(macs, case.macs))
            if parameters is None:
                rows["parameters"].append("not told")
            else:
                rows["parameters"].append("right" if parameters == case.parameters else f"wrong {parameters:,}")
            if left:
                said.append(f"- {tool}, {name}, says that it left out: {left}")
        for table, row in rows.items():
            tables[table].append(f"| {name} | {' | '.join(row)} |")
    for table, lines in tables.items():
        print(f"\n| {table} | formula | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 2)}")
        print("\n".join(lines))
    print("\n" + "\n".join(said))


if __name__ == "__main__":
    main()
