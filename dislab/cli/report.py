"""`dislab report`: web pages of a results folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import Plugin, a_path, load_plugins
from dislab.cli.tables import end


def report_command(
    results: Annotated[Path, typer.Argument(parser=a_path, help="A results folder.")] = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="Folder of the pages; by default report in the results folder.",
        ),
    ] = None,
    pictures: Annotated[
        str,
        typer.Option(
            metavar="one|all",
            help="one: pictures of a run per model and dataset, pages of at most 5 MB; all: of every run.",
        ),
    ] = "one",
    plugin: Plugin = None,
) -> None:
    """Write web pages of a results folder: leaderboard, a page per model, figures."""
    load_plugins(plugin)
    from dislab.report.html.pages import write_report

    words = ["dislab", "report", str(results)] + ([] if out is None else ["--out", str(out)])
    words += [] if pictures == "one" else ["--pictures", pictures]
    pages, damaged = write_report(results, out or results / "report", shlex.join(words), pictures)
    print(f"{len(pages)} pages: {pages[0]}")
    end(damaged)
