"""What a fovea saves a ResNet-18, and what its halo costs.

    python benchmarks/network_time.py [--only forward,backward,large,narrow] [--compiled]

forward: batch 8, 256 px, S=64, L=3, glimpse to features. backward: the same with gradients, in training mode. large:
batch 1, 1024 px, L=5, the retina included. narrow: half of the channels in the periphery. The floor is the network
itself on the windows as a plain batch: no halo, no layout, nothing of ours.
"""

from __future__ import annotations

import random
from typing import Any

import timm
import torch
import torch._inductor.config
from side_by_side import arguments, chosen, compare, macs
from torch import nn

from foveal import Retina, foveate, planned
from foveal.retina import Glimpse


def resnet18() -> nn.Module:
    return timm.create_model("resnet18").eval().to(memory_format=torch.channels_last)


def on_windows(network: nn.Module, glimpse: Glimpse) -> torch.Tensor:
    return network.forward_features(glimpse.pixels.flatten(0, 1))  # type: ignore[operator, no-any-return]


def forward(network: nn.Module, repeats: int) -> None:
    pictures = torch.rand(8, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    glimpse = Retina(64, 3)(pictures)
    halo, bare = foveate(network), foveate(network, halo=False)
    ideal = 256**2 / (3 * 64**2)
    with torch.inference_mode():
        middle = compare(
            "ResNet-18, batch 8, 256 px, S=64, L=3: glimpse to features, forward",
            {
                "dense": lambda: network.forward_features(pictures),  # type: ignore[operator]
                "fovea": lambda: halo.forward_features(glimpse),
                "fovea without halo": lambda: bare.forward_features(glimpse),
                "floor: windows as a plain batch": lambda: on_windows(network, glimpse),
            },
            repeats,
            dict.fromkeys(["fovea", "fovea without halo", "floor: windows as a plain batch"], ideal),
        )
    print(f"  halo against zero-padding: {middle['fovea'] / middle['fovea without halo']:.3f}")


def backward(network: nn.Module, repeats: int) -> None:
    network = network.train()
    pictures = torch.rand(8, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    glimpse = Retina(64, 3)(pictures)
    halo, bare = foveate(network).train(), foveate(network, halo=False).train()

    def step(made: Any, given: Any) -> None:
        made.zero_grad(set_to_none=True)
        made(given).square().mean().backward()

    middle = compare(
        "ResNet-18, batch 8, 256 px, S=64, L=3: forward + backward, training mode",
        {
            "dense": lambda: step(network, pictures),
            "fovea": lambda: step(halo, glimpse),
            "fovea without halo": lambda: step(bare, glimpse),
            "floor: windows as a plain batch": lambda: step(network, glimpse.pixels.flatten(0, 1)),
        },
        max(5, repeats // 3),
        dict.fromkeys(["fovea", "fovea without halo"], 256**2 / (3 * 64**2)),
    )
    print(f"  halo against zero-padding: {middle['fovea'] / middle['fovea without halo']:.3f}")
    network.eval()


def large(network: nn.Module, repeats: int, compiled: bool) -> None:
    pixels = torch.rand(1, 3, 1024, 1024)
    picture, retina = pixels.contiguous(memory_format=torch.channels_last), Retina(64, 5)  # each as it likes it best
    halo, bare, chance = foveate(network), foveate(network, halo=False), random.Random(0).random
    runs = {
        "dense": lambda: network.forward_features(picture),  # type: ignore[operator]
        "fovea": lambda: halo.forward_features(retina(pixels)),
        "fovea, a new fixation each time": lambda: halo.forward_features(retina(pixels, (chance(), chance()))),
        "fovea without halo": lambda: bare.forward_features(retina(pixels)),
        "floor: windows as a plain batch": lambda: on_windows(network, retina(pixels)),
    }
    if compiled:
        glimpse = retina(pixels)
        plans = planned(halo, glimpse), planned(bare, glimpse), network
        fast, fast_bare, fast_dense = (torch.compile(plan, dynamic=False) for plan in plans)
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):  # as an option of compile it freezes less
            fast(glimpse.pixels), fast_bare(glimpse.pixels), fast_dense(picture)
        runs |= {
            "dense, compiled": lambda: fast_dense(picture),
            "fovea, compiled": lambda: fast(retina(pixels).pixels),
            "fovea without halo, compiled": lambda: fast_bare(retina(pixels).pixels),
        }
    ideal = 1024**2 / (5 * 64**2)
    with torch.no_grad():
        middle = compare(
            "ResNet-18, batch 1, 1024 px, S=64, L=5: picture to features, the retina included",
            runs,
            repeats,
            {name: ideal for name in runs if "dense" not in name},
        )
    if compiled:
        print(f"  fovea, compiled against dense, compiled: {middle['dense, compiled'] / middle['fovea, compiled']:.2f}")


def narrow(network: nn.Module, repeats: int) -> None:
    glimpse = Retina(64, 3)(torch.rand(8, 3, 256, 256))
    made = {"periphery of all channels": foveate(network), "half of them": foveate(network, periphery_channels=0.5)}
    count = {}
    with torch.inference_mode():
        for name, one in made.items():
            count[name] = macs(lambda one=one: one(glimpse))  # type: ignore[misc]
        all_of_them, half = count.values()
        title = "ResNet-18, batch 8, S=64, L=3: periphery_channels=0.5, glimpse to logits"
        compare(
            title,
            {name: lambda one=one: one(glimpse) for name, one in made.items()},  # type: ignore[misc]
            repeats,
            {"half of them": all_of_them / half},
        )
    print(f"  MACs: {half / 1e6:.1f} M of {all_of_them / 1e6:.1f} M, {half / all_of_them:.3f}")


def main() -> None:
    given = arguments(__doc__, only={"default": "forward,backward,large,narrow"}, compiled={"action": "store_true"})
    network = resnet18()
    repeats = given.repeats
    chosen(
        given,
        {
            "forward": lambda: forward(network, repeats),
            "backward": lambda: backward(network, repeats),
            "large": lambda: large(network, repeats, given.compiled),
            "narrow": lambda: narrow(network, repeats),
        },
    )


if __name__ == "__main__":
    main()
