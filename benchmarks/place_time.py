"""What the ways of `right_place.py` cost in time: a batch of canvases, looked at and classified.

    python benchmarks/place_time.py [--batch 64] [--canvas 128]

Canvases lie in memory; finding the place, cutting the windows and the network all count. The weights are as they come:
the time does not depend on them. The multiply-accumulates are told beside it.
"""

from __future__ import annotations

import torch
from side_by_side import arguments, compare, macs
from small_resnet import SmallResNet
from torch import nn
from ways_of_looking import ways

from foveal import foveate


def main() -> None:
    given = arguments(
        __doc__,
        batch={"type": int, "default": 64, "help": "canvases at once"},
        canvas={"type": int, "default": 128, "help": "pixels along a canvas's side"},
        size={"type": int, "default": 32, "help": "cells along a chain's windows"},
    )
    network = SmallResNet().eval().to(memory_format=torch.channels_last)
    x = torch.rand(given.batch, 3, given.canvas, given.canvas).sub_(0.5).contiguous(memory_format=torch.channels_last)
    centres = torch.full((given.batch, 2), 0.5, dtype=torch.float64)
    possible = ways(given.canvas, given.size, torch.device("cpu"))
    names = [name for name in possible if "padded" not in name and name not in ("dense", "crop")]
    runs = {}
    for name in ["dense", *names]:
        way = possible[name]
        if way.head is not None:
            way.head.eval()
        model: nn.Module = foveate(network, pool="cell") if way.windows else network
        runs[name] = lambda way=way, model=model: model(way.look(x, centres))  # type: ignore[misc]
    ideal = {name: given.canvas**2 / possible[name].cells for name in runs}
    with torch.no_grad():
        title = f"{given.batch} canvases of {given.canvas} px, small ResNet, {given.threads} threads; ideal by cells"
        compare(title, runs, given.repeats, ideal)
        print(
            "  million MACs a canvas: "
            + ", ".join(f"{n} {macs(run) / 1e6 / given.batch:.0f}" for n, run in runs.items())
        )


if __name__ == "__main__":
    main()
