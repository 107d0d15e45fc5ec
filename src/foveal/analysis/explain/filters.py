"""`foveal explain filters`: what classical kernels make of an edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal, grid

SIDE, BRIGHT = 6, 9.0

KERNELS: dict[str, tuple[tuple[tuple[float, ...], ...], int]] = {
    "mean": (((1, 1, 1), (1, 1, 1), (1, 1, 1)), 9),
    "gaussian": (((1, 2, 1), (2, 4, 2), (1, 2, 1)), 16),
    "sharpen": (((0, -1, 0), (-1, 5, -1), (0, -1, 0)), 1),
    "roberts p": (((-1, 0), (0, 1)), 1),
    "roberts q": (((0, -1), (1, 0)), 1),
    "prewitt": (((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)), 1),
    "sobel": (((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), 1),
    "sobel y": (((-1, -2, -1), (0, 0, 0), (1, 2, 1)), 1),
    "laplacian": (((0, 1, 0), (1, -4, 1), (0, 1, 0)), 1),
    "log": (((0, 0, 1, 0, 0), (0, 1, 2, 1, 0), (1, 2, -16, 2, 1), (0, 1, 2, 1, 0), (0, 0, 1, 0, 0)), 1),
}
"""Name -> its whole numbers, and what they are divided by."""

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Classical filters",
        "text": (
            "Before kernels were learned they were designed: weights that add up to 1 smooth or sharpen, weights that "
            f"add up to 0 answer to change alone. Here they cross an edge from 0 to {BRIGHT:g}."
        ),
        "table": "Answers across an edge with the dark on the left, and across one with the dark above",
        "columns": ("filter", "kernel", "sum", "vertical edge", "horizontal edge"),
        "note": "Read across the edge in its middle; border pixels are repeated outside, kernels are not turned. "
        "`foveal filter` divides Roberts by the root of 2, Prewitt by 6 and Sobel by 8: slopes for each pixel.",
        "row": "the edge",
        "names": {
            "mean": "mean",
            "gaussian": "Gaussian",
            "sharpen": "sharpen",
            "roberts p": "Roberts p",
            "roberts q": "Roberts q",
            "prewitt": "Prewitt x",
            "sobel": "Sobel x",
            "sobel y": "Sobel y",
            "magnitude": "Sobel\nmagnitude",
            "laplacian": "Laplacian",
            "log": "Laplacian\nof Gaussian",
        },
        "lesson": (
            "First derivatives (Roberts, Prewitt, Sobel) peak at an edge and know its direction; second derivatives "
            "(Laplacian) change sign there, whatever the direction; the first layer of a trained CNN learns both kinds."
        ),
    },
    "zh": {
        "title": "经典滤波器",
        "text": (
            "在卷积核由数据学出来之前，它们是人设计的：权重之和为 1 的核使图像平滑或锐化，"
            f"权重之和为 0 的核只对变化有反应。下面让它们穿过一条从 0 到 {BRIGHT:g} 的边缘。"
        ),
        "table": "对边缘的响应：竖边左暗右亮，横边上暗下亮",
        "columns": ("滤波器", "卷积核", "和", "竖边", "横边"),
        "note": "数值取自正中、垂直穿过边缘的一行（列）。图外重复边界像素；卷积核不翻转。"
        "foveal filter 命令把 Roberts 除以根号 2、Prewitt 除以 6、Sobel 除以 8，得到每像素的斜率。",
        "row": "边缘本身",
        "names": {
            "mean": "均值",
            "gaussian": "高斯",
            "sharpen": "锐化",
            "roberts p": "Roberts p",
            "roberts q": "Roberts q",
            "prewitt": "Prewitt x",
            "sobel": "Sobel x",
            "sobel y": "Sobel y",
            "magnitude": "Sobel 幅值",
            "laplacian": "拉普拉斯",
            "log": "高斯拉普拉斯",
        },
        "lesson": (
            "一阶导数（Roberts、Prewitt、Sobel）在边缘处最强，还分得清方向；二阶导数（拉普拉斯）不论方向，"
            "在边缘处变号；训练好的 CNN 第一层，这两类都会自己学出来。"
        ),
    },
}


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    edge = _edge()
    rows = [(text["row"], "", "", *_across(edge, edge.mT))]
    for name, (numbers, divisor) in KERNELS.items():
        kernel = _kernel(name)
        drawn = grid(numbers) + (f"\n/ {divisor}" if divisor > 1 else "")
        answers = [filtered(x, kernel) for x in (edge, edge.mT)]
        rows.append((text["names"][name], drawn, decimal(kernel.sum().item()), *_across(*answers)))
        if name == "sobel y":
            answers = [
                torch.hypot(*(filtered(x, _kernel(part)) for part in ("sobel", "sobel y"))) for x in (edge, edge.mT)
            ]
            rows.append((text["names"]["magnitude"], "sqrt(x*x + y*y)", "", *_across(*answers)))
    table = Table(text["table"], text["columns"], tuple(rows), "lrrrr", text["note"])
    return Page(text["title"], text["text"], (table,), text["lesson"])


def _kernel(name: str) -> Tensor:
    numbers, divisor = KERNELS[name]
    return torch.tensor(numbers, dtype=torch.float64) / divisor


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """A map (H, W) under a kernel (k, k), as networks do it (the kernel is not turned round), border replicated."""
    high, wide = kernel.shape
    sides = ((wide - 1) // 2, wide // 2, (high - 1) // 2, high // 2)
    return F.conv2d(F.pad(x[None, None], sides, mode="replicate"), kernel[None, None])[0, 0]


def _edge() -> Tensor:
    x = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    x[:, SIDE // 2 :] = BRIGHT
    return x


def _across(vertical: Tensor, horizontal: Tensor) -> tuple[str, str]:
    """The middle row of the answer to a vertical edge, and the middle column of that to a horizontal one."""
    lines = vertical[len(vertical) // 2].tolist(), horizontal[:, horizontal.shape[1] // 2].tolist()
    across, down = (" ".join(decimal(value) for value in line) for line in lines)
    return across, down
