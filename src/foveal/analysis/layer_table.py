"""The layers of a network as a table of a page, with what its columns are sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from foveal.analysis.analysis_text import merged, short
from foveal.analysis.analyze import Analysis, Layer
from foveal.analysis.svg_parts import printable

Cell = tuple[str, float | None]
"""What it shows and, for numbers, what it is sorted by; an empty one has neither and comes last."""

_ALL = 1e12
"""What a global field is sorted by: after all others, which may go on far beyond the picture."""


@dataclass(frozen=True)
class Column:
    """Of the table.

    Args:
        name: at its head.
        says: in a sentence, what its numbers are.
        of: a layer's cell.
        words: whether it holds words, not numbers.
    """

    name: str
    says: str
    of: Callable[[Layer], Cell]
    words: bool = False


def layer_table(analysis: Analysis) -> str:
    """A table with a body of rows for every layer, and hidden ones of layers that are put together by their paths."""
    columns = _columns(analysis)
    head = "".join(
        f'<th scope="col" class="{"words" if column.words else "number"}" title="{said(column.says)}">'
        f'<button type="button">{said(column.name)}</button></th>'
        for column in (_PLACE, *columns)
    )
    bodies = []
    for depth, layers in depths_of(analysis).items():
        rows = "\n".join(_row(place, layer, columns) for place, layer in enumerate(layers, 1))
        bodies.append(f'<tbody data-depth="{depth}"{" hidden" if depth else ""}>\n{rows}\n</tbody>')
    return (
        f'<table class="sorts"><thead><tr>{head}</tr></thead>\n'
        + "\n".join(bodies)
        + f"\n<tfoot>{_totals(analysis, columns)}</tfoot></table>"
    )


def depths_of(analysis: Analysis) -> dict[int, tuple[Layer, ...]]:
    """Rows by the number of steps of a path that tell them apart: 0 for every layer, then the others worth a look."""
    found = {0: analysis.layers}
    deepest = max((layer.name.count(".") + 1 for layer in analysis.layers), default=1)
    for depth in range(1, deepest + 1):
        rows, last = merged(analysis.layers, depth), len(list(found.values())[-1]) if len(found) > 1 else 1
        if last < len(rows) < 0.9 * len(analysis.layers):
            found[depth] = rows
    return found


def column_notes(analysis: Analysis) -> str:
    """What each column says, as a list."""
    notes = "".join(f"<dt>{said(column.name)}</dt><dd>{said(column.says)}</dd>" for column in _columns(analysis))
    return f'<dl class="notes">{notes}</dl>'


def said(words: str) -> str:
    """Words from anywhere, for a page."""
    return escape(printable(words))


_PLACE = Column("#", "Place in the run.", lambda layer: ("", None))


def _columns(analysis: Analysis) -> tuple[Column, ...]:
    macs = max(1, analysis.macs)
    columns = [
        Column("Layer", "Path of the module in the network.", lambda one: (one.name or "(network)", None), words=True),
        Column("Kind", "Type of the module, or the operations.", lambda one: (one.kind, None), words=True),
        Column("Output", "Channels, height and width of what it gives; sorted by how many numbers.", _output),
        Column(
            "Parameters", "Of the layer; shared ones with the first that uses them.", lambda one: _many(one.parameters)
        ),
        Column("MACs", "Multiply-accumulates.", lambda one: _short(one.macs)),
        Column("of all MACs", "Share of the network's MACs.", lambda one: _share(one.macs / macs)),
        Column("FLOPs", "All arithmetic, 2 for a MAC.", lambda one: _short(one.flops)),
        Column("Memory", "Bytes of activations that it writes.", lambda one: _short(one.activation_bytes, "B")),
        Column("FLOPs/byte", "FLOPs for each byte moved; with few, a layer waits for memory.", _intensity),
        Column("Field", "Receptive field, in pixels: what a number can depend on; ? is not known.", _field),
        Column("Jump", "Pixels from one cell of the map to the next.", _jump),
        Column("Start", "Where the first cell's field has its centre, in pixels.", _start),
        Column("Padded", "Share of cells whose field reaches beyond the picture.", _padded),
    ]
    if any(layer.milliseconds is not None for layer in analysis.layers):
        columns.append(Column("ms", "Measured milliseconds.", _milliseconds))
    return tuple(columns)


def _row(place: int, layer: Layer, columns: tuple[Column, ...]) -> str:
    cells = [f'<td class="number" data-v="{place}">{place}</td>']
    for column in columns:
        shown, value = column.of(layer)
        if column.name == "Layer":
            cells.append(f'<th scope="row">{said(shown)}</th>')
        elif column.words:
            cells.append(f"<td>{said(shown)}</td>")
        else:
            sorts = "" if value is None else f"{value:.12g}"
            cells.append(f'<td class="number" data-v="{sorts}">{said(shown)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _totals(analysis: Analysis, columns: tuple[Column, ...]) -> str:
    spent = [layer.milliseconds for layer in analysis.layers if layer.milliseconds is not None]
    of = {
        "Parameters": f"{analysis.parameters:,}",
        "MACs": short(analysis.macs),
        "FLOPs": short(analysis.flops),
        "Memory": f"{short(analysis.activation_bytes)}B",
        "ms": f"{sum(spent):.2f}",
    }
    cells = "".join(f'<td class="number">{of.get(column.name, "").strip()}</td>' for column in columns[1:])
    return f'<tr><td></td><th scope="row">all</th>{cells}</tr>'


def _many(number: int) -> Cell:
    return (f"{number:,}", number) if number else ("", 0)


def _short(number: int, unit: str = "") -> Cell:
    return (f"{short(number)}{unit}".strip(), number) if number else ("", 0)


def _share(share: float) -> Cell:
    return (f"{share:.1%}", share) if share else ("", 0)


def _output(layer: Layer) -> Cell:
    numbers = 1
    for side in layer.output[1:]:
        numbers *= side
    return " x ".join(map(str, layer.output[1:])) or "1", numbers


def _intensity(layer: Layer) -> Cell:
    return f"{layer.intensity:.1f}", layer.intensity


def _field(layer: Layer) -> Cell:
    if layer.field is None:
        return "none" if layer.blind else "?", None
    size = layer.field.size
    return "global" if layer.field.whole else square(size), _ALL if layer.field.whole else size[0] * size[1]


def _jump(layer: Layer) -> Cell:
    return _pair(layer, "jump")


def _start(layer: Layer) -> Cell:
    return _pair(layer, "start")


def _pair(layer: Layer, name: str) -> Cell:
    if layer.field is None or layer.field.whole:
        return "", None
    sides = getattr(layer.field, name)
    return ("?", None) if None in sides else (square(sides, ", "), sides[0])


def _padded(layer: Layer) -> Cell:
    if layer.field is None or layer.field.whole:
        return "", None
    return f"{layer.field.padded:.0%}", layer.field.padded


def _milliseconds(layer: Layer) -> Cell:
    return ("", None) if layer.milliseconds is None else (f"{layer.milliseconds:.2f}", layer.milliseconds)


def square(sides: tuple[float, float], between: str = " x ") -> str:
    """One number where both are alike."""
    return f"{sides[0]:g}" if sides[0] == sides[1] else f"{sides[0]:g}{between}{sides[1]:g}"
