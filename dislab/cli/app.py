"""The commands, one file each. Options become a RunConfig and a Machine, and nothing else.

What needs torch or scikit-learn is imported inside the commands, so that help is shown at once.
"""

from __future__ import annotations

import errno
import os
import traceback
from typing import Annotated

import typer

from dislab import __version__
from dislab.cli.analyse import analyse_command
from dislab.cli.bench import bench_command
from dislab.cli.data import app as data_app
from dislab.cli.evaluate import evaluate_command
from dislab.cli.leaderboard import leaderboard_command
from dislab.cli.list import list_command
from dislab.cli.merge import merge_command
from dislab.cli.report import report_command
from dislab.cli.run import run_command
from dislab.errors import DislabError, in_one_line
from dislab.progress import remarks_in_one_line, say
from dislab.signals import received

# The system's reasons to refuse a path that the user is at fault for; others are the system's own.
OF_THE_PATH = (
    *(errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.EROFS, errno.EINVAL, errno.ENXIO),
)
COMPLETING = "_DISLAB_COMPLETE"  # the environment variable by which a shell asks how to complete a command
TRACEBACK = "DISLAB_TRACEBACK"  # the environment variable that asks for tracebacks

app = typer.Typer(
    name="dislab",
    help="Train disentangled representations, score them, and compare them in tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"dislab {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of the program itself."""


app.command("run")(run_command)
app.command("evaluate")(evaluate_command)
app.command("leaderboard")(leaderboard_command)
app.command("report")(report_command)
app.command("bench")(bench_command)
app.command("analyse")(analyse_command)
app.command("merge")(merge_command)
app.command("list")(list_command)
app.add_typer(data_app)


def do(arguments: list[str] | None) -> int:
    """Do a command; return its exit code. Every error is one line on standard error."""
    try:
        with remarks_in_one_line():
            code = app(arguments, prog_name="dislab", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of others may raise anything
        if received:  # a library has turned Ctrl-C into another error
            raise KeyboardInterrupt from error
        if isinstance(error, SystemExit) and COMPLETING in os.environ:
            return error.code or 0
        say(f"dislab: {_words(error)}")
        if os.environ.get(TRACEBACK):
            traceback.print_exception(error)
        return _exit_code(error)


def _words(error: BaseException) -> str:
    # Typer's own errors (an unknown option, a missing value) know how to say themselves in one line.
    if hasattr(error, "format_message"):
        return f"{error.format_message()} (see dislab --help)"
    is_expected = isinstance(error, (DislabError, OSError, MemoryError))
    return in_one_line(error) + ("" if is_expected else f"; {TRACEBACK}=1 shows where")


def _exit_code(error: BaseException) -> int:
    if isinstance(error, DislabError):
        return error.exit_code
    if isinstance(error, OSError):
        return 2 if error.errno in OF_THE_PATH else 1
    return 2 if hasattr(error, "format_message") else 1
