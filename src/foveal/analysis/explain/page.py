"""What a page of explanation consists of, whatever it is shown with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under columns.

    Args:
        title: what the rows have in common.
        columns: their names.
        rows: one text for each column; several lines where it has line ends.
        align: one letter for each column: "l" left, "r" right.
        note: what a reader needs to know of the columns.

    Raises:
        ValueError: if a row or `align` has another length than `columns`.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""

    def __post_init__(self) -> None:
        lengths = {len(self.columns), len(self.align), *map(len, self.rows)}
        if len(lengths) > 1:
            raise ValueError(f"{self.title}: columns, alignment and rows have unlike lengths {sorted(lengths)}")


@dataclass(frozen=True)
class Page:
    """One topic.

    Args:
        title: its name.
        text: one or two sentences on what it is.
        tables: that show it.
        lesson: one sentence of what to take away.
    """

    title: str
    text: str
    tables: tuple[Table, ...]
    lesson: str
