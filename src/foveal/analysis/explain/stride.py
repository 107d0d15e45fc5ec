"""`foveal explain stride`: how large the map becomes, and which pixels nobody reads."""

from __future__ import annotations

from typing import Any

from torch import nn

from foveal.analysis.explain.measures import macs, pixels_read, size_after
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import percent, short, sides

STRIDES, PADDINGS = (1, 2, 3, 4), (0, 1)
KERNEL, SIDE, MAPS = 3, 224, 64

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Stride",
        "text": (
            "The window moves by s pixels at a time, so a side of n pixels gives floor((n + 2p - k) / s) + 1 cells "
            "with p pixels of padding. Twice the stride is a quarter of the cells, and of the work of all that follows."
        ),
        "table": f"A {KERNEL} x {KERNEL} convolution on {SIDE} x {SIDE} pixels, 3 -> {MAPS} channels",
        "columns": ("stride", "padding", "map", "cells kept", "MACs", "pixels that no window reads"),
        "lesson": (
            "A stride up to the kernel's size reads all but the last rows and columns; a larger one skips pixels "
            "everywhere, and no later layer gets them back."
        ),
    },
    "zh": {
        "title": "步幅",
        "text": (
            "窗口每次移动 s 个像素。边长为 n、填充为 p 时，输出边长为 floor((n + 2p - k) / s) + 1。"
            "步幅加倍，单元数降到四分之一，后面各层的计算量也随之降到四分之一。"
        ),
        "table": f"{KERNEL} x {KERNEL} 卷积，输入 {SIDE} x {SIDE}，通道 3 -> {MAPS}",
        "columns": ("步幅", "填充", "输出", "保留的单元", "乘加次数", "没有窗口读到的像素"),
        "lesson": "步幅不超过卷积核时，最多漏掉最后几行几列；步幅更大就会处处漏像素，后面的层再也找不回来。",
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text, rows = TEXT[language], []
    for stride in STRIDES:
        for padding in PADDINGS:
            layer = nn.Conv2d(3, MAPS, KERNEL, stride, padding)
            _, height, width = size_after(layer, 3, SIDE, SIDE)
            unread = 1 - pixels_read(nn.Conv2d(1, 1, KERNEL, stride, padding), 1, SIDE, SIDE).double().mean().item()
            rows.append(
                (
                    str(stride),
                    str(padding),
                    sides(height, width),
                    percent(height * width / SIDE**2),
                    short(macs(layer, 3, SIDE, SIDE)),
                    percent(unread),
                )
            )
    table = Table(text["table"], text["columns"], tuple(rows), "rrrrrr")
    return Page(text["title"], text["text"], (table,), text["lesson"])
