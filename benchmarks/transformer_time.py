"""What a fovea saves a vision transformer: ViT-Ti/16 with 40 tokens of a 224 px picture instead of 196.

python benchmarks/transformer_time.py
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from side_by_side import arguments, compare, macs
from torch.nn import functional as F

from foveal import Retina, foveate


def main() -> None:
    given = arguments(__doc__)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    fovea, small = foveate(network), timm.create_model("vit_tiny_patch16_224", img_size=96).eval()
    smooth: dict[str, Any] = {"mode": "bilinear", "antialias": True}
    pictures = torch.rand(8, 3, 224, 224)
    retina = Retina(64, 3, enlarge=True)
    glimpse = retina(pictures)
    with torch.inference_mode():
        counted = [macs(lambda: network(pictures)), macs(lambda: fovea(glimpse))]
        tokens = int(glimpse.layout.tokens(4)[1][0].sum())
        print(f"tokens {tokens} of 196, MACs {counted[1] / 1e6:.0f} M of {counted[0] / 1e6:.0f} M")
        compare(
            "ViT-Ti/16, batch 8, 224 px, to logits",
            {
                "dense": lambda: network(pictures),
                "fovea, from glimpse": lambda: fovea(glimpse),
                "fovea, from picture": lambda: fovea(retina(pictures)),
                "resized to 96 px (36 tokens)": lambda: small(F.interpolate(pictures, (96, 96), **smooth)),
            },
            given.repeats,
            {"fovea, from glimpse": counted[0] / counted[1], "fovea, from picture": counted[0] / counted[1]},
        )


if __name__ == "__main__":
    main()
