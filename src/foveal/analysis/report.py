"""All that the analyser has to say about a network, and the ways of saying it: text, tables, a page, plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from foveal.analysis.analysis_text import analysis_table, short
from foveal.analysis.analyze import Analysis, from_trace
from foveal.analysis.effective_field import UnitField, unit_field_in
from foveal.analysis.example_inputs import example_inputs, refuse_channels_last
from foveal.analysis.feature_pictures import read_pixels
from foveal.analysis.field_pictures import caveats
from foveal.analysis.foveated_cost import FoveatedCost, foveated_cost, times
from foveal.analysis.trace import trace
from foveal.picture import PictureLike
from foveal.whole_file import whole_file

COLUMNS = (
    *("name", "kind", "input", "output", "parameters", "macs", "flops", "activation_bytes", "moved_bytes", "intensity"),
    *(
        "field_height",
        "field_width",
        "jump_y",
        "jump_x",
        "start_y",
        "start_x",
        "padded",
        "whole",
        "blind",
        "milliseconds",
    ),
)

PLOTS = ("cost.svg", "field_growth.svg", "receptive_field.png", "effective_field.png")
"""Names of the files that `Report.draw` writes, the last two where there is a unit."""


@dataclass(frozen=True)
class Report:
    """An analysis, and what was asked for besides.

    Args:
        analysis: of the network.
        foveated: its cost with a fovea.
        unit: the field of one unit.
    """

    analysis: Analysis
    foveated: FoveatedCost | None = None
    unit: UnitField | None = None

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        made = self.analysis.as_dict()
        if self.foveated is not None:
            made["foveated"] = self.foveated.as_dict()
        if self.unit is not None:
            box = None if self.unit.sees_nothing else self.unit.box
            made["unit"] = {**self.unit.__dict__, "box": box, "heat": None, "effective": self.unit.effective}
        return made

    def rows(self) -> list[dict[str, Any]]:
        """The layers, one a row, with the columns of `COLUMNS`."""
        rows = []
        for layer in self.analysis.layers:
            field = layer.field
            places: dict[str, Any] = {} if field is None else {"padded": field.padded, "whole": field.whole}
            if field is not None:
                places |= dict(zip(("field_height", "field_width"), field.size, strict=True))
                places |= dict(zip(("jump_y", "jump_x"), field.jump, strict=True))
                places |= dict(zip(("start_y", "start_x"), field.start, strict=True))
            shapes = {name: "x".join(map(str, getattr(layer, name))) for name in ("input", "output")}
            plain = {name: getattr(layer, name) for name in COLUMNS if hasattr(layer, name)}
            rows.append({**plain, **shapes, **places})
        return rows

    def text(self, depth: int | None = None) -> RenderableType:
        """For a terminal."""
        parts: list[RenderableType] = [analysis_table(self.analysis, depth=depth)]
        if self.foveated is not None:
            parts += ["", _levels(self.foveated)]
        if self.unit is not None:
            parts += ["", *(Text(line) for line in _unit(self.unit))]
        return Group(*parts)

    def page(self, title: str) -> str:
        """One HTML page that needs nothing besides."""
        from foveal.analysis.analysis_page import analysis_page

        return analysis_page(self.analysis, title=title, foveated=self.foveated, unit=self.unit)

    def draw(self, folder: str | os.PathLike[str], *, picture: PictureLike | None = None) -> list[Path]:
        """Writes plots of cost and fields.

        Args:
            folder: is made if it is not there.
            picture: to draw fields over, anything that `open_picture` takes.

        Returns:
            The files that were written.

        Raises:
            PictureError: if the picture cannot be read.
            OSError: if a file cannot be written.
        """
        from foveal.analysis.analysis_plots import cost_plot, growth_plot
        from foveal.analysis.field_pictures import field_picture, heat_picture

        photo = None if picture is None else _as_image(picture, *self.analysis.picture[-2:])
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        made = []
        for name, draw in zip(PLOTS[:2], (cost_plot, growth_plot), strict=True):
            with whole_file(place / name) as file:
                file.write(draw(self.analysis))
            made.append(place / name)
        if self.unit is not None:
            for name, drawing in zip(
                PLOTS[2:], (field_picture(self.unit, photo), heat_picture(self.unit)), strict=True
            ):
                with whole_file(place / name, "wb") as file:
                    drawing.save(file, "PNG")
                made.append(place / name)
        return made


def report(
    network: nn.Module,
    size: int | Sequence[int] | None = None,
    *,
    levels: int | None = None,
    window: int = 64,
    unit: tuple[str, tuple[int, int] | None] | None = None,
    draws: bool = False,
    time: bool = False,
    untaught: bool = False,
) -> Report:
    """Analyses a network.

    Args:
        network: that takes a picture (B, C, H, W) first.
        size: height and width of the picture, or one number for both; by default 224, or what an ONNX file says.
        levels: windows of a fovea, to count that too.
        window: cells along the side of one.
        unit: a layer's path and a place in its map, or None for its middle, whose field is wanted.
        draws: whether there will be plots: the last map's middle is looked at where no unit is named.
        time: also measure every layer.
        untaught: whether the weights are known to be random, to say so beside what depends on them.

    Raises:
        Untraceable: if the network's run cannot be recorded.
        UnsupportedModule: if a fovea is wanted that the network cannot have.
        ValueError: for an impossible size, layer or unit, or a network that takes no picture.
    """
    inputs = example_inputs(network, size)
    if unit is not None:
        refuse_channels_last(network)
    recorded = trace(network, inputs)
    analysis = from_trace(network, recorded, inputs if time else None)
    if unit is None and draws and inputs[0].is_floating_point():
        maps = [one for one in analysis.layers if one.field and not one.field.whole and len(one.output) == 4]
        unit = (maps[-1].name, None) if maps else None
    found = None if unit is None else unit_field_in(recorded, unit[0], unit=unit[1], untaught=untaught)
    foveated = (
        None
        if levels is None
        else foveated_cost(network, analysis.picture[-2:], size=window, levels=levels, dense=analysis)
    )
    return Report(analysis, foveated, found)


def _as_image(picture: PictureLike, height: int, width: int) -> Image.Image:
    scale = max(1, 800 // max(height, width))  # a drawing is larger than what most networks take
    pixels = read_pixels(picture, height * scale, width * scale).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _levels(cost: FoveatedCost) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("level", "windows", "pixels a cell", "tokens", "MACs", "share", "field, px"):
        table.add_column(name, justify="right")
    for level in cost.levels:
        side = f"{1 << level.level} x {1 << level.level}"
        seen = "all" if level.field is None else str(level.field[0])
        share = f"{level.macs / max(1, cost.macs):.1%}"
        table.add_row(str(level.level), str(level.windows), side, str(level.tokens), short(level.macs), share, seen)
    table.add_row("once", "", "", "", short(cost.once), f"{cost.once / max(1, cost.macs):.1%}", "all")
    said = f"With a fovea: {short(cost.macs)} MACs, dense {short(cost.dense.macs)}: {times(cost.ratio)}"
    pixels = f"{cost.cells:,} cells for {cost.pixels:,} pixels: {times(cost.pixels / cost.cells)}"
    return Group(table, Text(said), Text(pixels + "; level 0 is the centre, what is coarser the periphery."))


def _unit(unit: UnitField) -> list[str]:
    top, bottom, left, right = unit.box
    far = unit.nominal
    where = f"{unit.layer} at ({unit.unit[0]}, {unit.unit[1]}) of {unit.grid[0]} x {unit.grid[1]}:"
    if unit.sees_nothing:
        return [where, "  can see  no pixel: all that it takes is padding"]
    return [
        where,
        f"  can see  rows {top} to {bottom}, columns {left} to {right}"
        + (" (all, through attention or a pool over space)" if unit.whole else ""),
        f"  field    {far[1] - far[0] + 1} x {far[3] - far[2] + 1} pixels, padding included",
        f"  sees     as much as a square of {unit.effective:.0f} pixels (gradients above 4.55 % of the largest)",
        *(f"           {line}" for line in caveats(unit)),
    ]
