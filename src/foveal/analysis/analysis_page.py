"""An analysis as one page of HTML that needs nothing else: no network, no font, no script from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

from foveal.analysis.analysis_plots import cost_plot, growth_plot
from foveal.analysis.analysis_text import short
from foveal.analysis.analyze import Analysis
from foveal.analysis.effective_field import UnitField
from foveal.analysis.field_pictures import effective_in_words, field_in_words, heat_picture
from foveal.analysis.foveated_cost import FoveatedCost
from foveal.analysis.layer_table import column_notes, depths_of, layer_table, said, square
from foveal.analysis.remarks import last_local

Card = tuple[str, str, str, str]
"""Its name, a number in short, the same exactly, and a sentence."""

MACS = (
    "Multiply-accumulates: a product and its addition to a sum. Convolutions, linear layers, matrix products and "
    "attention; some tools print this number under the name of FLOPs."
)
FLOPS = "Floating-point operations: all arithmetic, norms, activations and pools included, 2 for each MAC."


def analysis_page(
    analysis: Analysis, *, title: str, foveated: FoveatedCost | None = None, unit: UnitField | None = None
) -> str:
    """Totals, remarks, plots, and a table of the layers that sorts by any column.

    Args:
        analysis: of a network.
        title: over the page.
        foveated: the network's cost on a look, for a section of its own.
        unit: a field of one of its units, whose map of heat is shown.

    Returns:
        An HTML document: light or dark as the reader's machine is set, and readable on a phone and on paper.

    Example:
        >>> analysis_page(analyze(nn.Conv2d(3, 8, 3), 32), title="A layer").startswith("<!doctype html>")
        True
    """
    sections = [
        _cards(_totals(analysis)),
        *_remarks(analysis),
        *_plots(analysis),
        *(_unit(unit) if unit is not None else ()),
        *(_foveated(foveated) if foveated is not None else ()),
        *_layers(analysis),
    ]
    here = Path(__file__)
    style, script = (here.with_name(f"analysis_page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{said(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            f"<header><div><h1>{said(title)}</h1>",
            f'<p class="faint">{said(analysis.network)} on an input of {_sides(analysis.picture)}</p></div>',
            '<button type="button" id="theme">Dark</button></header>',
            "<main>",
            *sections,
            "</main>",
            f"<script>\n{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _totals(analysis: Analysis) -> Iterator[Card]:
    unused = sum(analysis.unused.values())
    kept = f" {unused:,} more are not used in evaluation." if unused else ""
    kept += f" {analysis.buffers:,} numbers are kept besides, as buffers." if analysis.buffers else ""
    yield "Parameters", *_number(analysis.parameters), f"Numbers that training learns, each counted once.{kept}"
    yield "MACs", *_number(analysis.macs), MACS
    yield "FLOPs", *_number(analysis.flops), FLOPS
    written = "All that the layers write, about what training keeps."
    yield "Activations", *_number(analysis.activation_bytes, "B"), written
    yield "Activations at once", *_number(analysis.peak_bytes, "B"), "The most at a time, when each is freed after use."
    at = last_local(analysis)
    last = None if at is None else analysis.layers[at]
    if last is not None and last.field is not None:
        size = last.field.size
        wide = f"{size[0]:,} x {size[1]:,} pixels"
        yield (
            "Receptive field",
            square(size),
            wide,
            f"Of {last.name or 'the network'}, the last layer that is not global.",
        )
    spent = [layer.milliseconds for layer in analysis.layers if layer.milliseconds is not None]
    if spent and sum(spent):
        speed = f"{2 * analysis.macs / sum(spent) / 1e6:.1f} GFLOP/s, with 2 FLOPs for a MAC"
        yield "Time", f"{sum(spent):.3g} ms", speed, "Measured, all layers together."


def _remarks(analysis: Analysis) -> Iterator[str]:
    if analysis.remarks:
        yield "<h2>Remarks</h2>"
        yield f'<ul class="remarks">{"".join(f"<li>{said(remark)}</li>" for remark in analysis.remarks)}</ul>'
    if analysis.uncounted:
        yield "<h2>Not counted</h2>\n<p>Nobody can say what these operations cost; they are in no sum.</p>"
        yield f'<ul class="remarks">{"".join(f"<li>{said(one)}</li>" for one in analysis.uncounted)}</ul>'
    if analysis.unused:
        rows = "".join(f"<li>{said(name)}: {many:,}</li>" for name, many in analysis.unused.items())
        yield f"<details><summary>Parameters that evaluation does not use ({len(analysis.unused)})</summary>"
        yield f'<ul class="remarks">{rows}</ul></details>'


def _plots(analysis: Analysis) -> Iterator[str]:
    yield "<h2>Where the cost lies</h2>"
    yield _figure(cost_plot(analysis), "In the order of the run. Point at a bar to see its share.")
    yield "<h2>How the receptive field grows</h2>"
    yield _figure(
        growth_plot(analysis),
        "A dot is a layer; the line is the largest field so far. Point at a dot to see its name. Where a layer takes "
        "the whole picture together, through attention or a pool over space, its field is global.",
    )


def _figure(svg: str, caption: str) -> str:
    inline = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1).strip()
    seen = f'<div class="scroll plot" tabindex="0">{inline}</div>'
    return f"<figure>{seen}\n<figcaption>{said(caption)}</figcaption></figure>"


def _unit(unit: UnitField) -> Iterator[str]:
    picture, file = heat_picture(unit), io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    told = f"{'; '.join(field_in_words(unit))}. {effective_in_words(unit)}"
    yield "<h2>What a unit looks at</h2>"
    yield f'<figure><img src="data:image/png;base64,{data}" width="{picture.width}" height="{picture.height}"'
    yield f' alt="{said(told)}">'
    yield f"<figcaption>{said(told)} Measured by gradients (Luo et al. 2016).</figcaption></figure>"


def _foveated(cost: FoveatedCost) -> Iterator[str]:
    height, width = cost.dense.picture[-2:]
    ratio = f"{cost.ratio:.1f}" if cost.ratio >= 0.95 else f"{cost.ratio:.2f}"
    tokens = sum(level.tokens for level in cost.levels)
    yield "<h2>Foveated: centre against periphery</h2>"
    yield (
        f"<p>One look at the centre of a picture of {height} x {width}, in windows of {cost.size} x {cost.size} cells. "
        f"Level 0 is full detail; a cell of level l averages 2<sup>l</sup> x 2<sup>l</sup> pixels.</p>"
    )
    yield _cards(
        [
            ("MACs of a look", *_number(cost.macs), "Of all windows, and of what is done once a picture."),
            ("MACs, dense", *_number(cost.dense.macs), "The same network on the whole picture at full resolution."),
            ("Dense / look", f"{ratio} x", f"{cost.ratio:.3f}", "Above 1, a look costs less than the dense network."),
            (
                "Cells",
                f"{cost.cells / cost.pixels:.1%}",
                f"{cost.cells:,} of {cost.pixels:,}",
                "Looked at, of the pixels of the picture.",
            ),
            ("Tokens", f"{tokens:,}", "", "Cells of the last map that no finer window covers."),
        ]
    )
    parts = [(f"level {level.level}", level.macs, "") for level in cost.levels]
    parts += [("once a picture", cost.once, "once")] if cost.once else []
    total = max(1, cost.macs)
    spans = "".join(
        f'<span class="{kind}" style="width:{many / total:.2%}" title="{name}: {many / total:.1%}">{name}</span>'
        for name, many, kind in parts
    )
    words = ", ".join(f"{name} {many / total:.1%}" for name, many, _ in parts)
    yield f'<div class="parts" role="img" aria-label="Shares of the MACs: {words}">{spans}</div>'
    head = ("Level", "Place", "Covers", "Windows", "Tokens", "MACs", "of the look", "Field")
    cells = "".join(f'<th scope="col" class="number">{name}</th>' for name in head)
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Levels">'
    yield f'<table class="levels"><thead><tr>{cells}</tr></thead><tbody>'
    for level in cost.levels:
        side = cost.size << level.level
        field = "all that is looked at" if level.field is None else f"{square(level.field)} pixels"
        yield _level(
            str(level.level),
            "periphery" if level.level else "fovea",
            f"{side} x {side} pixels",
            f"{level.windows:,}",
            f"{level.tokens:,}",
            short(level.macs).strip(),
            f"{level.macs / total:.1%}",
            field,
        )
    if cost.once:
        yield _level("", "once a picture", "", "", "", short(cost.once).strip(), f"{cost.once / total:.1%}", "")
    windows = sum(level.windows for level in cost.levels)
    yield "</tbody><tfoot>"
    yield _level("", "a look", "", f"{windows:,}", f"{tokens:,}", short(cost.macs).strip(), "100.0%", "")
    yield "</tfoot></table></div>"


def _level(first: str, *cells: str) -> str:
    return f'<tr><th scope="row" class="number">{first}</th>' + "".join(
        f'<td class="number">{cell}</td>' for cell in cells
    ) + "</tr>"  # fmt: skip


def _layers(analysis: Analysis) -> Iterator[str]:
    yield "<h2>Layers</h2>"
    options = []
    for depth, rows in depths_of(analysis).items():
        steps = (
            "every layer" if not depth else f"by the first {depth} steps of their paths" if depth > 1 else "by stage"
        )
        options.append(f'<option value="{depth}">{steps} ({len(rows)})</option>')
    yield f'<div class="tools"><label>Show <select id="depth">{"".join(options)}</select></label>'
    yield '<label>Find <input type="search" id="find" placeholder="part of a name"></label></div>'
    yield '<div class="scroll layers" tabindex="0" role="region" aria-label="Layers">'
    yield layer_table(analysis)
    yield "</div>"
    yield f"<details><summary>What the columns say</summary>{column_notes(analysis)}</details>"


def _cards(cards: Iterator[Card] | list[Card]) -> str:
    made = []
    for name, number, exact, says in cards:
        precisely = f'<dd class="exact">{said(exact)}</dd>' if exact and exact != number else ""
        made.append(
            f'<div><dt>{said(name)}</dt><dd class="much">{said(number)}</dd>{precisely}'
            f'<dd class="says">{said(says)}</dd></div>'
        )
    return '<dl class="cards">\n' + "\n".join(made) + "\n</dl>"


def _number(number: int, unit: str = "") -> tuple[str, str]:
    return f"{short(number)}{unit}".strip(), f"{number:,}" + (" bytes" if unit else "")


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
