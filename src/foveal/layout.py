"""Where the windows of one look lie: levels, origins, coverage, areas. Geometry only, no pixels.

The idea is adaptive mesh refinement (Berger and Oliger 1984) for neural networks: a picture is held as a few
equal-sized windows at different scales. Everything that follows from their places alone is worked out here, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor


def _as_rows(values: Any, width: int, name: str, dtype: torch.dtype) -> Tensor:
    rows = torch.as_tensor(values, dtype=dtype)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}; expected ({width},) or (B, {width})")
    return rows


def auto_levels(side: int, size: int) -> int:
    """The fewest levels whose widest window of `size` cells holds `side` pixels with native pixels in the fovea."""
    return 1 + max(0, math.ceil(math.log2(side / size)))


@dataclass(frozen=True, eq=False)
class Layout:
    """The windows of one look at each picture of a batch, finest first.

    A window of level `l` covers `size * 2**l` pixels a side; each of its cells averages `2**l x 2**l` pixels. Most
    users call `Layout.foveal`, `Layout.tiling` or `Layout.windows` and never this constructor.

    Args:
        size: cells along a window's side, S.
        origins: (B, K, 2) int64, the top left corner (y, x) of each window, in pixels.
        levels: (B, K) int64, 0 is full detail.
        pictures: (B, 2) int64, height and width at which each picture is read, in pixels.
        fixations: (B, F, 2) float, the points looked at, relative to the picture.
        valid: (B, K) bool; False marks a place that only fills the batch: no area, no tokens, never a halo source.

    Example:
        >>> layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
        >>> layout.origins[0].tolist()
        [[96, 96], [64, 64], [0, 0]]
    """

    size: int
    origins: Tensor
    levels: Tensor
    pictures: Tensor
    fixations: Tensor
    valid: Tensor
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    # ---- making layouts ----------------------------------------------------------------------------------------

    @classmethod
    def foveal(
        cls,
        *,
        picture: Sequence[int] | Tensor,
        size: int,
        levels: int | Literal["auto"] = "auto",
        fixation: Any = "center",
        lattice: int | None = None,
        enlarge: bool = False,
    ) -> Layout:
        """A chain of windows narrowing on the fixation, one for each level; the widest holds the whole picture.

        Args:
            picture: (H, W) in pixels, or (B, 2) for a batch.
            size: cells along a window's side, S; even where there is more than one level.
            levels: how many windows; "auto" takes the fewest with native pixels in the fovea (in a batch, the most
                that any picture needs; places that a picture does not need are marked not valid).
            fixation: "center", (y, x) or (B, 2), each in [0, 1].
            lattice: origins are multiples of `lattice * 2**level` pixels; `size // 2` by default.
            enlarge: read a picture that is smaller than the widest window larger, so that it fills it.

        Raises:
            ValueError: for an impossible size, level, lattice, picture or fixation.
        """
        pictures = _as_rows(picture, 2, "picture", torch.int64)
        if int(pictures.min()) < 1:
            raise ValueError(f"a picture of {pictures.min(0).values.tolist()} pixels has no area")
        fixations = _fixations(fixation, len(pictures))
        if len(pictures) == 1:
            pictures = pictures.expand(len(fixations), 2)
        if size < 1:
            raise ValueError(f"size is {size}; a window needs at least 1 cell a side")
        counts = [auto_levels(max(sides), size) if levels == "auto" else int(levels) for sides in pictures.tolist()]
        most = max(counts)
        if min(counts) < 1:
            raise ValueError(f"levels is {levels}; expected 1 or more, or 'auto'")
        lattice = lattice or max(1, size // 2)
        if most > 1 and (size % 2 or size % lattice):
            raise ValueError(f"size {size} with {most} levels: size must be even and a multiple of the lattice {lattice}")
        read = torch.tensor(
            [_read_size(sides, size, count, enlarge) for sides, count in zip(pictures.tolist(), counts, strict=True)]
        )
        place = fixations * read
        count = torch.tensor(counts)
        parent = torch.zeros_like(read)
        origins = []
        for level in range(most - 1, -1, -1):
            covered, step = size << level, lattice << level
            last = torch.ceil((read - covered) / step).clamp(min=0).long() * step
            nearest = torch.round((place - covered / 2) / step).long() * step
            origin = nearest.clamp(min=torch.zeros_like(last), max=last)
            inside = origin.clamp(min=parent, max=parent + covered)
            parent = torch.where((level < count - 1)[:, None], inside, torch.zeros_like(origin))
            origins.append(parent)
        level_rows = torch.arange(most).expand(len(read), most)
        valid = level_rows < count[:, None]
        stacked = torch.stack(origins[::-1], 1)
        # A place that only fills the batch repeats the widest window that the picture really has.
        index = torch.minimum(level_rows, count[:, None] - 1)
        stacked = stacked.gather(1, index[..., None].expand(-1, -1, 2))
        return cls(size, stacked, index, read, fixations[:, None], valid)

    @classmethod
    def tiling(cls, *, picture: Sequence[int], size: int, level: int = 0) -> Layout:
        """Windows of one level, side by side, that hold the whole picture: the dense network, cut into tiles.

        Example:
            >>> Layout.tiling(picture=(128, 192), size=64).num_windows
            6
        """
        height, width = (int(side) for side in picture)
        covered = size << level
        places = [(y, x) for y in range(0, height, covered) for x in range(0, width, covered)]
        return cls.windows(picture=picture, size=size, windows=[(level, y, x) for y, x in places])

    @classmethod
    def windows(
        cls, *, picture: Sequence[int], size: int, windows: Sequence[tuple[int, int, int]], fixation: Any = "center"
    ) -> Layout:
        """Any list of windows `(level, y, x)` over one picture; sorted finest first, windows that coincide kept once.

        Example:
            >>> Layout.windows(picture=(100, 100), size=32, windows=[(1, 0, 0), (0, 16, 16)]).levels.tolist()
            [[0, 1]]
        """
        pictures = _as_rows(picture, 2, "picture", torch.int64)
        if size < 1 or int(pictures.min()) < 1:
            raise ValueError(f"size {size} and picture {tuple(picture)}: both must be at least 1")
        kept = sorted(dict.fromkeys((int(level), int(y), int(x)) for level, y, x in windows), key=lambda w: w[0])
        if not kept:
            raise ValueError("a layout needs at least one window; none was given")
        if min(min(window) for window in kept) < 0:
            raise ValueError(f"levels and origins must be 0 or more; given {min(kept)} as (level, y, x)")
        rows = torch.tensor(kept)
        return cls(
            size,
            rows[None, :, 1:],
            rows[None, :, 0],
            pictures,
            _fixations(fixation, 1)[:, None],
            torch.ones(1, len(kept), dtype=torch.bool),
        )

    @classmethod
    def dense(cls, *, picture: Sequence[int]) -> Layout:
        """One window of the picture's longer side: the ordinary way of looking, through the same code."""
        side = max(int(value) for value in picture)
        return cls.windows(picture=picture, size=side, windows=[(0, 0, 0)])

    @classmethod
    def stack(cls, layouts: Sequence[Layout]) -> Layout:
        """One batch from several layouts of one size; K is the largest, missing places repeat the last window."""
        sizes = sorted({layout.size for layout in layouts})
        if len(sizes) != 1:
            raise ValueError(f"layouts of sizes {sizes} cannot share a batch; use one size")
        most = max(layout.num_windows for layout in layouts)
        seen = max(layout.fixations.shape[1] for layout in layouts)

        def filled(rows: Tensor, places: int) -> Tensor:
            return torch.cat([rows, rows[:, -1:].expand(-1, places - rows.shape[1], *rows.shape[2:])], 1)

        return cls(
            sizes[0],
            torch.cat([filled(layout.origins, most) for layout in layouts]),
            torch.cat([filled(layout.levels, most) for layout in layouts]),
            torch.cat([layout.pictures for layout in layouts]),
            torch.cat([filled(layout.fixations, seen) for layout in layouts]),
            torch.cat(
                [torch.nn.functional.pad(layout.valid, (0, most - layout.num_windows)) for layout in layouts]
            ),
        )

    # ---- what follows from the places --------------------------------------------------------------------------

    @property
    def num_windows(self) -> int:
        """K, the windows of each picture (places that only fill the batch included)."""
        return self.origins.shape[1]

    def __len__(self) -> int:
        """B, the pictures of the batch."""
        return self.origins.shape[0]

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its tensors on `device`."""
        if self.origins.device == torch.device(device):
            return self
        moved = (self.origins, self.levels, self.pictures, self.fixations, self.valid)
        return Layout(self.size, *(rows.to(device) for rows in moved))

    def select(self, keep: Tensor | slice) -> Layout:
        """The same pictures with only the windows of the places `keep` (an index, mask or slice over K)."""
        return Layout(
            self.size,
            self.origins[:, keep],
            self.levels[:, keep],
            self.pictures,
            self.fixations,
            self.valid[:, keep],
        )

    def remembered(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The value of `compute()`, kept under `key`: a layout never changes, so what follows from it is worked out once.

        While a graph is traced nothing is kept: the compiler finds the repeated work itself, and a traced tensor
        must not outlive its graph.
        """
        if torch.compiler.is_compiling():
            return compute()
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def cell_pixels(self, n: int) -> Tensor:
        """(B, K) float64: the side, in pixels, of a cell of each window's map of `n x n` cells."""
        return torch.exp2(self.levels.double()) * (self.size / n)

    def cell_places(self, n: int) -> Tensor:
        """(B, K, n, n, 2) float64: the centre (y, x) of every cell, in pixels."""
        steps = torch.arange(n, dtype=torch.float64, device=self.origins.device) + 0.5
        along = self.origins[..., None, :] + steps[:, None] * self.cell_pixels(n)[..., None, None]
        rows, columns = along[..., 0], along[..., 1]
        shape = (*rows.shape, n)
        return torch.stack([rows[..., :, None].expand(shape), columns[..., None, :].expand(shape)], -1)

    def inside(self, n: int) -> Tensor:
        """(B, K, n, n) bool: the cells that hold any of the picture."""

        def compute() -> Tensor:
            corner = self.cell_places(n) - self.cell_pixels(n)[..., None, None, None] / 2
            return (corner < self.pictures[:, None, None, None]).all(-1)

        return self.remembered(("inside", n), compute)

    def eccentricity(self, n: int) -> Tensor:
        """(B, K, n, n) float32: distance of every cell's centre from the nearest fixation, in pixels."""

        def compute() -> Tensor:
            looked_at = self.fixations.double() * self.pictures[:, None]
            apart = self.cell_places(n)[..., None, :] - looked_at[:, None, None, None]
            return apart.square().sum(-1).sqrt().amin(-1).float()

        return self.remembered(("eccentricity", n), compute)

    def areas(self, n: int) -> Tensor:
        """(B, K, n, n) float32: the picture area, in pixels, that each cell alone stands for.

        A place of the picture belongs to the finest window that covers it (ties: the first in the layout); cells
        that are wholly covered by such windows, or lie outside the picture, have none. The areas of a layout that
        covers the picture add up to the picture's area.
        """
        return self.remembered(("areas", n), lambda: self._areas(n))

    def _areas(self, n: int) -> Tensor:
        # The edges of all windows cut the plane into rectangles, each of which belongs wholly to one window.
        start = self.origins.double()
        end = start + (self.size * torch.exp2(self.levels.double()))[..., None]
        cuts = torch.cat([start, end], 1)
        if torch.compiler.is_compiling():
            edges = [cuts[..., axis].flatten().sort().values for axis in (0, 1)]
        else:
            edges = [cuts[..., axis].unique() for axis in (0, 1)]
        covers, overlaps = [], []
        steps = torch.arange(n + 1, dtype=torch.float64, device=start.device)
        for axis in (0, 1):
            low, high = edges[axis][:-1], edges[axis][1:]
            middle = (low + high) / 2
            covers.append((start[..., axis, None] < middle) & (middle < end[..., axis, None]))  # (B, K, P)
            bounds = start[..., axis, None] + steps * self.cell_pixels(n)[..., None]
            bounds = torch.minimum(bounds, self.pictures[:, axis, None, None].double())
            top = torch.minimum(bounds[..., 1:, None], high)
            bottom = torch.maximum(bounds[..., :-1, None], low)
            overlaps.append((top - bottom).clamp(min=0))  # (B, K, n, P)
        inside = covers[0][..., :, None] & covers[1][..., None, :] & self.valid[..., None, None]  # (B, K, P, Q)
        places = torch.arange(self.num_windows, device=start.device)
        rank = (self.levels * self.num_windows + places)[..., None, None]
        rank = torch.where(inside, rank, torch.iinfo(torch.int64).max)
        owned = inside & (rank == rank.amin(1, keepdim=True))
        return torch.einsum("bkip,bkpq,bkjq->bkij", overlaps[0], owned.double(), overlaps[1]).float()

    def tokens(self, n: int) -> tuple[Tensor, Tensor]:
        """The cells that become tokens: those that alone stand for some of the picture.

        Returns:
            index: (B, N) int64 into the K * n * n cells of each picture, finest window first.
            mask: (B, N) bool, False where a place only fills the batch.
        """

        def compute() -> tuple[Tensor, Tensor]:
            alone = self.areas(n).flatten(1) > 0
            order = torch.sort(alone, dim=1, descending=True, stable=True).indices
            if not torch.compiler.is_compiling():
                order = order[:, : int(alone.sum(1).max())]
            return order, alone.gather(1, order)

        return self.remembered(("tokens", n), compute)


def _fixations(fixation: Any, batch: int) -> Tensor:
    """(B, 2) float64 from "center", (y, x) or (B, 2)."""
    if isinstance(fixation, str):
        if fixation != "center":
            raise ValueError(f"fixation is {fixation!r}; expected 'center', (y, x) or a tensor (B, 2)")
        fixation = (0.5, 0.5)
    rows = _as_rows(fixation, 2, "fixation", torch.float64).detach().cpu()
    if not bool(((rows >= 0) & (rows <= 1)).all()):
        raise ValueError(f"fixation {rows.tolist()} lies outside the picture; y and x go from 0 to 1")
    if batch > 1 and len(rows) == 1:
        rows = rows.expand(batch, 2)
    if batch > 1 and len(rows) != batch:
        raise ValueError(f"{len(rows)} fixations for {batch} pictures; give one, or one for each")
    return rows


def _read_size(sides: Sequence[int], size: int, levels: int, enlarge: bool) -> list[int]:
    """The height and width at which a picture is read, so that the widest window holds it."""
    longer, widest = max(sides), size << (levels - 1)
    if longer == widest or (longer < widest and not enlarge):
        return list(sides)
    return [max(1, round(side * widest / longer)) for side in sides]
