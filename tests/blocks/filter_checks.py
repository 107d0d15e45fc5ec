"""How the filters' tests meet scipy's: the names of borders, and one picture."""

import numpy as np
import torch

MODES = {"reflect": "mirror", "replicate": "nearest", "zeros": "constant", "circular": "wrap"}
BORDERS = list(MODES)


def picture(height=23, width=31):
    return np.random.default_rng(0).random((height, width))


def filtered(block, array):
    """Through a block in float64, as one of three channels, of which the others hold something else."""
    x = torch.from_numpy(array)
    result = block.double()(torch.stack([1 - x, x, x.flip(1)])[None])
    return result[0, 1].numpy()
