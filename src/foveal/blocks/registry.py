"""Every block by its name: what there is, of which family, whose it is, and how to make one."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

FAMILIES: dict[str, tuple[str, ...]] = {
    "attention": (
        "cbam",
        "channel_gating",
        "coordinate_attention",
        "gaussian_attention",
        "pixel_attention",
        "spatial_channel_attention",
        "squeeze_excite",
    ),
    "convolutions": (
        "convolutions",
        "transposed",
        "multi_dilation",
        "factored_convs",
        "deformable",
        "graph_conv",
        "tile_sparse",
    ),
    "fusion": ("asff", "center_skip_fusion", "edge_compensation"),
    "filters": ("smoothing_filters", "sharpening_filters", "edge_filters", "blob_filters"),
    "losses": (
        "center_weighted_loss",
        "contrastive_loss",
        "eccentric_blur",
        "eccentric_noise",
        "random_center_crop",
    ),
    "pooling": (
        "blur_pool",
        "generalized_mean_pool",
        "learnable_pool",
        "plain_pools",
        "spatial_pyramid_pool",
        "stochastic_pool",
    ),
    "structures": ("structures", "branches"),
}
"""The modules of `foveal.blocks` in which the blocks of each family are; each lists its own in `BLOCKS`."""


@dataclass(frozen=True)
class Block:
    """An entry of the registry.

    Args:
        name: in full, snake case.
        make: the class or function that makes one; its docstring says what the block is.
        origin: whose implementation it hands out: "foveal", "torch", "torchvision", "timm" or "kornia".
        family: set by the registry.
    """

    name: str
    make: Callable[..., nn.Module]
    origin: str = "foveal"
    family: str = ""

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]


def create_block(name: str, **options: object) -> nn.Module:
    """Makes a block.

    Args:
        name: one of `list_blocks()`.
        options: of the block; `help(find_block(name).make)` says which.

    Raises:
        ValueError: for an unknown name, with the nearest one; and for impossible options.
        TypeError: for options that the block does not have.
        ImportError: if the library that the block comes from is missing.

    Example:
        >>> create_block("channel_gating", channels=8)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """
    block = find_block(name)
    try:
        inspect.signature(block.make).bind(**options)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; it takes {inspect.signature(block.make)}") from None
    return block.make(**options)


def list_blocks(pattern: str = "*", *, family: str | None = None) -> list[str]:
    """The names of all blocks that a pattern fits, in alphabetical order.

    Args:
        pattern: as of file names, for example "*attention*".
        family: of one family only.

    Raises:
        ValueError: for an unknown family.

    Example:
        >>> "channel_gating" in list_blocks("channel*")
        True
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family is {family!r}; expected one of {', '.join(FAMILIES)}")
    named = fnmatch.filter(_blocks(), pattern)
    return sorted(name for name in named if family in (None, _blocks()[name].family))


def find_block(name: str) -> Block:
    """The entry of a block: its family, whose it is, a line about it.

    Raises:
        ValueError: for an unknown name, with the nearest one.

    Example:
        >>> find_block("channel_gating").origin
        'foveal'
    """
    if name not in _blocks():
        near = difflib.get_close_matches(str(name), _blocks(), 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see list_blocks()"
        raise ValueError(f"no block is called {name!r}; {hint}")
    return _blocks()[name]


@lru_cache(maxsize=1)
def _blocks() -> dict[str, Block]:
    found: dict[str, Block] = {}
    for family, modules in FAMILIES.items():
        for module in modules:
            for block in importlib.import_module(f"foveal.blocks.{module}").BLOCKS:
                if block.name in found:
                    raise RuntimeError(f"two blocks are called {block.name!r}")
                found[block.name] = Block(block.name, block.make, block.origin, family)
    return found
