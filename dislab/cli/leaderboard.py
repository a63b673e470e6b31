"""`dislab leaderboard`: print the table of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import Plugin, a_path, load_plugins, parse_names
from dislab.cli.tables import end, width_of_output
from dislab.errors import DislabError


def leaderboard_command(
    results: Annotated[Path, typer.Argument(parser=a_path, help="A results folder.")] = Path("results"),
    format_: Annotated[str, typer.Option("--format", metavar="table|csv|markdown|latex|json")] = "table",
    rank_by: Annotated[
        str, typer.Option(help="The score that orders the rows of a dataset, best first.")
    ] = "mig",
    scores: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME…]", help="The scores to show; by default about 8 headline scores."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every score, with its 95% interval.")] = False,
    with_published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Show published numbers of the same datasets below the table (as csv or json, these "
            "alone); without a results folder, of all datasets.",
        ),
    ] = False,
    plugin: Plugin = None,
) -> None:
    """Print the leaderboard of a results folder, as wide as the terminal."""
    load_plugins(plugin)
    wanted = parse_names(scores)
    from dislab.progress import say
    from dislab.registry import unknown_name
    from dislab.report.beside import render_published
    from dislab.report.board import board_of
    from dislab.report.leaderboard import FORMATS, render, render_all, shown_in
    from dislab.report.names import HEADLINES, chosen

    if format_ not in FORMATS:
        raise unknown_name("format", format_, FORMATS)
    if all_ and wanted:
        raise DislabError("--all shows every score: leave out --scores")
    width = width_of_output()
    if with_published and not results.exists():
        print(render_published(None, wanted or list(HEADLINES), format_, width), end="")
        return
    board = board_of(results, rank_by)
    shown = shown_in(board) if wanted is None else chosen(wanted, list(board.values))
    is_tidy = format_ in ("csv", "json") and with_published  # two tables are no CSV
    if not is_tidy:
        print(render_all(board, format_, width) if all_ else render(board, format_, shown, width), end="")
    if with_published:
        datasets = board.frame["dataset"].unique()
        print(("" if is_tidy else "\n") + render_published(datasets, shown, format_, width), end="")
    for line in board.frame.attrs["remarks"]:
        say(line)
    end(board.damaged)
