"""`foveal explain sharing`: a convolution against the fully connected layer that it replaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.analysis.explain.measures import macs, parameters
from foveal.analysis.explain.page import Page, Table
from foveal.analysis.explain.written_numbers import decimal, percent, short, whole

SIDE, CHANNELS, MAPS, KERNEL, SMALL = 224, 3, 64, 3, 8

TEXT: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Shared weights",
        "text": (
            "A convolution is a fully connected layer with two restrictions: a cell is connected to its neighbourhood "
            "only, and every place uses the same weights. The first saves work and parameters alike, the second "
            "parameters again."
        ),
        "table": f"From {CHANNELS} x {SIDE} x {SIDE} numbers to {MAPS} x {SIDE} x {SIDE}",
        "columns": ("layer", "parameters", "times", "MACs"),
        "convolution": f"convolution {KERNEL} x {KERNEL}",
        "local": "the same, weights not shared",
        "full": "fully connected",
        "matrix": f"The same written as a matrix, for one {SMALL} x {SMALL} map",
        "matrix_columns": ("quantity", "number"),
        "facts": (
            "entries of the matrix",
            "entries that are not zero",
            "share of them",
            "different weights among them",
            "largest difference of both outputs",
        ),
        "lesson": (
            "Because all places share {weights} weights per pair of channels, a pattern learned in one corner is found "
            "everywhere, and the layer fits pictures of any size."
        ),
    },
    "zh": {
        "title": "权重共享",
        "text": (
            "卷积就是加了两条限制的全连接层：每个单元只与邻域相连，所有位置用同一组权重。"
            "前一条既省计算也省参数，后一条再省参数。"
        ),
        "table": f"从 {CHANNELS} x {SIDE} x {SIDE} 个数到 {MAPS} x {SIDE} x {SIDE} 个数",
        "columns": ("层", "参数量", "倍数", "乘加次数"),
        "convolution": f"{KERNEL} x {KERNEL} 卷积",
        "local": "局部连接，但不共享权重",
        "full": "全连接",
        "matrix": f"把同样的卷积写成矩阵（单通道，{SMALL} x {SMALL}）",
        "matrix_columns": ("项目", "数值"),
        "facts": ("矩阵元素", "其中非零", "非零比例", "不同的权重", "两种算法输出之差的最大值"),
        "lesson": (
            "每对通道在所有位置共用 {weights} 个权重，所以在一处学到的图案到处都能认出，同一层也能处理任意大小的图。"
        ),
    },
}


class _LocallyConnected(nn.Module):
    """A convolution with weights of its own at every place; only counted, never run on data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(SIDE * SIDE, MAPS, CHANNELS * KERNEL**2))
        self.bias = nn.Parameter(torch.empty(MAPS, SIDE, SIDE))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, KERNEL, padding=KERNEL // 2)  # (B, C * k * k, H * W)
        out = torch.bmm(self.weight, patches.permute(2, 1, 0))  # (H * W, maps, B)
        return out.permute(2, 1, 0).unflatten(2, (SIDE, SIDE)) + self.bias


def page(language: str) -> Page:
    """The page in one of the languages."""
    text = TEXT[language]
    with torch.device("meta"):  # the fully connected one would not fit into any memory
        layers = {
            "convolution": nn.Conv2d(CHANNELS, MAPS, KERNEL, padding=KERNEL // 2),
            "local": _LocallyConnected(),
            "full": nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE**2, MAPS * SIDE**2)),
        }
    one = parameters(layers["convolution"])
    rows = tuple(
        (
            str(text[name]),
            whole(parameters(layer)),
            short(parameters(layer) / one) if layer is not layers["convolution"] else "1",
            short(macs(layer, CHANNELS, SIDE, SIDE)),
        )
        for name, layer in layers.items()
    )
    tables = (
        Table(text["table"], text["columns"], rows, "lrrr"),
        Table(
            text["matrix"],
            text["matrix_columns"],
            tuple(zip(text["facts"], _matrix_facts(), strict=True)),
            "lr",
        ),
    )
    return Page(text["title"], text["text"], tables, text["lesson"].format(weights=KERNEL**2))


def _matrix_facts() -> tuple[str, ...]:
    layer = nn.Conv2d(1, 1, KERNEL, padding=KERNEL // 2, bias=False).double()
    layer.weight.data = torch.arange(1.0, KERNEL**2 + 1, dtype=torch.float64).view_as(layer.weight)
    with torch.no_grad():
        pictures = torch.eye(SMALL**2, dtype=torch.float64).view(-1, 1, SMALL, SMALL)
        matrix = layer(pictures).flatten(1).T  # column by column what each pixel alone gives
        picture = torch.linspace(-1, 1, SMALL**2, dtype=torch.float64)
        apart = (matrix @ picture - layer(picture.view(1, 1, SMALL, SMALL)).flatten()).abs().max().item()
    nonzero = matrix[matrix != 0]
    return (
        whole(matrix.numel()),
        whole(nonzero.numel()),
        percent(nonzero.numel() / matrix.numel()),
        whole(nonzero.unique().numel()),
        decimal(apart, 9),
    )
