"""The command line: one file per command. Options become a RunConfig and a Machine, and nothing else.

What needs torch or scikit-learn is imported inside the commands, so that help is shown at once.
"""

from __future__ import annotations

import os
import sys

import typer

from dislab.cli.bench import bench_command
from dislab.cli.data import app as data_app
from dislab.cli.evaluate import evaluate_command
from dislab.cli.leaderboard import leaderboard_command
from dislab.cli.list import list_command
from dislab.cli.run import run_command
from dislab.errors import DislabError
from dislab.progress import remarks_in_one_line, say

app = typer.Typer(
    name="dislab",
    help="Train disentangled representations, score them, and compare them in tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run_command)
app.command("evaluate")(evaluate_command)
app.command("leaderboard")(leaderboard_command)
app.command("bench")(bench_command)
app.command("list")(list_command)
app.add_typer(data_app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; every expected error is one line on standard error and an exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # what the terminal's encoding lacks
    try:
        with remarks_in_one_line():
            code = app(arguments, standalone_mode=False)
        if code == 130:  # Typer's own way of saying that Ctrl-C was pressed
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except DislabError as error:
        say(f"dislab: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("dislab: interrupted; run the same command to resume")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Typer's own errors (an unknown option, a missing value) know how to say themselves in one line.
        if not hasattr(error, "format_message"):
            raise
        say(f"dislab: {error.format_message()} (see dislab --help)")
        return 2
