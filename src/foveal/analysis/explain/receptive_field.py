"""`foveal explain receptive-field`: how far a cell sees, by recurrence and by gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from foveal.analysis.chain_field import chain_fields
from foveal.analysis.explain.measures import field, macs, parameters, size_after
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal, percent, short, sides, whole
from foveal.analysis.layer_list import parse_layers, read_layers

CHAIN, CHAIN_SIDE = "conv k7 s2; conv k3 s2; conv k3 s1; conv k3 s1", 224
SIZES, SIZES_SIDE = "conv k5 s2 p1; pool k3 s1 p0; conv k3 s1 p1", 200
STACKS, WIDTH, MAP = ((5,), (3, 3), (7,), (3, 3, 3)), 64, 56

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Receptive field",
        "text": (
            "The receptive field is the part of the picture that a cell depends on. Layer by layer, the field grows by "
            "(k - 1) times the jump, and the jump (pixels between neighbouring cells) is multiplied by the stride."
        ),
        "chain": f"A chain of (kernel, stride) on {CHAIN_SIDE} pixels, without padding",
        "chain_columns": ("layer", "map", "field", "by gradient", "jump", "start"),
        "chain_note": "Start: the centre of the first cell's field, in pixels; pixel 0 reaches from 0 to 1.",
        "sizes": f"What becomes of {SIZES_SIDE} pixels",
        "sizes_columns": ("layer", "computed", "as run", "field", "jump"),
        "stacks": f"Small kernels in a row against one large, {WIDTH} channels, {MAP} x {MAP} cells, no biases",
        "stack_columns": ("layers", "field", "parameters", "MACs", "against one"),
        "one": "one {k} x {k}",
        "many": "{n} times {k} x {k}",
        "lesson": (
            "A stride multiplies what every later layer adds to the field; and two 3 x 3 in a row see as far as one "
            "5 x 5 with {saved} fewer weights, and one non-linearity more."
        ),
    },
    "zh": {
        "title": "感受野",
        "text": (
            "感受野是图像中能影响某个单元的那一块区域。每过一层，感受野增加 (k - 1)×间距，"
            "而间距（相邻单元相隔的像素数）乘以步幅。"
        ),
        "chain": f"一串（卷积核，步幅），输入 {CHAIN_SIDE} 像素，不填充",
        "chain_columns": ("层", "边长", "感受野", "梯度实测", "间距", "起点"),
        "chain_note": "起点：第一个单元感受野的中心，以像素计；第 0 个像素占 0 到 1。",
        "sizes": f"{SIZES_SIDE} 个像素逐层变成多少",
        "sizes_columns": ("层", "公式", "实际运行", "感受野", "间距"),
        "stacks": f"几个小核相叠对一个大核，{WIDTH} 通道，{MAP} x {MAP} 单元，无偏置",
        "stack_columns": ("层", "感受野", "参数量", "乘加次数", "相对一个大核"),
        "one": "1 个 {k} x {k}",
        "many": "{n} 个 {k} x {k}",
        "lesson": (
            "一层的步幅，会成倍放大后面每一层给感受野带来的增量；"
            "两个 3×3 相叠与一个 5×5 看得一样远，权重却少 {saved}，还多一次非线性。"
        ),
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    tables = (_chain(text), _sizes(text), _stacks(text))
    one, two = (parameters(_stack(kernels)) for kernels in STACKS[:2])
    lesson = text["lesson"].format(saved=f"{1 - two / one:.0%}")
    return Page(text["title"], text["text"], tables, lesson)


def _chain(text: dict[str, Any]) -> Table:
    layers = read_layers(CHAIN, channels=1)
    steps = [step for layer in layers if (step := layer.step(1))]
    network, rows = parse_layers(CHAIN.replace("; ", " c1; ") + " c1", channels=1), []
    for number, found in enumerate(chain_fields(steps, CHAIN_SIDE)):
        seen = field(network[: number + 1], 1, 64, 64)[1]
        name = f"({steps[number].kernel}, {steps[number].stride})"
        rows.append((name, str(found.size), str(found.field), str(seen), str(found.jump), decimal(found.start, 1)))
    return Table(text["chain"], text["chain_columns"], tuple(rows), "lrrrrr", text["chain_note"])


def _sizes(text: dict[str, Any]) -> Table:
    layers = read_layers(SIZES)
    steps = [step for layer in layers if (step := layer.step(1))]
    network, rows = parse_layers(SIZES), []
    for number, found in enumerate(chain_fields(steps, SIZES_SIDE)):
        _, height, width = size_after(network[: number + 1], 3, SIZES_SIDE, SIZES_SIDE)
        name = layers[number].text
        rows.append((name, str(found.size), sides(height, width), str(found.field), str(found.jump)))
    return Table(text["sizes"], text["sizes_columns"], tuple(rows), "lrrrr")


def _stacks(text: dict[str, Any]) -> Table:
    rows, one = [], 0
    for kernels in STACKS:
        stack = _stack(kernels)
        one = parameters(stack) if len(kernels) == 1 else one
        name = text["one" if len(kernels) == 1 else "many"].format(n=len(kernels), k=kernels[0])
        seen = field(_stack(kernels, channels=1), 1, 32, 32)
        cost = short(macs(stack, WIDTH, MAP, MAP))
        rows.append((name, sides(*seen), whole(parameters(stack)), cost, percent(parameters(stack) / one)))
    return Table(text["stacks"], text["stack_columns"], tuple(rows), "lrrrr")


def _stack(kernels: Sequence[int], channels: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(channels, channels, k, padding=k // 2, bias=False) for k in kernels))
