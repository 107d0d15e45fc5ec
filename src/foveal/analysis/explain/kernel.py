"""`foveal explain kernel`: what a larger kernel costs, and who uses it."""

from __future__ import annotations

from typing import Any

from torch import nn

from foveal.analysis.explain.measures import macs, parameters
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal, short, whole

KERNELS = (1, 3, 5, 7, 9, 11)
CHANNELS, MAPS, SIDE = 3, 64, 224

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Kernel size",
        "text": (
            "A kernel of k x k looks at k x k pixels at once and multiplies each by a weight of its own. For c "
            "channels that go in and n that come out it has k * k * c * n weights and n biases, so cost grows "
            "with the square of k."
        ),
        "table": f"One convolution, {CHANNELS} -> {MAPS} channels, on {SIDE} x {SIDE} pixels",
        "columns": ("kernel", "parameters", "MACs", "against 3 x 3", "typical use"),
        "lesson": (
            "Take 3 x 3 unless you have a reason: two of them in a row see as far as one 5 x 5 with "
            "{share} of its weights (see: foveal explain receptive-field)."
        ),
    },
    "zh": {
        "title": "卷积核大小",
        "text": (
            "k×k 的卷积核一次看 k×k 个像素，每个像素各乘一个权重。输入 c 个通道、输出 n 个通道时，"
            "共有 k·k·c·n 个权重，外加 n 个偏置，所以开销随 k 的平方增长。"
        ),
        "table": f"一层卷积，通道 {CHANNELS} -> {MAPS}，输入 {SIDE} x {SIDE}",
        "columns": ("卷积核", "参数量", "乘加次数", "相对 3 x 3", "常见用途"),
        "lesson": (
            "没有特别的理由就用 3×3：两层 3×3 叠起来与一层 5×5 看得一样远，"
            "权重却只有后者的 {share}（参见 foveal explain receptive-field）。"
        ),
    },
}

USES = {
    "en": {
        1: "mixing channels: bottlenecks",
        3: "the default since VGG",
        5: "Inception; depthwise layers",
        7: "stem of ResNet; ConvNeXt",
        9: "stem of SRCNN",
        11: "stem of AlexNet",
    },
    "zh": {
        1: "混合通道：瓶颈结构",
        3: "VGG 以来的默认选择",
        5: "Inception；深度卷积",
        7: "ResNet 首层；ConvNeXt",
        9: "SRCNN 首层",
        11: "AlexNet 首层",
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    layers = {kernel: nn.Conv2d(CHANNELS, MAPS, kernel, padding=kernel // 2) for kernel in KERNELS}
    costs = {kernel: macs(layer, CHANNELS, SIDE, SIDE) for kernel, layer in layers.items()}
    rows = tuple(
        (
            f"{kernel} x {kernel}",
            whole(parameters(layer)),
            short(costs[kernel]),
            f"{decimal(costs[kernel] / costs[3])} x",
            USES[language][kernel],
        )
        for kernel, layer in layers.items()
    )
    once, twice = (nn.Conv2d(MAPS, MAPS, kernel, bias=False) for kernel in (5, 3))
    share = f"{2 * parameters(twice) / parameters(once):.0%}"
    table = Table(text["table"], text["columns"], rows, "rrrrl")
    return Page(text["title"], text["text"], (table,), text["lesson"].format(share=share))
