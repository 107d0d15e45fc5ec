"""`foveal train`: a recipe in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.output import complain, style

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal train recipes/flickr8k.yaml[/cyan]                      into runs/flickr8k
  [cyan]foveal train recipes/flickr8k.yaml --resume[/cyan]             after a stop
  [cyan]foveal train recipes/flickr8k.yaml seed=1 --out runs/b[/cyan]  another run
"""


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="What to train, on what, and how long.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Keys of the recipe, changed for this run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The run's folder; runs/RECIPE by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in this folder from its last checkpoint.")
    ] = False,
) -> None:
    """Train a model from a recipe.

    The run's folder holds recipe, versions, checkpoints, metrics and TensorBoard logs; at the end model/ is in it.
    """
    from foveal.training.recipe import RecipeError, load_recipe

    try:
        wanted = load_recipe(recipe, overrides or [])
    except RecipeError as error:
        raise typer.BadParameter(str(error), param_hint="RECIPE") from None
    folder = out or Path("runs") / Path(recipe).stem
    from foveal.training.run import train as run

    try:
        model = run(wanted, folder, resume=resume)
    except RecipeError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from None
    except KeyboardInterrupt:
        complain(f"stopped; to go on from the last checkpoint: the same command with --out {folder} --resume")
        raise
    print(style(f"The model is in {model}", bold=True))
    print(f"  foveal describe --demo --model {model}")
