"""A convolution that skips by content: only the tiles that a small gate scores highest are computed.

After Verelst and Tuytelaars (SegBlocks, 2020) and Ren et al. (SBNet, 2018): gather the tiles with their halos, run one
ordinary dense convolution on them, scatter the results. So the time saved is real, not a mask on full-cost work.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.blocks.across_windows import across_windows
from foveal.blocks.registry import Block
from foveal.blocks.tile_cells import Tiles, mean_magnitudes, read, write
from foveal.blocks.tile_filter import filtered_tiles
from foveal.halo_table import pair


class TileSparseConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of stride 1 on the best `keep` of the tiles; the others come out as zeros.

    The gate scores a tile by a weighted mean of its channels' magnitudes and begins as their plain mean. In a glimpse
    all windows of a picture compete for one budget; where windows are whole tiles, a tiling keeps the dense map's own.

    Shapes: `(B, C_in, H, W) -> (B, C_out, H, W)`.
    Parameters: those of the convolution, and `C_in + 1` of the gate.

    Use it when most of a map is empty and tiles are many; a tile of 16 x 16 cells reads 18 x 18 for a 3 x 3 kernel.
    Not for maps of a few tiles, nor for 1 x 1 convolutions, whose gathering costs as much as they do.

    Args:
        in_channels, out_channels, kernel_size, dilation, groups, bias: as of `torch.nn.Conv2d`. The stride is 1 and
            the padding such that maps keep their size.
        tile: cells along a tile's side.
        keep: the budget, the fraction of a map's tiles that is computed, in (0, 1]. At 1 it is the dense convolution.
        training: how the gate learns. "straight_through" computes the budget alone, drawn with Gumbel noise so that
            other tiles have their turn; to the gradient each kept tile is worth its gate's value. "soft" computes all,
            and weighs tiles by how far their score stands above the first that would be skipped.

    Raises:
        ValueError: for an impossible tile, budget, kernel or number of channels, or scores of another shape.

    Example:
        >>> conv = TileSparseConv2d(64, 64, 3, keep=0.3)
        >>> conv(torch.rand(2, 64, 128, 128)).shape
        torch.Size([2, 64, 128, 128])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        tile: int = 16,
        keep: float = 0.3,
        training: Literal["straight_through", "soft"] = "straight_through",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        **factory: Any,
    ) -> None:
        if factory.keys() - {"device", "dtype"}:
            raise ValueError(
                f"{', '.join(sorted(factory.keys() - {'device', 'dtype'}))}: cannot be chosen; the stride is 1, and "
                f"zeros around a map keep its size"
            )
        sides = [side if isinstance(side, tuple | list) else (side, side) for side in (kernel_size, dilation)]
        numbers = (in_channels, out_channels, *sides[0], *sides[1])
        if any(len(side) != 2 for side in sides) or not all(isinstance(n, int) and n >= 1 for n in numbers):
            raise ValueError(
                f"{in_channels} -> {out_channels} channels, kernel_size {kernel_size}, dilation {dilation}: "
                "expected each at least 1, in whole numbers, one or a pair for kernel_size and dilation"
            )
        reach = [spread * (side - 1) for side, spread in zip(pair(kernel_size), pair(dilation), strict=True)]
        if any(side % 2 for side in reach):
            raise ValueError(f"kernel_size {kernel_size} with dilation {dilation}: a map keeps its size with odd sides")
        if isinstance(tile, bool) or not (isinstance(tile, int) and tile >= 1):
            raise ValueError(f"tile is {tile!r}; expected a whole number of cells, at least 1")
        if isinstance(keep, bool) or not (isinstance(keep, int | float) and 0 < keep <= 1):
            raise ValueError(f"keep is {keep!r}; expected a fraction in (0, 1]")
        if training not in ("straight_through", "soft"):
            raise ValueError(f"training is {training!r}; expected 'straight_through' or 'soft'")
        padding = (reach[0] // 2, reach[1] // 2)
        super().__init__(in_channels, out_channels, kernel_size, 1, padding, dilation, groups, bias, **factory)
        self.tile, self.keep, self.how = tile, keep, training
        self.gate = nn.Linear(in_channels, 1, **factory)
        nn.init.constant_(self.gate.weight, 1 / in_channels)
        nn.init.zeros_(self.gate.bias)

    @classmethod
    def wrapping(cls, conv: nn.Conv2d, **options: Any) -> TileSparseConv2d:
        """The same convolution, its weights shared, on the best tiles only.

        Args:
            conv: of stride 1, padded with zeros so that maps keep their size.
            options: `tile`, `keep`, `training`.

        Raises:
            ValueError: for another convolution.
        """
        if not isinstance(conv, nn.Conv2d):
            raise ValueError(f"conv is of type {type(conv).__name__}; expected a torch.nn.Conv2d")
        kernel, dilation = pair(conv.kernel_size), pair(conv.dilation)
        kept = tuple(spread * (side - 1) // 2 for side, spread in zip(kernel, dilation, strict=True))
        same = conv.padding in ("same", kept) and conv.padding_mode == "zeros"
        if pair(conv.stride) != (1, 1) or not same:
            raise ValueError(
                f"stride {conv.stride}, padding {conv.padding!r} ({conv.padding_mode}): only a convolution of stride 1 "
                f"that keeps a map's size with zeros can skip tiles; here a padding of {kept}"
            )
        made = cls(
            conv.in_channels,
            conv.out_channels,
            kernel,
            dilation=dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
            **options,
        )
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def forward(self, x: Tensor, scores: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W).

        Args:
            x: maps; channels-last memory is fastest.
            scores: (B, ceil(H / tile), ceil(W / tile)), what the tiles are worth, instead of the gate's.

        Maps without a batch, `(C_in, H, W)`, are taken as by `torch.nn.Conv2d`, their scores without one too.
        """
        maps = x.ndim in (3, 4) and x.shape[-3] == self.in_channels and 0 not in x.shape[-2:]
        if self.keep == 1 or not maps:  # what is no map, a convolution refuses in its own words
            return super().forward(x)
        if x.ndim == 3:
            return on_best_tiles(x[None], self, None if scores is None else scores[None])[0]
        return on_best_tiles(x, self, scores)

    def of_windows(
        self,
        x: Tensor,
        scores: Tensor | None,
        *,
        windows: int = 1,
        padded: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        """(B * K, C_in, H, W) -> (B * K, C_out, H, W), the budget shared by the K maps of each picture.

        Args:
            x: maps.
            scores: (B * K, ceil(H / tile), ceil(W / tile)), instead of the gate's.
            windows: K.
            padded: the maps with their rims already filled; by default rims are zero.
            real: (B * K,) bool, False for maps that only fill a batch.
        """
        rows, columns = (math.ceil(side / self.tile) for side in x.shape[2:])
        given = scores is not None
        scores = self.scores(x) if scores is None else scores
        if not isinstance(scores, Tensor):
            raise ValueError(f"scores are of type {type(scores).__name__}; expected {(x.shape[0], rows, columns)}")
        if scores.shape != (x.shape[0], rows, columns):
            raise ValueError(f"scores have shape {tuple(scores.shape)}; expected {(x.shape[0], rows, columns)}")
        held = None if real is None else real[:, None, None].expand_as(scores).reshape(-1, windows * rows * columns)
        flat = scores.reshape(-1, windows * rows * columns)
        if held is not None:
            flat = flat.masked_fill(~held, torch.finfo(flat.dtype).min)
        most, counts = self._budget(flat.shape[1], held)
        if most == flat.shape[1]:
            return self._dense(x, padded)
        if self.training and self.how == "soft":
            return self._soft(x, padded, flat, held, most, counts, (rows, columns))
        ranked = flat if given or not self.training else flat + _gumbel(flat) * _spread(flat, held)
        best = ranked.topk(most, sorted=counts is not None).indices
        best = best + torch.arange(0, flat.numel(), flat.shape[1], device=best.device)[:, None]
        kept = None if counts is None else torch.arange(most, device=best.device) < counts
        if kept is not None and not torch.compiler.is_compiling():
            best, kept = best[kept], None
        pictures = len(flat) if counts is None else None
        return self._on_tiles(x, padded, flat.flatten(), best.flatten(), kept, (rows, columns), pictures)

    def _budget(self, tiles: int, held: Tensor | None) -> tuple[int, Tensor | None]:
        """How many tiles of a picture are computed at most, and, where they are not alike, of each: (B, 1).

        Args:
            tiles: of a picture, those of maps that only fill the batch included.
            held: (B, tiles) bool, the others.
        """
        if held is None or (not torch.compiler.is_compiling() and bool(held.all())):
            return self._share(tiles), None
        many = held.sum(1, keepdim=True)
        counts = torch.ceil(self.keep * many.double() - 1e-9).long().clamp(min=1)
        if torch.compiler.is_compiling():  # a graph does not know the most of them
            return self._share(tiles), counts
        return tiles if bool((counts >= many).all()) else int(counts.max()), counts

    def _share(self, tiles: int) -> int:
        return max(1, math.ceil(self.keep * tiles - 1e-9))

    def _dense(self, x: Tensor, padded: Tensor | None) -> Tensor:
        if padded is None:
            return super().forward(x)
        return F.conv2d(padded, self.weight, self.bias, 1, 0, self.dilation, self.groups)

    def scores(self, x: Tensor) -> Tensor:
        """(B, ceil(H / tile), ceil(W / tile)): what the gate thinks of each tile."""
        return self.gate(mean_magnitudes(x, self.tile).movedim(1, -1)).squeeze(-1)

    def _on_tiles(
        self,
        x: Tensor,
        padded: Tensor | None,
        flat: Tensor,
        best: Tensor,
        kept: Tensor | None,
        grid: tuple[int, int],
        pictures: int | None,
    ) -> Tensor:
        """The convolution on some of all maps' tiles.

        Args:
            x: maps, and `padded` with their rims.
            flat: the scores of all tiles, one map's after the other's; `best` (M,), the places of some among them.
            kept: which of them count; None for all.
            grid: tiles of a map along y and x.
            pictures: how many there are, where each has as many of them.
        """
        assert not isinstance(self.padding, str)
        maps, place = best // (grid[0] * grid[1]), best % (grid[0] * grid[1])
        tiles = Tiles(maps, place // grid[1], place % grid[1], self.tile)
        rim, sides = pair(self.padding), (x.shape[2], x.shape[3])
        source, before = (x, rim) if padded is None else (padded, (0, 0))
        plain = self.kernel_size == (3, 3) and pair(self.dilation) == (1, 1) and self.groups == 1
        if plain and not self.training and pictures is not None:
            kernel = self.weight, self.bias
            found = filtered_tiles(source, tiles, *kernel, pictures=pictures, sides=sides, padded=padded is not None)
            if found is not None:
                return found
        result = read(source, tiles, (self.tile + 2 * rim[0], self.tile + 2 * rim[1]), before)
        result = F.conv2d(result, self.weight, self.bias, 1, 0, self.dilation, self.groups)
        if self.training:
            worth = flat[best].sigmoid()
            result = result * (1 + worth - worth.detach())[:, None, None, None]
        if kept is not None:
            result = result * kept.flatten().to(result)[:, None, None, None]
        return write(result, tiles, len(x), sides)

    def _soft(
        self,
        x: Tensor,
        padded: Tensor | None,
        flat: Tensor,
        held: Tensor | None,
        most: int,
        counts: Tensor | None,
        tiles: tuple[int, int],
    ) -> Tensor:
        ranked = flat.topk(most + 1).values
        counts = torch.full((len(flat), 1), most, device=flat.device) if counts is None else counts
        edge = (ranked.gather(1, counts - 1) + ranked.gather(1, counts)) / 2
        spread = _spread(flat, held).clamp(min=1e-6)
        if held is None:
            worth = ((flat - edge) / spread * 4).sigmoid()
        else:  # no arithmetic on the scores of maps that only fill: their infinities would make gradients NaN
            skips = held.sum(1, keepdim=True) > counts
            above = flat.where(held & skips, 0) - edge.where(skips, 0)
            worth = (above / spread * 4).sigmoid().where(skips, 1).where(held, 0)
        worth = worth.view(-1, 1, *tiles).repeat_interleave(self.tile, 2).repeat_interleave(self.tile, 3)
        return self._dense(x, padded) * worth[:, :, : x.shape[2], : x.shape[3]]

    def extra_repr(self) -> str:
        """What stands in its printed form."""
        return f"{super().extra_repr()}, tile={self.tile}, keep={self.keep}"


@across_windows
def on_best_tiles(x: Tensor, conv: TileSparseConv2d, scores: Tensor | None) -> Tensor:
    """The convolution on the tiles of each map that are worth most."""
    return conv.of_windows(x, scores)


def _spread(flat: Tensor, held: Tensor | None) -> Tensor:
    """(B, 1): the standard deviation of each picture's scores, of the held ones alone."""
    if held is None:
        return flat.std(1, keepdim=True)
    many = held.sum(1, keepdim=True)
    mean = flat.where(held, 0).sum(1, keepdim=True) / many.clamp(min=1)
    # At the mean the others add nothing to the sum of squares, which only has to be divided by another number.
    return flat.where(held, mean).std(1, keepdim=True) * ((flat.shape[1] - 1) / (many - 1).clamp(min=1)).sqrt()


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


def tile_sparse_conv(
    channels: int, *, out_channels: int | None = None, kernel_size: int | tuple[int, int] = 3, **options: Any
) -> TileSparseConv2d:
    """The tile-sparse convolution: `y = conv(x)` on the best `keep` of a map's tiles, and zero on the others.

    SegBlocks, Verelst and Tuytelaars 2020; SBNet, Ren et al. 2018. The best are those that a small gate scores highest,
    by a weighted mean of their channels' magnitudes. The others are really left out, not masked. In a glimpse all
    windows of a picture compete for one budget; where windows are whole tiles, a tiling keeps the dense map's own.

    Shapes: `(B, C, H, W) -> (B, C_out, H, W)`.
    Parameters: `C_out * C / groups * k * k + C_out`, and `C + 1` of the gate.

    Use it when most of a map is empty and tiles are many; a tile of 16 x 16 cells reads 18 x 18 for a 3 x 3 kernel.
    Not for maps of a few tiles, nor for 1 x 1 convolutions, whose gathering costs as much as they do.

    Args:
        channels: C.
        out_channels: C_out; C by default.
        kernel_size: k, odd, or (along y, along x).
        options: `tile`, `keep`, `training`, `dilation`, `groups`, `bias` of `TileSparseConv2d`.

    Raises:
        ValueError: for an impossible tile, budget, kernel or number of channels.

    Example:
        >>> create_block("tile_sparse_conv", channels=8, tile=8, keep=0.25)(torch.rand(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """
    return TileSparseConv2d(channels, channels if out_channels is None else out_channels, kernel_size, **options)


BLOCKS = (Block("tile_sparse_conv", tile_sparse_conv),)
