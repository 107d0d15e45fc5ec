"""Where the windows of one look lie: levels, origins, coverage, areas. Geometry only, no pixels.

The idea is adaptive mesh refinement (Berger and Oliger 1984) for neural networks: a picture is held as a few
equal-sized windows at different scales. Everything that follows from their places alone is worked out here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from foveal.arguments import DEEPEST, fixation_places, one_picture, picture_sides, whole_number, window_place
from foveal.chain import chain_origins, level_counts, read_size
from foveal.coverage import own_areas
from foveal.recall import FEW_WINDOWS, recall

_LARGEST = 1 << 30
"""Cells along a window's side, so that the widest window's side in pixels is a number of 64 bits."""


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
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    # ---- making layouts ----------------------------------------------------------------------------------------

    @classmethod
    def foveal(
        cls,
        *,
        picture: Sequence[int] | Sequence[Sequence[int]] | Tensor,
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

        Returns:
            A layout of B pictures; of one picture, B looks where B fixations were given.

        Raises:
            ValueError: for an impossible size, level, lattice, picture or fixation.
        """
        pictures = picture_sides(picture)
        fixations = fixation_places(fixation, len(pictures))
        if len(pictures) == 1:
            pictures = pictures.expand(len(fixations), 2)
        size = whole_number(size, "size", 1, _LARGEST)
        count = level_counts(levels, pictures, size)
        most = int(count.max())
        lattice = max(1, size // 2) if lattice is None else whole_number(lattice, "lattice", 1)
        if most > 1 and (size % 2 or size % lattice):
            raise ValueError(
                f"size is {size}; with {most} levels it must be even and a multiple of the lattice, {lattice}, "
                f"so that windows nest"
            )
        read = torch.tensor(
            [
                read_size(sides, size, total, enlarge)
                for sides, total in zip(pictures.tolist(), count.tolist(), strict=True)
            ]
        )
        stacked = chain_origins((fixations * read).numpy(), read.numpy(), count.numpy(), size, lattice)
        level_rows = torch.arange(most).expand(len(read), most)
        valid = level_rows < count[:, None]
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
        height, width = one_picture(picture)
        covered = whole_number(size, "size", 1) << whole_number(level, "level", 0, DEEPEST - 1)
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

        Raises:
            ValueError: for no window, or one that has no such level or lies wholly outside the picture.
        """
        sides, size = one_picture(picture), whole_number(size, "size", 1)
        if not isinstance(windows, Iterable):
            raise ValueError(f"windows is {windows!r}; expected a list of (level, y, x)")
        kept = sorted(dict.fromkeys(window_place(window, sides) for window in windows), key=lambda window: window[0])
        if not kept:
            raise ValueError("a layout needs at least one window; none was given")
        rows = torch.tensor(kept)
        return cls(
            size,
            rows[None, :, 1:],
            rows[None, :, 0],
            torch.tensor([sides]),
            fixation_places(fixation, 1)[:, None],
            torch.ones(1, len(kept), dtype=torch.bool),
        )

    @classmethod
    def scan(
        cls,
        *,
        picture: Sequence[int],
        size: int,
        fixations: Any,
        levels: int | Literal["auto"] = "auto",
        lattice: int | None = None,
        enlarge: bool = False,
    ) -> Layout:
        """Several fixations on one picture as one layout: windows that their chains share are there once.

        Args:
            picture: (H, W) in pixels.
            fixations: (F, 2), each (y, x) in [0, 1].
            size, levels, lattice, enlarge: as of `Layout.foveal`.

        Example:
            >>> Layout.scan(picture=(256, 256), size=64, levels=3, fixations=[(0.4, 0.4), (0.6, 0.6)]).levels.tolist()
            [[0, 0, 1, 2]]
        """
        one_picture(picture)
        chains = cls.foveal(
            picture=picture, size=size, fixation=fixations, levels=levels, lattice=lattice, enlarge=enlarge
        )
        places = torch.cat([chains.levels[..., None], chains.origins], -1)[chains.valid].tolist()
        joined = cls.windows(picture=chains.pictures[0].tolist(), size=chains.size, windows=places)
        rows = chains.fixations.flatten(0, 1)[None]
        return cls(joined.size, joined.origins, joined.levels, joined.pictures, rows, joined.valid)

    def widest(self) -> Layout:
        """The coarsest window of each picture alone."""
        last = (self.valid.sum(1) - 1)[:, None]
        return Layout(
            self.size,
            self.origins.gather(1, last[..., None].expand(-1, -1, 2)),
            self.levels.gather(1, last),
            self.pictures,
            self.fixations,
            torch.ones_like(last, dtype=torch.bool),
        )

    @classmethod
    def dense(cls, *, picture: Sequence[int]) -> Layout:
        """One window of the picture's longer side: the ordinary way of looking, through the same code."""
        side = max(one_picture(picture))
        return cls.windows(picture=picture, size=side, windows=[(0, 0, 0)])

    @classmethod
    def stack(cls, layouts: Sequence[Layout]) -> Layout:
        """One batch from several layouts of one size; K is the largest, missing places repeat the last window."""
        if not isinstance(layouts, Sequence) or not all(isinstance(layout, Layout) for layout in layouts):
            raise ValueError("Layout.stack takes a list of layouts")
        if not layouts:
            raise ValueError("a batch needs at least one layout; none was given")
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
            torch.cat([torch.nn.functional.pad(layout.valid, (0, most - layout.num_windows)) for layout in layouts]),
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

    def remembered(self, key: Any, compute: Callable[[], Any], *, shared: bool = True) -> Any:
        """The value of `compute()`, kept under `key`: a layout never changes, so what follows is worked out once.

        It follows from the windows alone: another layout of the same windows gets the same value, wherever in them it
        looks. What the fixations change, too, is not `shared`.

        While a graph is traced nothing is kept: the compiler finds the repeated work itself, and a traced tensor
        must not outlive its graph.
        """
        if torch.compiler.is_compiling():
            fixed = self._memo.get("fixed")
            return fixed[key] if fixed is not None and key in fixed else compute()
        known = self._known() if shared else self._memo.setdefault("own", {})
        if key not in known:
            # Ordinary tensors, also while inference runs: a later training step may look through the same layout.
            with torch.inference_mode(False), torch.no_grad():
                known[key] = compute()
        return known[key]

    def fixed(self) -> Layout:
        """The same layout, of which traced graphs hold all that is remembered so far as constants."""
        made = Layout(self.size, self.origins, self.levels, self.pictures, self.fixations, self.valid)
        made._memo["known"] = self._known()
        made._memo["fixed"] = {**dict(self._known()), **self._memo.get("own", {})}
        return made

    def _known(self) -> dict[Any, Any]:
        """What has been worked out, shared among layouts of the same few windows."""
        if "known" not in self._memo:
            rows = (self.origins, self.levels, self.pictures, self.valid)
            few = self.levels.numel() <= FEW_WINDOWS and all(row.device.type == "cpu" for row in rows)
            self._memo["known"] = recall((self.size, *map(_value, rows))) if few else {}
        return self._memo["known"]

    def __getstate__(self) -> dict[str, Any]:
        """Without what has been worked out: it can be again, and takes a thousand times the room."""
        kept = {key: value for key, value in self._memo.items() if key == "fixed"}  # constants of a planned network
        return {**self.__dict__, "_memo": kept}

    def cell_pixels(self, n: int) -> Tensor:
        """(B, K) float64: the side, in pixels, of a cell of each window's map of `n x n` cells."""
        whole_number(n, "n", 1)
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

        return self.remembered(("eccentricity", n), compute, shared=False)

    def areas(self, n: int) -> Tensor:
        """(B, K, n, n) float32: the picture area, in pixels, that each cell alone stands for.

        A place of the picture belongs to the finest window that covers it (ties: the first in the layout); cells
        that are wholly covered by such windows, or lie outside the picture, have none. The areas of a layout that
        covers the picture add up to the picture's area.
        """

        def compute() -> Tensor:
            return own_areas(
                size=self.size,
                origins=self.origins,
                levels=self.levels,
                pictures=self.pictures,
                valid=self.valid,
                n=whole_number(n, "n", 1),
            )

        return self.remembered(("areas", n), compute)

    def tokens(self, n: int) -> tuple[Tensor, Tensor]:
        """The cells that become tokens: those that alone stand for some of the picture.

        Returns:
            index: (B, N) int64 into the K * n * n cells of each picture, finest window first.
            mask: (B, N) bool, False where a place only fills the batch.
        """

        def compute() -> tuple[Tensor, Tensor]:
            alone = self.areas(n).flatten(1) > 0
            places = torch.arange(alone.shape[1], device=alone.device)
            # No stable sort: the ONNX exporter has none.
            order = torch.where(alone, places, places + alone.shape[1]).argsort(1)
            if not torch.compiler.is_compiling():
                order = order[:, : int(alone.sum(1).max())]
            return order, alone.gather(1, order)

        return self.remembered(("tokens", n), compute)


def _value(rows: Tensor) -> tuple[Any, ...]:
    """All that tells a tensor from others, to be looked up by."""
    plain = torch.empty(rows.numel(), dtype=rows.dtype).copy_(rows.detach().flatten())
    return rows.dtype, tuple(rows.shape), plain.view(torch.uint8).numpy().tobytes()
