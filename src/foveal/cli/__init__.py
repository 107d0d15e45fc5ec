"""The command `foveal`: its page of help, its commands, and how it ends.

A command parses, calls one function of the package and prints. It imports that function when it runs, so that the
help is there at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from foveal import __version__
from foveal.cli import analyze, bench, data, describe, evaluate, explain, features, filter, train, view
from foveal.cli.output import one_line, show_help, speak_utf8
from foveal.memory import is_out_of_memory

# Click's error that stands for wrong usage; where it lives differs between versions of Typer.
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

HELP = """
Pictures into sentences, with computation spent where the picture matters.

A picture is looked at as an eye looks: in full detail at the fixation, and in ever coarser windows around it.
"""

EXAMPLES = """
[bold]Try[/bold]
  [cyan]foveal describe --demo[/cyan]                    photographs that you have already
  [cyan]foveal describe photo.jpg --lang zh[/cyan]       one sentence, in Chinese
  [cyan]foveal describe holiday/ --csv said.csv[/cyan]   a folder, into a table
  [cyan]foveal view photo.jpg --fixation 0.3,0.7[/cyan]  what the model sees there
  [cyan]foveal train recipes/flickr8k.yaml[/cyan]        a model of your own
  [cyan]foveal describe --help[/cyan]                    every command explains itself
"""

app = typer.Typer(
    name="foveal",
    help=HELP,
    epilog=EXAMPLES,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"foveal {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="If something fails, show where in the code.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        show_help(context)


LOOK, TEACH, LEARN = "Look at pictures", "Teach and measure", "Understand networks"
app.command("describe", rich_help_panel=LOOK, epilog=describe.EXAMPLES)(describe.describe)
app.command("view", rich_help_panel=LOOK, epilog=view.EXAMPLES)(view.view)
app.command("filter", rich_help_panel=LOOK, epilog=filter.EXAMPLES)(filter.filter_)
app.command("train", rich_help_panel=TEACH, epilog=train.EXAMPLES)(train.train)
app.command("evaluate", rich_help_panel=TEACH, epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("bench", rich_help_panel=TEACH, epilog=bench.EXAMPLES)(bench.bench)
app.command("analyze", rich_help_panel=LEARN, epilog=analyze.EXAMPLES)(analyze.analyze)
app.command("explain", rich_help_panel=LEARN, epilog=explain.EXAMPLES)(explain.explain)
app.command("features", rich_help_panel=LEARN, epilog=features.EXAMPLES)(features.features)
app.add_typer(data.app, name="data", rich_help_panel=TEACH)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Returns:
        0 where all went well; 1 where work failed, 2 where the command was not understood, each with one line on
        standard error; 130 after Ctrl-C.
    """
    speak_utf8()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments, prog_name="foveal", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except UsageError as error:
        return _failed(_usage(error), 2)
    except BrokenPipeError:  # who read our output has had enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if "--traceback" in arguments or (isinstance(error, RuntimeError) and not is_out_of_memory(error)):
            raise
        short = is_out_of_memory(error)
        return _failed("there is not enough memory for this" if short else str(error) or type(error).__name__, 1)


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "foveal"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{command}: {message.rstrip('.')} (see '{command} --help')"


def _failed(message: str, code: int) -> int:
    named = message.startswith(("foveal: ", "foveal "))
    print(one_line(message) if named else f"foveal: {one_line(message)}", file=sys.stderr)
    return code
