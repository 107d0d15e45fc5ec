"""What a convolution saves that runs on a part of its tiles only: 64 channels, 128 x 128, batch 1 and 8.

    python benchmarks/tile_time.py

The gate that scores and chooses the tiles is part of the time.
"""

from __future__ import annotations

import torch
from side_by_side import arguments, compare
from torch import nn

from foveal.blocks.tile_sparse import TileSparseConv2d


def main() -> None:
    given = arguments(__doc__)
    dense = nn.Conv2d(64, 64, 3, padding=1).eval().to(memory_format=torch.channels_last)
    for batch in (1, 8):
        x = torch.rand(batch, 64, 128, 128).contiguous(memory_format=torch.channels_last)
        runs = {"dense convolution": lambda x=x: dense(x)}  # type: ignore[misc]
        ideal = {}
        for keep in (0.1, 0.3, 0.5, 0.8):
            sparse = TileSparseConv2d.wrapping(dense, keep=keep).eval().to(memory_format=torch.channels_last)
            runs[f"{keep:.0%} of the tiles"] = lambda x=x, sparse=sparse: sparse(x)  # type: ignore[misc]
            ideal[f"{keep:.0%} of the tiles"] = 1 / keep
        with torch.inference_mode():
            compare(f"3 x 3 convolution, 64 channels, 128 x 128, batch {batch}", runs, given.repeats, ideal)


if __name__ == "__main__":
    main()
