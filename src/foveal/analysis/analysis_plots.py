"""What a network costs, and how what it sees grows, drawn layer by layer in the order of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from foveal.analysis.analysis_text import merged, short
from foveal.analysis.analyze import Analysis, Field, Layer
from foveal.analysis.svg_parts import dot, path, rect, round_steps, shortened, svg, text

FEW, MANY, MOST = 8, 40, 120
"""Rows of a plot: fewer tell little, more are hard to compare, and more than the last are hard to find."""

WIDTH = 960
NAMES, ROW, TOP = 220, 20, 66  # of the cost plot: width of its names, height of a row and of all above them
LEFT, RIGHT, ABOVE, PLOT, BELOW = 70, 110, 66, 330, 104  # of the growth plot


def cost_plot(analysis: Analysis) -> str:
    """MACs, parameters and written activations of every layer as bars, and milliseconds where they were measured.

    Layers of a large network are put together by the first steps of their paths, so that at most about 40 rows remain.

    Args:
        analysis: of a network.

    Returns:
        An SVG document.

    Example:
        >>> cost_plot(analyze(nn.Conv2d(3, 8, 3), 32)).startswith("<svg")
        True
    """
    rows, how = rows_of(analysis.layers)
    columns = [
        _Column("MACs", "one", lambda layer: layer.macs, ""),
        _Column("Parameters", "two", lambda layer: layer.parameters, ""),
        _Column("Activations", "three", lambda layer: layer.activation_bytes, "B"),
    ]
    if any(layer.milliseconds is not None for layer in rows):
        columns.append(_Column("Time", "four", lambda layer: layer.milliseconds or 0.0, "ms"))
    height, each = TOP + ROW * len(rows) + 14, (WIDTH - NAMES) / len(columns)
    title = f"Cost of each layer of {analysis.network}"
    parts = [text(12, 22, title, size=15), text(12, 40, f"{_picture(analysis)}; {how}", kind="faint")]
    for place, row in enumerate(rows):
        name = shortened(row.name or "(network)", 28)
        parts.append(text(NAMES - 8, TOP + ROW * place + 14, name, anchor="end"))
    for place, column in enumerate(columns):
        parts += _bars(column, rows, NAMES + place * each, each)
    return svg(WIDTH, height, parts, label=f"{title}: bars of MACs, parameters and activations")


@dataclass(frozen=True)
class _Column:
    title: str
    kind: str
    of: Callable[[Layer], float]
    unit: str

    def said(self, number: float) -> str:
        return f"{number:.3g} ms" if self.unit == "ms" else f"{short(number)}{self.unit}".strip()


def _bars(column: _Column, rows: Sequence[Layer], left: float, width: float) -> list[str]:
    numbers = [column.of(row) for row in rows]
    total, most = sum(numbers), max(numbers, default=0) or 1
    parts = [text(left, TOP - 8, f"{column.title}: {column.said(total)}", kind=column.kind)]
    parts.append(path([(left, TOP), (left, TOP + ROW * len(rows))], "line"))
    for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        if not number:
            continue
        top, long = TOP + ROW * place, max(0.75, number / most * (width - 74))
        whole = f"{row.name or '(network)'}: {column.title} {column.said(number)}, {number / total:.1%}"
        parts.append(rect(left, top + 4, long, ROW - 7, column.kind, title=whole))
        parts.append(text(left + long + 4, top + 14, column.said(number), size=11, kind="faint"))
    return parts


def rows_of(layers: tuple[Layer, ...], *, many: int = MANY) -> tuple[tuple[Layer, ...], str]:
    """As many rows as can be read and tell most, and in words how they were put together."""
    if len(layers) <= many:
        return layers, "every layer"
    deepest = max(layer.name.count(".") + 1 for layer in layers)
    by_depth = {depth: merged(layers, depth) for depth in range(1, deepest)} | {deepest: layers}
    depth = max((depth for depth, rows in by_depth.items() if len(rows) <= many), default=1)
    if len(by_depth[depth]) < FEW and depth < deepest:
        depth += 1
    rows = by_depth[depth]
    steps = "the first step" if depth == 1 else f"the first {depth} steps"
    how = "every layer" if depth == deepest else f"all {len(layers)} layers, put together by {steps} of their paths"
    if len(rows) <= MOST:
        return rows, how
    at_once = -(-len(rows) // MOST)
    joined = [_joined(rows[start : start + at_once]) for start in range(0, len(rows), at_once)]
    return tuple(joined), f"all {len(layers)} layers, put together by their paths and {at_once} at a time"


def _joined(rows: Sequence[Layer]) -> Layer:
    ends = [row.name or "(network)" for row in (rows[0], rows[-1])]
    (one,) = merged(tuple(replace(row, name="") for row in rows), 1)
    if ends[0] == ends[1]:
        return replace(one, name=ends[0])
    within, _, last = ends[1].rpartition(".")  # of the same part of the network: said once
    return replace(one, name=f"{ends[0]} to {last if ends[0].rpartition('.')[0] == within else ends[1]}")


def growth_plot(analysis: Analysis) -> str:
    """The receptive field of every layer against its place in the run, with the picture's side as a line.

    Branches see unlike much, so the curve is the largest field so far. From where a layer takes the whole picture
    together, a band says "global".

    Args:
        analysis: of a network.

    Returns:
        An SVG document.

    Example:
        >>> "picture" in growth_plot(analyze(nn.Conv2d(3, 8, 3), 32))
        True
    """
    fields = [(place, layer, layer.field) for place, layer in enumerate(analysis.layers) if layer.field is not None]
    local = [(place, layer, field) for place, layer, field in fields if not field.whole]
    sides = analysis.picture[-2:] if len(analysis.picture) == 4 else ()
    most = 1.08 * max([1, *sides, *(max(field.size) for _, _, field in local)])
    across = (WIDTH - LEFT - RIGHT) / max(1, len(analysis.layers))

    def at(place: float, pixels: float) -> tuple[float, float]:
        return LEFT + across * (place + 0.5), ABOVE + PLOT * (1 - pixels / most)

    title = f"Receptive field of each layer of {analysis.network}"
    parts = [text(12, 22, title, size=15), text(12, 40, _summary(analysis, local), kind="faint")]
    parts += _bands(fields, lambda place: at(place, 0)[0])
    for tick in round_steps(most):
        y = at(0, tick)[1]
        parts += [path([(LEFT, y), (WIDTH - RIGHT, y)], "line"), text(LEFT - 8, y + 4, f"{tick:g}", anchor="end")]
    parts.append(f'<g transform="translate(18 {ABOVE + PLOT / 2:.0f}) rotate(-90)">{_axis("pixels")}</g>')
    parts += _stages(analysis, lambda place: at(place - 0.5, 0)[0])
    uneven = any(field.size[0] != field.size[1] for _, _, field in local)
    for axis, (kind, name) in enumerate((("one", "height"), ("two", "width")) if uneven else (("one", "field"),)):
        ends = [max(field.size[side] for _, _, field in local) for side in (axis, 1 - axis)] if local else [0, 0]
        parts += _curve(local, axis, kind, name, at, lower=7 * ((ends[0] < ends[1]) - (ends[0] > ends[1])))
    named = dict(zip(sides, ("height", "width"), strict=False))  # one line where both are alike
    for place, (side, word) in enumerate(named.items()):
        y = at(0, side)[1]
        parts.append(path([(LEFT, y), (WIDTH - RIGHT, y)], "mark", width=1.5, dashed=True))
        words = f"picture: {side}" if len(named) == 1 else f"picture's {word}: {side}"
        parts.append(text(LEFT + 6 + 140 * place, y - 5, words, kind="mark"))
    return svg(WIDTH, ABOVE + PLOT + BELOW, parts, label=f"{title}, against the picture's side")


def _curve(
    local: list[tuple[int, Layer, Field]],
    axis: int,
    kind: str,
    name: str,
    at: Callable[[float, float], tuple[float, float]],
    *,
    lower: float,
) -> list[str]:
    """A dot for every layer, the largest so far as a line, and at its end a number, moved down by `lower`."""
    parts: list[str] = []
    steps: list[tuple[float, float]] = []
    largest = 0
    for place, layer, field in local:
        size = field.size[axis]
        if size > largest:
            steps += [at(place, largest), at(place, size)] if largest else [at(place, size)]
            largest = size
        step = field.jump[axis]
        words = f"{layer.name or '(network)'}: {name} {size} pixels" + ("" if step is None else f", jump {step:g}")
        parts.append(dot(at(place, size), kind, title=words))
    if not local:
        return parts
    steps.append(at(local[-1][0], largest))
    end = text(WIDTH - RIGHT + 8, steps[-1][1] + 4 + lower, f"{name}: {largest}", kind=kind)
    return [path(steps, kind, width=2), *parts, end]


def _bands(fields: list[tuple[int, Layer, Field]], at: Callable[[float], float]) -> list[str]:
    parts = []
    for whole, run in groupby(fields, key=lambda item: item[2].whole):
        if not whole:
            continue
        places = [place for place, _, _ in run]
        left, right = at(places[0] - 0.5), at(places[-1] + 0.5)
        parts.append(rect(left, ABOVE, right - left, PLOT, "band", title="every number depends on the whole picture"))
        if not parts[1:]:  # the first alone is named
            inside = right - left > 60
            x, anchor = ((left + right) / 2, "middle") if inside else (right, "end")
            parts.append(text(x, ABOVE - 6, "global", anchor=anchor, kind="four"))
    return parts


def _stages(analysis: Analysis, at: Callable[[float], float]) -> list[str]:
    """Names under the axis, each where its layers begin; those without room are left out."""
    rows, _ = rows_of(analysis.layers, many=24)
    steps = max((row.name.count(".") + 1 for row in rows), default=1)
    parts, last = [], -100.0
    place = 0
    for name, run in groupby(analysis.layers, key=lambda layer: ".".join(layer.name.split(".")[:steps])):
        x, base = at(place), ABOVE + PLOT
        if x - last >= 16:
            last = x
            words = text(0, 0, shortened(name or "(network)", 20), size=11)
            parts.append(path([(x, base), (x, base + 6)], "faint"))
            parts.append(f'<g transform="translate({x - 2:.1f} {base + 18}) rotate(40)">{words}</g>')
        place += len(list(run))
    return parts


def _summary(analysis: Analysis, local: list[tuple[int, Layer, Field]]) -> str:
    if not local:
        return f"{_picture(analysis)}; no layer has a field that can be told"
    height, width = analysis.picture[-2:]
    wide = [layer for _, layer, field in local if field.size[0] >= height and field.size[1] >= width]
    if wide:
        return f"{_picture(analysis)}; {wide[0].name or 'the network'} is the first whose field is as large as that"
    return f"{_picture(analysis)}; no field of a local layer is as large as that"


def _picture(analysis: Analysis) -> str:
    return ("picture " if len(analysis.picture) == 4 else "input ") + " x ".join(map(str, analysis.picture))


def _axis(words: str) -> str:
    return text(0, 0, words, anchor="middle")
