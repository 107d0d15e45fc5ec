"""`foveal explain`: the subject's comparison tables, computed live."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from foveal.cli.options import Language

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal explain[/cyan]                         the topics
  [cyan]foveal explain kernel[/cyan]                  what a larger kernel costs
  [cyan]foveal explain receptive-field --lang zh[/cyan]  in Chinese
"""


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="kernel, stride, padding, pooling, receptive-field, sharing, convolutions or filters; "
            "without one they are listed.",
        ),
    ] = None,
    language: Language = "en",
) -> None:
    """Explain a part of a CNN with tables.

    Every number is computed when you ask, by layers that are built and run.
    """
    from foveal.analysis.explain.topics import TOPICS, topic_list
    from foveal.analysis.explain.topics import explain as make_page

    language = language.strip().lower()
    try:
        topics = topic_list(language)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lang") from None
    if topic is None:
        for name, line in topics:
            print(f"{name:<{max(map(len, TOPICS))}}  {line}")
        return
    try:
        page = make_page(topic.strip().lower(), language)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TOPIC") from None
    from foveal.analysis.explain.printing import show

    show(page, sys.stdout)
