"""`foveal explain pooling`: what each way of pooling leaves of a map with one peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal, grid

SIDE, PEAK = 6, 9.0

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Pooling",
        "text": (
            "Pooling sums up each small window of a map by one number, so the map shrinks and small shifts matter "
            f"less. Here a {SIDE} x {SIDE} map of ones with a single {PEAK:g} in row 2, column 2 is pooled."
        ),
        "table": "What becomes of the peak",
        "columns": ("pooling", "result", "highest", "mean", "taught", "shift"),
        "names": {
            "max": "max 2 x 2",
            "average": "average 2 x 2",
            "overlapping": "overlapping max 3 x 3",
            "quadratic": "root mean square 2 x 2",
            "gem": "generalised mean, p = 3",
            "stochastic": "stochastic, expected",
            "blur": "max, then blur",
            "global average": "global average",
            "global max": "global max",
        },
        "lesson": (
            "Max keeps a feature's strength and teaches one cell a window, average keeps the background and teaches "
            "all, the others lie between; blurring after max softens what a shift of one pixel does (here {blur} "
            "instead of {max})."
        ),
        "note": (
            "All but the global ones take every second cell. Taught: input cells that receive gradient. Shift: the "
            "largest change of a result when the peak moves right by one pixel."
        ),
    },
    "zh": {
        "title": "池化",
        "text": (
            "池化用一个数概括图上的每个小窗口：图变小，细小的位移也不那么要紧了。"
            f"这里的输入是 {SIDE}×{SIDE}、全为 1 的图，只有第 2 行第 2 列是 {PEAK:g}。"
        ),
        "table": "峰值变成了什么",
        "columns": ("池化方式", "结果", "最大值", "均值", "得到梯度", "位移影响"),
        "names": {
            "max": "最大 2 x 2",
            "average": "平均 2 x 2",
            "overlapping": "重叠最大 3 x 3",
            "quadratic": "均方根 2 x 2",
            "gem": "广义均值，p = 3",
            "stochastic": "随机池化（期望）",
            "blur": "最大后再模糊",
            "global average": "全局平均",
            "global max": "全局最大",
        },
        "lesson": (
            "最大池化保住特征的强度，每个窗口只有一格得到梯度；平均池化照顾背景，每格都有梯度；其余介于两者之间。"
            "先取最大再模糊，一个像素的位移就没那么要紧（这里是 {blur}，不模糊则是 {max}）。"
        ),
        "note": (
            "除全局池化外，步幅都是 2。“得到梯度”指收到梯度的输入格数；"
            "“位移影响”指峰值右移一个像素时，结果变化的最大值。"
        ),
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    rows = []
    for name, pool in METHODS.items():
        x = _map(1).requires_grad_()
        out = pool(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        shift = (pool(_map(2)) - out).abs().max().item()
        taught = f"{int((gradient != 0).sum())} / {x.numel()}"
        numbers = (decimal(out.max().item()), decimal(out.mean().item()), taught, decimal(shift))
        rows.append((text["names"][name], grid(out[0, 0].tolist()), *numbers))
    table = Table(text["table"], text["columns"], tuple(rows), "lrrrrr", text["note"])
    shifts = {name: row[-1] for name, row in zip(METHODS, rows, strict=True)}
    lesson = text["lesson"].format(max=shifts["max"], blur=shifts["blur"])
    return Page(text["title"], text["text"], (table,), lesson)


def _map(column: int) -> Tensor:
    x = torch.ones(1, 1, SIDE, SIDE)
    x[0, 0, 1, column] = PEAK
    return x


def _generalised_mean(x: Tensor, power: float = 3.0) -> Tensor:
    return F.avg_pool2d(x**power, 2) ** (1 / power)


def _expected(x: Tensor) -> Tensor:
    """The mean of a window weighted by its own values: what drawing by them gives on average (Zeiler, Fergus 2013)."""
    return F.avg_pool2d(x * x, 2) / F.avg_pool2d(x, 2)


def _blurred(x: Tensor) -> Tensor:
    """Max at every cell, then every second cell of a binomial blur (Zhang 2019)."""
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    dense = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)
    return F.conv2d(F.pad(dense, (1, 1, 1, 1), mode="replicate"), (line[:, None] * line)[None, None], stride=2)


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": nn.MaxPool2d(2),
    "average": nn.AvgPool2d(2),
    "overlapping": nn.MaxPool2d(3, 2, 1),
    "quadratic": lambda x: nn.LPPool2d(2, 2)(x) / 2,  # the root of the mean of squares, not of their sum
    "gem": _generalised_mean,
    "stochastic": _expected,
    "blur": _blurred,
    "global average": nn.AdaptiveAvgPool2d(1),
    "global max": nn.AdaptiveMaxPool2d(1),
}
