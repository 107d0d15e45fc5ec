"""Output size, receptive field, jump and start along a plain chain of layers, by the textbook recurrences.

Along one axis; the derivation and its drawings are in Dumoulin and Visin 2016 and in Araujo, Norris and Sim 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from foveal.arguments import whole_number


@dataclass(frozen=True)
class ChainStep:
    """A layer that slides a window, along one axis.

    Args:
        kernel: cells of the window, at least 1.
        stride: cells between two windows, at least 1.
        padding: cells put before the map, and after it unless `padding_after` says otherwise.
        dilation: cells between two taps of the window, at least 1.
        padding_after: cells put after the map.

    Raises:
        ValueError: for a number out of range.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    padding_after: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            whole_number(getattr(self, name), name, least)
        if self.padding_after is not None:
            whole_number(self.padding_after, "padding_after", 0)

    @property
    def reach(self) -> int:
        """Cells from the first to the last tap of the window, both counted: `dilation * (kernel - 1) + 1`."""
        return self.dilation * (self.kernel - 1) + 1

    def size(self, cells: int) -> int:
        """Cells that come out of a map of so many: `floor((cells + padding - reach) / stride) + 1`, both sides padded.

        Raises:
            ValueError: if the window does not fit into the padded map.
        """
        after = self.padding if self.padding_after is None else self.padding_after
        padded = cells + self.padding + after
        if padded < self.reach:
            raise ValueError(f"a window of {self.reach} cells does not fit into the padded map of {padded}")
        return (padded - self.reach) // self.stride + 1


@dataclass(frozen=True)
class ChainField:
    """What one cell of a layer's output sees of the picture, along one axis.

    Args:
        field: pixels that it depends on, those beside the picture included.
        jump: pixels between the fields of two neighbours.
        start: centre of the first cell's field; pixel 0 reaches from 0 to 1, so its centre is 0.5.
        size: cells of the map; None where the picture's size was not given.
    """

    field: int = 1
    jump: int = 1
    start: float = 0.5
    size: int | None = None

    def box(self, cell: int) -> tuple[int, int]:
        """First pixel of a cell's field, and the one after its last; below 0 or past the picture lies padding."""
        first = round(self.start + cell * self.jump - self.field / 2)
        return first, first + self.field


def chain_fields(steps: Iterable[ChainStep], size: int | None = None) -> list[ChainField]:
    """The fields after every layer of a chain.

    `field += (reach - 1) * jump`, `start += ((reach - 1) / 2 - padding) * jump`, `jump *= stride`.

    Args:
        steps: the layers, in order.
        size: pixels of the picture along this axis.

    Returns:
        One for each layer.

    Raises:
        ValueError: if a window does not fit into its map, with the number of the layer.

    Example:
        >>> last = chain_fields([ChainStep(7, 2), ChainStep(3, 2), ChainStep(3), ChainStep(3)])[-1]
        >>> last.field, last.jump
        (27, 4)
    """
    found, before = [], ChainField(size=size)
    for number, step in enumerate(steps, 1):
        try:
            cells = None if before.size is None else step.size(before.size)
        except ValueError as error:
            raise ValueError(f"layer {number}: {error}") from None
        before = ChainField(
            field=before.field + (step.reach - 1) * before.jump,
            jump=before.jump * step.stride,
            start=before.start + ((step.reach - 1) / 2 - step.padding) * before.jump,
            size=cells,
        )
        found.append(before)
    return found
