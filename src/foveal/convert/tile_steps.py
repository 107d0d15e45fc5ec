"""Tile-sparse convolutions: the windows of a picture compete for one budget, and tiles read across their edges."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from foveal.blocks.tile_sparse import on_best_tiles
from foveal.convert.sliding import sealed
from foveal.convert.window_maps import Refused, bare, name_of, rule, wrap
from foveal.halo import halo_pad
from foveal.halo_table import pair


@rule(on_best_tiles)
def _on_best_tiles(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, conv, scores = args
    look = x._look
    if x._kind.space != (2, 3) or any(x._kind.rim):
        raise Refused(f"{name_of(func)} of maps that are padded, or not (B, C, H, W)")
    if look.layout.num_windows == 1:
        return wrap(conv.of_windows(bare(x), scores), look, x._kind)
    below, beside = pair(conv.padding)
    rim, maps = (beside, beside, below, below), sealed(x, 0.0)
    padded = halo_pad(maps, look.layout, rim) if look.halo else F.pad(maps, rim)
    windows = look.layout.num_windows
    real = look.layout.valid.expand(len(x) // windows, -1).flatten().to(x.device)
    return wrap(conv.of_windows(maps, scores, windows=windows, padded=padded, real=real), look, x._kind)
