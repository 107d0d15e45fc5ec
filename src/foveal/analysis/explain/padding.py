"""`foveal explain padding`: what lies beside the picture, and what it does to sizes and to borders."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from foveal.analysis.explain.measures import size_after
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal

SIDE, DEPTHS, KERNELS = 32, (1, 2, 4, 8, 15), (3, 5, 7)
ROW = (1.0, 2.0, 3.0, 4.0)
MODES = {"constant": 2, "replicate": 2, "reflect": 2, "circular": 2}

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Padding",
        "text": (
            "Without padding a k x k kernel makes every side k - 1 pixels shorter, layer after layer; with (k - 1) / 2 "
            'pixels around the map ("same") it keeps its size. What these pixels are is a choice, and networks learn '
            "with the one that they were given."
        ),
        "sizes": f"Side of the map after so many layers of stride 1, from {SIDE} pixels",
        "size_columns": ("kernel", "padding"),
        "after": "after {depth}",
        "gone": "gone",
        "modes": "What is put beside the row 1 2 3 4, and what a 3 x 3 mean of ones gives in the corner",
        "mode_columns": ("mode", "the row, 2 pixels wider", "corner of ones"),
        "names": {"constant": "zeros", "replicate": "replicate", "reflect": "reflect", "circular": "circular"},
        "lesson": (
            "Pad by (k - 1) / 2 to stack layers freely. With zeros expect borders to be dimmer: a corner keeps "
            "{corner} of its value; the other modes keep all of it."
        ),
    },
    "zh": {
        "title": "填充",
        "text": (
            "不填充时，k×k 的卷积核每过一层就让边长少 k - 1 个像素；四周各补 (k - 1) / 2 个像素（“same”），"
            "尺寸就不变。补什么值可以选，训练时用哪一种，推理时也要用哪一种。"
        ),
        "sizes": f"边长 {SIDE} 的图经过若干层（步幅 1）后的边长",
        "size_columns": ("卷积核", "填充"),
        "after": "{depth} 层后",
        "gone": "已无",
        "modes": "在一行 1 2 3 4 两边补的值，以及全 1 的图做 3 x 3 均值后角上的值",
        "mode_columns": ("方式", "两边各补 2 个像素", "全 1 图的角"),
        "names": {"constant": "补零", "replicate": "复制边缘", "reflect": "镜像", "circular": "循环"},
        "lesson": "补 (k - 1) / 2 个像素，就能随意加深网络。补零会使边缘变弱，角上的值只剩 {corner}；其余方式不变弱。",
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    gone = text["gone"]
    sizes = tuple(
        (f"{kernel} x {kernel}", str(padding), *(_side_after(kernel, padding, depth, gone) for depth in DEPTHS))
        for kernel in KERNELS
        for padding in (0, (kernel - 1) // 2)
    )
    columns = (*text["size_columns"], *(text["after"].format(depth=depth) for depth in DEPTHS))
    modes = tuple((text["names"][mode], _widened(mode), decimal(_corner(mode))) for mode in MODES)
    tables = (
        Table(text["sizes"], columns, sizes, "rr" + "r" * len(DEPTHS)),
        Table(text["modes"], text["mode_columns"], modes, "lrr"),
    )
    lesson = text["lesson"].format(corner=f"{_corner('constant'):.0%}")
    return Page(text["title"], text["text"], tables, lesson)


def _side_after(kernel: int, padding: int, depth: int, gone: str) -> str:
    try:
        return str(
            size_after(nn.Sequential(*(nn.Conv2d(1, 1, kernel, 1, padding) for _ in range(depth))), 1, SIDE, SIDE)[1]
        )
    except RuntimeError:  # the kernel is larger than what is left
        return gone


def _widened(mode: str) -> str:
    row = F.pad(torch.tensor(ROW)[None, None], (2, 2), mode=mode)
    return " ".join(decimal(value) for value in row.flatten().tolist())


def _corner(mode: str) -> float:
    """What a mean over 3 x 3 pixels makes of the corner of a map of ones."""
    return F.avg_pool2d(F.pad(torch.ones(1, 1, 6, 6), (1, 1, 1, 1), mode=mode), 3, 1)[0, 0, 0, 0].item()
