"""What pretrained networks make of fewer cells without any retraining: top-1 agreement with the dense network.

    python benchmarks/agreement.py ../shared/data/weights ../shared/data/osie ../shared/data/flickr8k [--pictures 300]

Photographs of OSIE (512 x 384, read at 512 x 512) and of Flickr8k (224 x 224). Resize, crop, and fovea see equally many
cells. "Dense in tiles" is the foveated network on windows that tile the picture at full resolution.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from side_by_side import arguments
from torch import Tensor
from torch.nn import functional as F

from foveal import Layout, Retina, foveate, open_picture
from foveal.models.saliency import load_saliency
from foveal.policy.policies import Scanpath
from foveal.zoo import load_network

SQUEEZENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VIT = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def networks(weights: Path) -> dict[str, tuple[Callable[[int], Any], tuple[Any, Any]]]:
    def squeezenet(side: int) -> Any:
        file = weights / "squeezenet1_1.safetensors"
        return load_network("torchvision:squeezenet1_1", weights=file).eval()

    def vit(side: int) -> Any:
        file = weights / "vit_tiny_patch16_224.safetensors"
        return load_network("timm:vit_tiny_patch16_224", weights=file, dynamic_img_size=True).eval()

    return {"squeezenet1_1": (squeezenet, SQUEEZENET), "vit_tiny_patch16_224": (vit, VIT)}


def resized(picture: Tensor, side: int) -> Tensor:
    return F.interpolate(picture, (side, side), mode="bilinear", antialias=True)


def agreement(make: Callable[[int], Any], norm: tuple[Any, Any], files: list[Path], side: int, levels: int) -> None:
    network = make(side)
    fovea, bare = foveate(network), foveate(network, halo=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in norm)
    retina = Retina(64, levels, mean=norm[0], std=norm[1])
    equal = round((levels * 64**2) ** 0.5 / 16) * 16
    start = (side - equal) // 2
    tiles = Layout.tiling(picture=(side, side), size=64) if side % 64 == 0 else None
    salient = Scanpath(score=load_saliency())
    same: dict[str, int] = {}
    for file in files:
        picture = resized(open_picture(file).read()[None].float() / 255, side).clamp(0, 1)
        normal = (picture - mean) / std
        dense = network(normal).argmax()
        said = {
            f"resize to {equal}": network(resized(normal, equal)),
            f"crop of {equal}": network(normal[:, :, start : start + equal, start : start + equal]),
            "fovea at the centre": fovea(retina(picture)),
            "fovea at the centre, without halo": bare(retina(picture)),
            "fovea where a person would look": fovea(retina(picture, layout=salient(picture, retina))),
        }
        if tiles is not None:
            said["dense in tiles"] = fovea(retina(picture, layout=tiles))
        for way, logits in said.items():
            same[way] = same.get(way, 0) + int(logits.argmax() == dense)
    for way, count in same.items():
        print(f"  {way:34} {count / len(files):>7.1%}", flush=True)


def main() -> None:
    place = {"type": Path, "place": True}
    given = arguments(
        __doc__, weights=dict(place), osie=dict(place), flickr8k=dict(place), pictures={"type": int, "default": 300}
    )
    sets = {
        "OSIE, 512 x 512": (sorted(given.osie.rglob("*.jpg")), 512, 4),
        "Flickr8k, 224 x 224": (sorted((given.flickr8k / "images" / "val").iterdir()), 224, 3),
    }
    with torch.inference_mode():
        for network, (make, norm) in networks(given.weights).items():
            for title, (files, side, levels) in sets.items():
                if not files:
                    sys.exit(f"no pictures for {title}; give the folder that holds them")
                chosen = files[: given.pictures]
                print(f"{network}, {title}, {len(chosen)} pictures, {levels * 64**2} cells instead of {side**2}:")
                agreement(make, norm, chosen, side, levels)


if __name__ == "__main__":
    main()
