"""`dislab leaderboard`: print the table of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import Plugin, a_path, load_plugins
from dislab.cli.tables import end


def leaderboard_command(
    results: Annotated[Path, typer.Argument(parser=a_path, help="A results folder.")] = Path("results"),
    format_: Annotated[str, typer.Option("--format", metavar="table|csv|markdown|latex")] = "table",
    rank_by: Annotated[
        str, typer.Option(help="The score that orders the rows of a dataset, best first.")
    ] = "mig",
    plugin: Plugin = None,
) -> None:
    """Print the leaderboard of a results folder."""
    load_plugins(plugin)
    from dislab.progress import say
    from dislab.registry import unknown_name
    from dislab.report.leaderboard import FORMATS, render, table_of

    if format_ not in FORMATS:
        raise unknown_name("format", format_, FORMATS)
    table = table_of(results, rank_by)
    print(render(table, format_), end="")
    for line in table.attrs["remarks"]:
        say(line)
    end(table.attrs["damaged"])
