"""`foveal explain convolutions`: the kinds of convolution by what they cost and how far they see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from foveal.analysis.explain.measures import field, macs, parameters, size_after
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import percent, short, sides, whole

CHANNELS, MAPS, SIDE, GROUPS = 64, 128, 56, 4
SMALL, KERNEL = 5, 3

KINDS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "standard": lambda c, n, g: nn.Conv2d(c, n, 3, padding=1, bias=False),
    "pointwise": lambda c, n, g: nn.Conv2d(c, n, 1, bias=False),
    "grouped": lambda c, n, g: nn.Conv2d(c, n, 3, padding=1, groups=g, bias=False),
    "depthwise separable": lambda c, n, g: nn.Sequential(
        nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.Conv2d(c, n, 1, bias=False)
    ),
    "dilated": lambda c, n, g: nn.Conv2d(c, n, 3, padding=2, dilation=2, bias=False),
    "transposed": lambda c, n, g: nn.ConvTranspose2d(c, n, 4, 2, 1, bias=False),
    "spatially separable": lambda c, n, g: nn.Sequential(
        nn.Conv2d(c, c, (3, 1), padding=(1, 0), bias=False), nn.Conv2d(c, n, (1, 3), padding=(0, 1), bias=False)
    ),
}
"""Name -> a layer of (channels in, channels out, groups)."""

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Kinds of convolution",
        "text": (
            "All of these turn maps into maps by sliding windows; they differ in which inputs a result is connected "
            "to, and so in weights, work and field. The standard one connects everything within its window."
        ),
        "table": f"{CHANNELS} -> {MAPS} channels on {SIDE} x {SIDE} cells, no biases",
        "columns": ("convolution", "parameters", "share", "MACs", "map", "field"),
        "names": {
            "standard": "standard 3 x 3",
            "pointwise": "pointwise 1 x 1",
            "grouped": f"grouped 3 x 3, {GROUPS} groups",
            "depthwise separable": "depthwise separable",
            "dilated": "dilated 3 x 3, rate 2",
            "transposed": "transposed 4 x 4, stride 2",
            "spatially separable": "spatially separable 3 + 3",
        },
        "small": f"A {KERNEL} x {KERNEL} kernel on a {SMALL} x {SMALL} map of one channel, no padding",
        "small_columns": ("convolution", "weights", "multiplications"),
        "small_names": ("standard 3 x 3", "3 x 1, then 1 x 3"),
        "lesson": (
            "A depthwise separable layer does for {share} of the work what a standard one does, if channels need not "
            "be mixed at every tap; a dilated one sees further for nothing; a transposed one enlarges."
        ),
    },
    "zh": {
        "title": "各种卷积",
        "text": (
            "它们都靠滑动窗口把特征图变成特征图，差别在于每个结果连到哪些输入，因而权重、计算量和感受野各不相同。"
            "标准卷积连接窗口内的一切。"
        ),
        "table": f"通道 {CHANNELS} -> {MAPS}，{SIDE} x {SIDE} 单元，无偏置",
        "columns": ("卷积", "参数量", "占标准卷积的比例", "乘加次数", "输出", "感受野"),
        "names": {
            "standard": "标准 3 x 3",
            "pointwise": "逐点 1 x 1",
            "grouped": f"分组 3 x 3，{GROUPS} 组",
            "depthwise separable": "深度可分离",
            "dilated": "空洞 3 x 3，扩张率 2",
            "transposed": "转置 4 x 4，步幅 2",
            "spatially separable": "空间可分离 3 + 3",
        },
        "small": f"{KERNEL} x {KERNEL} 卷积核用于 {SMALL} x {SMALL} 的单通道图，不填充",
        "small_columns": ("卷积", "权重", "乘法次数"),
        "small_names": ("标准 3 x 3", "先 3 x 1，再 1 x 3"),
        "lesson": (
            "只要不必在每个位置上都混合通道，深度可分离卷积用 {share} 的计算量就能顶替标准卷积；"
            "空洞卷积不添开销就看得更远；转置卷积把图放大。"
        ),
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text, rows = TEXT[language], []
    layers = {name: make(CHANNELS, MAPS, GROUPS) for name, make in KINDS.items()}
    standard = layers["standard"]
    for name, layer in layers.items():
        _, height, width = size_after(layer, CHANNELS, SIDE, SIDE)
        rows.append(
            (
                text["names"][name],
                whole(parameters(layer)),
                percent(parameters(layer) / parameters(standard)),
                short(macs(layer, CHANNELS, SIDE, SIDE)),
                sides(height, width),
                sides(*field(KINDS[name](1, 1, 1), 1, 16, 16)),
            )
        )
    kernels: tuple[nn.Module, ...] = (
        nn.Conv2d(1, 1, KERNEL, bias=False),
        nn.Sequential(nn.Conv2d(1, 1, (KERNEL, 1), bias=False), nn.Conv2d(1, 1, (1, KERNEL), bias=False)),
    )
    small = tuple(
        (name, str(parameters(layer)), str(macs(layer, 1, SMALL, SMALL)))
        for name, layer in zip(text["small_names"], kernels, strict=True)
    )
    work = macs(layers["depthwise separable"], CHANNELS, SIDE, SIDE) / macs(standard, CHANNELS, SIDE, SIDE)
    tables = (
        Table(text["table"], text["columns"], tuple(rows), "lrrrrr"),
        Table(text["small"], text["small_columns"], small, "lrr"),
    )
    return Page(text["title"], text["text"], tables, text["lesson"].format(share=f"{work:.0%}"))
