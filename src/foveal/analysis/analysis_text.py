"""An analysis as a table to be read in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveal.analysis.analyze import Analysis, Layer


def analysis_table(analysis: Analysis, *, depth: int | None = None) -> RenderableType:
    """Layers, totals and remarks.

    The field is the side of the largest box of pixels that a number can depend on; jump, the pixels from one cell to
    the next; start, where the first cell's centre lies (pixel 0 reaches from 0 to 1); pad, how many cells reach beyond
    the picture. A field is "-" where a layer depends on no pixel, and "?" where nobody can say.

    Args:
        analysis: of a network.
        depth: layers are put together below so many steps of their paths; all by default.
    """
    layers = analysis.layers if depth is None else merged(analysis.layers, depth)
    timed = any(layer.milliseconds is not None for layer in layers)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("layer", "kind"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=28)
    numbers = ("output", "parameters", "MACs", "FLOPs", "memory", "FLOPs/B", "field", "jump", "start", "pad")
    for name in (*numbers, *["ms"] * timed):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in layers:
        row: list[str | Text] = [
            Text(layer.name or "(network)"),
            Text(layer.kind),
            "x".join(map(str, layer.output[1:])) or "1",
            f"{layer.parameters:,}" if layer.parameters else "",
            short(layer.macs) if layer.macs else "",
            short(layer.flops) if layer.flops else "",
            f"{short(layer.activation_bytes)}B",
            f"{layer.intensity:.1f}",
            *_field(layer),
        ]
        row += [f"{layer.milliseconds:.2f}" if layer.milliseconds is not None else ""] * timed
        table.add_row(*row)
    return Group(table, "", *(Text(line) for line in totals(analysis)))


def totals(analysis: Analysis) -> list[str]:
    """What stands under the table, line by line."""
    picture = " x ".join(map(str, analysis.picture))
    lines = [
        f"{analysis.network} on {picture}",
        f"  parameters   {analysis.parameters:,}"
        + (f" (and {sum(analysis.unused.values()):,} that evaluation does not use)" if analysis.unused else ""),
        f"  MACs         {short(analysis.macs)}  multiply-accumulates of convolutions, linear layers, attention",
        f"  FLOPs        {short(analysis.flops)}  all arithmetic, 2 for a MAC",
        f"  activations  {short(analysis.activation_bytes)}B written, {short(analysis.peak_bytes)}B at once",
    ]
    spent = [layer.milliseconds for layer in analysis.layers if layer.milliseconds is not None]
    if spent:
        lines.append(
            f"  time         {sum(spent):.1f} ms, {2 * analysis.macs / sum(spent) / 1e6:.1f} GFLOP/s (of 2 a MAC)"
        )
    if analysis.uncounted:
        lines.append(f"  not counted  {'; '.join(analysis.uncounted)}")
    return lines + [f"- {remark}" for remark in analysis.remarks]


def short(number: float) -> str:
    """4,089,184,256 -> 4.09 G."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}" if number / size < 999.5 else f"{number / size:.0f} {letter}"
    return f"{number:.0f} "


def merged(layers: tuple[Layer, ...], depth: int) -> tuple[Layer, ...]:
    """Layers that follow each other and share the first `depth` steps of their paths, as one."""
    made: list[Layer] = []
    for layer in layers:
        name = ".".join(layer.name.split(".")[:depth])
        if made and made[-1].name == name:
            made[-1] = _sum(made[-1], layer)
        else:
            made.append(_renamed(layer, name))
    return tuple(made)


def _renamed(layer: Layer, name: str) -> Layer:
    return Layer(**{**layer.__dict__, "name": name, "kind": layer.kind if layer.name == name else ""})


def _sum(one: Layer, other: Layer) -> Layer:
    names = ("parameters", "macs", "flops", "activation_bytes", "moved_bytes")
    both = {name: getattr(one, name) + getattr(other, name) for name in names}
    spent = None if one.milliseconds is None else one.milliseconds + (other.milliseconds or 0)
    last = {"output": other.output, "field": other.field, "blind": other.blind, "milliseconds": spent, "kind": ""}
    return Layer(**{**one.__dict__, **both, **last, "operations": one.operations + other.operations})


def _field(layer: Layer) -> tuple[str, str, str, str]:
    field = layer.field
    if field is None:
        return "-" if layer.blind else "?", "", "", ""
    if field.whole:
        return "global", "", "", ""
    size, jump, start = (_pair(sides) for sides in (field.size, field.jump, field.start))
    return size, jump, start, f"{field.padded:.0%}"


def _pair(sides: tuple[float | None, float | None]) -> str:
    y, x = ("?" if side is None else f"{side:g}" for side in sides)
    return y if y == x else f"{y}x{x}"
