"""`dislab merge`: join results folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import Plugin, a_path, load_plugins
from dislab.cli.tables import end, print_table


def merge_command(
    folders: Annotated[
        list[Path], typer.Argument(parser=a_path, metavar="FOLDER…", help="Results folders to join.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="The results folder of all their runs. What it has already stays.",
        ),
    ],
    plugin: Plugin = None,
) -> None:
    """Join results folders, as of several machines, in one with new tables.

    Runs that several folders have are counted once. Where their scores differ, a line names the run, and the
    first folder's are kept. The same command again adds what is new.
    """
    load_plugins(plugin)
    from dislab.progress import say
    from dislab.report.leaderboard import write_leaderboard
    from dislab.runs.join import join
    from dislab.runs.record import Results

    results = Results(out)
    joined = join(folders, results)
    lines = [("folder", "runs", "new", "double", "with more scores", "differing")]
    for one in joined:
        numbers = (one.runs, one.new, one.double, one.more, len(one.differing))
        lines.append((str(one.folder), *map(str, numbers)))
        for line in one.differing:
            say(line)
    table = write_leaderboard(results)
    print_table(lines)
    print(f"\n{len(results.lines.digests())} runs in '{out}'\n{table}\n{table.with_name('scores.csv')}")
    damaged = [line for one in joined for line in one.damaged]
    end(list(dict.fromkeys([*damaged, *results.damaged])))
