"""`foveal bench`: what a fovea saves a network, measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.options import JsonFile, Windows, read_levels
from foveal.cli.output import STANDARD, complain, progress, refuse_unwritable, style, write_json
from foveal.whole_file import whole_file

if TYPE_CHECKING:
    from foveal.bench import Fit, Measured

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal bench timm:resnet18 --sizes 256,512,1024 --batch 8[/cyan]
  [cyan]foveal bench torchvision:squeezenet1_1 --sizes 512 --levels 3[/cyan]
  [cyan]foveal bench timm:resnet18 --sizes 1024 --budget-ms 50[/cyan]  what fits
"""


def bench(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="timm:NAME, torchvision:NAME, MODULE:FUNCTION, a saved model, or default."
        ),
    ] = "timm:resnet18",
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help="Sides of the pictures, in pixels.")] = "256,512",
    batch: Annotated[int, typer.Option(min=1, max=1024, metavar="N", help="Pictures at a time.")] = 1,
    size: Annotated[int, typer.Option(min=2, max=4096, metavar="N", help="Cells along a window's side.")] = 64,
    levels: Windows = "auto",
    repeats: Annotated[int, typer.Option(min=2, max=1000, metavar="N", help="Rounds that are counted.")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of PyTorch; as it is by default.")] = None,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="Leave resizing, cropping and the retina out of the time.")
    ] = False,
    budget_ms: Annotated[
        float | None, typer.Option(min=0, metavar="MS", help="Pick windows that take at most so long a batch.")
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pick windows that give at most so many tokens.")
    ] = None,
    json_file: JsonFile = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.svg", help="Time against side, both logarithmic.")] = None,
) -> None:
    """Measure a network with and without a fovea, side by side.

    Dense, plain resize and centre crop at as many cells, and the fovea, interleaved in one run. Random weights, noise
    for pictures: only time is measured. Where the fovea is slower, it says so.
    """
    sides = _sides(sizes)
    wanted = read_levels(levels) or "auto"
    budgeted = budget_ms is not None or budget_tokens is not None
    if budgeted:
        _refuse_beside_budget(context)
    elif size % 2 and (wanted not in ("auto", 1) or (wanted == "auto" and max(sides) > size)):
        raise typer.BadParameter(f"{size}: expected an even number, so that several windows nest", param_hint="--size")
    if plot is not None and not plot.lower().endswith(".svg"):
        raise typer.BadParameter(f"{plot}: it is drawn as SVG; expected a name that ends in .svg", param_hint="--plot")
    refuse_unwritable(json=json_file, plot=plot)
    import torch

    from foveal.bench import Setting, compare, fit_budget
    from foveal.zoo import load_network

    if threads:
        torch.set_num_threads(threads)
    try:
        network = load_network(model)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="MODEL") from None
    if budgeted:
        rounds = {"repeats": repeats} if _was_given(context, "repeats") else {}
        fits = {
            side: fit_budget(network, side, milliseconds=budget_ms, tokens=budget_tokens, batch=batch, **rounds)
            for side in sides
        }
        write_json(json_file, [{"side": side, **dataclasses.asdict(fit)} for side in fits for fit in fits[side]])
        if json_file != STANDARD:
            for side in sides:
                _show_fits(side, fits[side], counted=budget_tokens is not None)
        return
    setting = Setting(batch=batch, size=size, levels=wanted, repeats=repeats, prepared=prepared)
    with progress("measuring", len(sides)) as move:
        rows = compare(network, sides, setting, progress=move)
    write_json(json_file, [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows])
    if json_file != STANDARD:
        _show(rows)
    if all(row.error for row in rows):
        complain("the network takes pictures of none of these sizes, in any way")
        raise typer.Exit(1)
    if plot is not None:
        from foveal.analysis.loglog_plot import loglog_plot

        curves = {row.way: [(r.side, r.milliseconds) for r in rows if r.way == row.way and not r.error] for row in rows}
        drawing = loglog_plot(curves, title=f"{model}, batch {batch}", across="side of the picture, pixels", up="ms")
        with whole_file(plot) as file:
            file.write(drawing)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and not source.name.startswith("DEFAULT")


def _refuse_beside_budget(context: typer.Context) -> None:
    for name in ("size", "levels", "prepared", "plot"):
        if _was_given(context, name):
            raise typer.BadParameter(
                "a budget tries sizes of windows by itself, from pictures to output; leave this option out",
                param_hint=f"--{name}",
            )


def _sides(text: str) -> list[int]:
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or not all(16 <= side <= 1 << 16 for side in sides):
        raise typer.BadParameter(f"{text!r}: expected sides such as 256,512, each 16 to 65536", param_hint="--sizes")
    return sides


def _show(rows: list[Measured]) -> None:
    print(f"{'side':>6} {'way':<20} {'cells':>11} {'ms':>9} {'middle half':>19} {'times faster':>13} {'ideal':>8}")
    for row in rows:
        start = f"{row.side:>6} {row.way:<20} {row.cells:>11,}"
        if row.error:
            print(f"{start} cannot run: {row.error}")
            continue
        spread = f"{row.low:.2f} to {row.high:.2f}"
        faster = f"{row.faster:>13.2f}" if row.faster else f"{'no dense':>13}"
        print(f"{start} {row.milliseconds:>9.2f} {spread:>19} {faster} {row.ideal:>8.2f}", end="")
        print(f"  {style(row.verdict, fg='red')}" if row.verdict else "")


def _show_fits(side: int, fits: list[Fit], *, counted: bool) -> None:
    chosen = next((fit for fit in reversed(fits) if fit.fits), None)
    for fit in fits:
        unknown = ", tokens unknown" if counted else ""
        tokens = unknown if fit.tokens is None else f", {fit.tokens} tokens"
        mark = " fits" if fit.fits else ""
        print(f"  {fit.levels} windows of {fit.size}: {fit.cells:,} cells, {fit.milliseconds:.1f} ms{tokens}{mark}")
    if counted and all(fit.tokens is None for fit in fits):
        print(f"{side} pixels: nothing is known to fit; tokens need a network with forward_features that gives maps")
    elif chosen is None:
        print(f"{side} pixels: nothing fits that sees native pixels in the fovea; give a larger budget")
    else:
        print(style(f"{side} pixels: --size {chosen.size} --levels {chosen.levels}", bold=True))
