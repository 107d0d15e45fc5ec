"""Tokens of a glimpse for a vision transformer: only where a cell alone stands for some of the picture, with positions
where they truly lie.

Attention needs no windows: it takes tokens from anywhere. So only what stands before and after the blocks is ours;
after Dosovitskiy et al. (2021), with the class, distillation and register tokens of the variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from foveal.convert.window_maps import UnsupportedModule
from foveal.layout import Layout

_SNAP = 1e-6


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of pictures.

    Args:
        values: (B, P + N, D), prefix tokens first, then those of the cells, the finest window's first.
        mask: (B, N) bool, False where a token only fills the batch; None where none does.
        weight: (B, N), the share of its picture that each token stands for; None where all are equal.
    """

    values: Tensor
    mask: Tensor | None
    weight: Tensor | None


def select_tokens(maps: Tensor, layout: Layout, pool: Literal["area", "cell"]) -> Tokens:
    """The cells that become tokens, out of all windows' maps.

    Args:
        maps: (B * K, n * n, D).
        layout: of the windows.
        pool: what a token weighs in a mean.
    """
    windows = layout.num_windows
    batch, n = len(maps) // windows, round(maps.shape[1] ** 0.5)
    values = maps.reshape(batch, windows * n * n, -1)

    def compute() -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        index, mask = layout.tokens(n)
        area = layout.areas(n).double().flatten(1).gather(1, index) * mask
        weight = area if pool == "area" else mask.double()
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
        if torch.compiler.is_compiling():
            return index, mask, weight
        full = bool(mask.all())
        whole = full and index.shape[1] == windows * n * n and bool((index.diff(dim=1) == 1).all())
        equal = full and bool((weight == weight[:, :1]).all())
        return None if whole else index, None if full else mask, None if equal else weight

    index, mask, weight = (
        None if rows is None else rows.to(maps.device).expand(batch, -1)
        for rows in layout.remembered(("token set", n, pool), compute)
    )
    if index is not None:
        values = values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
    return Tokens(values, mask, weight)


def place_embedding(table: Tensor, layout: Layout, n: int, patch: float) -> Tensor:
    """Position embeddings at the true places of all cells.

    Bicubic with the kernel and the antialiasing of `torch.nn.functional.interpolate`, which is how timm resizes them;
    where the places are those of the table, exactly its values.

    Args:
        table: (rows, columns, D), one embedding for each place of a grid laid over the whole picture.
        layout: of the windows.
        n: cells along a window's side.
        patch: pixels of a cell of the dense network.

    Returns:
        (B, K, n, n, D); B may be 1 for a layout that serves all pictures.
    """
    grid = (table.shape[0], table.shape[1])

    def compute() -> tuple[Tensor, Tensor]:
        places = layout.cell_places(n)
        return tuple(  # type: ignore[return-value]
            _taps(along, layout.pictures[:, axis], grid[axis], patch)
            for axis, along in enumerate((places[:, :, :, 0, 0], places[:, :, 0, :, 1]))
        )

    rows, columns = (
        taps.to(table.device, table.dtype) for taps in layout.remembered(("places", n, grid, patch), compute)
    )
    return torch.einsum("bkjh,bkihd->bkijd", columns, torch.einsum("bkig,ghd->bkihd", rows, table))


def _taps(along: Tensor, sides: Tensor, grid: int, patch: float) -> Tensor:
    """(B, K, n) pixels -> (B, K, n, grid) float64: how much of each of the table's places; they add up to 1."""
    cells = torch.ceil(sides / patch)  # of the dense network's own grid
    centre = along * (grid / sides[:, None, None])
    nearest = torch.round(centre - 0.5) + 0.5
    centre = torch.where((centre - nearest).abs() < _SNAP, nearest, centre)
    spread = (grid / cells).clamp(min=1)[:, None, None, None]
    centre = centre.clamp(0, grid)[..., None]  # of a cell that straddles the picture's edge it may lie beside
    apart = ((torch.arange(grid, dtype=torch.float64, device=along.device) + 0.5 - centre) / spread).abs()
    near = (1.5 * apart - 2.5) * apart.square() + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    taps = torch.where(apart < 1, near, torch.where(apart < 2, far, torch.zeros_like(apart)))
    return taps / taps.sum(-1, keepdim=True)


def mean_tokens(tokens: Tokens, prefix: int, *, count_prefix: bool) -> Tensor:
    """(B, D): the mean over a picture's tokens, each by what it stands for; the prefix counts as ordinary tokens."""
    values = tokens.values[:, prefix:]
    if tokens.weight is None:
        return (tokens.values if count_prefix else values).mean(1)
    mean = torch.einsum("bnd,bn->bd", values, tokens.weight.to(values.dtype))
    if not count_prefix or not prefix:
        return mean
    held = torch.full_like(mean[:, :1], values.shape[1]) if tokens.mask is None else tokens.mask.sum(1, keepdim=True)
    return (mean * held + tokens.values[:, :prefix].sum(1)) / (held + prefix)


def largest_tokens(tokens: Tokens, prefix: int) -> Tensor:
    """(B, D): the largest value over a picture's tokens."""
    values = tokens.values[:, prefix:]
    if tokens.mask is not None:
        values = values.masked_fill(~tokens.mask[..., None], torch.finfo(values.dtype).min)
    return values.amax(1)


def attention_mask(tokens: Tokens, prefix: int) -> Tensor | None:
    """(B, 1, 1, P + N), to be added to attention: -inf at tokens that only fill the batch; None where none does."""
    if tokens.mask is None:
        return None
    seen = torch.cat([tokens.mask.new_ones(len(tokens.mask), prefix), tokens.mask], 1)
    added = torch.zeros(seen.shape, dtype=tokens.values.dtype, device=seen.device)
    return added.masked_fill(~seen, float("-inf"))[:, None, None]


def maps_of_tokens(values: Tensor, layout: Layout, n: int) -> Tensor:
    """Where the tokens came from: (B, N, D) -> (B, K, D, n, n), 0 where a cell gave none."""
    index, mask = (rows.to(values.device).expand(len(values), -1) for rows in layout.tokens(n))
    width, shape = values.shape[-1], (len(values), layout.num_windows * n * n, values.shape[-1])
    # Places that only fill the batch are cells that give no token: they write zeros where zeros are.
    kept = values * mask[..., None].to(values.dtype)
    whole = values.new_zeros(shape).scatter(1, index[..., None].expand(-1, -1, width), kept)
    return whole.view(len(values), layout.num_windows, n, n, width).permute(0, 1, 4, 2, 3)


def refuse_parts_of_patches(patch: int, layout: Layout) -> None:
    """Windows must be cut into whole patches."""
    if layout.size % patch:
        raise ValueError(
            f"windows of {layout.size} cells are not a multiple of the network's patches of {patch}; choose a window "
            f"size that is"
        )


def refuse_other_patches(path: str, module: nn.Module, patch: tuple[int, int]) -> None:
    """Patches must be cut by a convolution that reads no cell of another patch."""
    own = (getattr(module, name, None) for name in ("kernel_size", "stride", "padding"))
    if not isinstance(module, nn.Conv2d) or tuple(own) != (patch, patch, (0, 0)) or patch[0] != patch[1]:
        raise UnsupportedModule(
            f"{path} ({type(module).__name__}): only one convolution that cuts the picture into square patches is "
            f"known across windows"
        )


def refuse_overridden(path: str, module: nn.Module, methods: str, *stock: type) -> None:
    """The methods that the foveated network replaces, names separated by spaces, must be those of a stock class."""
    for name in methods.split():
        known = [getattr(owner, name, None) for owner in stock]
        if name in vars(module) or getattr(type(module), name, None) not in known:
            raise UnsupportedModule(
                f"{path} ({type(module).__name__}): has a {name}() of its own, which would be left out; only that of "
                f"{stock[0].__module__}.{stock[0].__name__} is known on tokens of windows"
            )


def refuse_skipped_hooks(path: str, module: nn.Module) -> None:
    """A module whose parts are called one by one must have no hooks, which would not run."""
    if any(getattr(module, f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre")):
        raise UnsupportedModule(
            f"{path} ({type(module).__name__}): has hooks, which would not run, for its parts are called one by one; "
            f"register them on those parts, or on the foveated network"
        )


def placed_at(values: Tensor, table: Tensor, layout: Layout, n: int, patch: float) -> Tensor:
    """(B * K, n * n, D) with the position embeddings added."""
    here = place_embedding(table, layout, n, patch).flatten(2, 3).flatten(0, 1)  # (K or B * K, n * n, D)
    shape = values.shape
    return (values.view(-1, len(here), *shape[1:]) + here).view(shape)


def with_prefix(tokens: Tokens, own: Tensor | None) -> Tokens:
    """The tokens after the network's own (1, P, D), if it has any."""
    if own is None:
        return tokens
    values = torch.cat([own.expand(len(tokens.values), -1, -1), tokens.values], 1)
    return Tokens(values, tokens.mask, tokens.weight)
