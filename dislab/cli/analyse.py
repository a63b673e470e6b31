"""`dislab analyse`: which scores of a study agree, and what explains them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import Plugin, a_path, load_plugins, parse_names
from dislab.cli.tables import end


def analyse_command(
    results: Annotated[Path, typer.Argument(parser=a_path, help="A results folder.")] = Path("results"),
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME…]",
            help="The scores to analyse; by default the main score of each metric, and UDR where the codes "
            "of several seeds are there.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="Folder of the tables; by default analysis in the results folder.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Analyse the runs of a results folder: what explains a score, and which scores agree.

    Writes tables of the correlation between scores, the variance that method, strength and seed explain, the
    chance that a chosen configuration beats a random one, the stability over seeds, and model selection
    without factors (UDR, ELBO, total correlation), and prints what they say.
    """
    load_plugins(plugin)
    wanted = parse_names(scores)
    from dislab.registry import unknown_name
    from dislab.report.analysis_text import write_analysis
    from dislab.runs.record import results_of

    found = results_of(results)
    runs = found.runs(within=results)
    known = sorted({name for run in runs for name in run.record["scores"]})
    for name in wanted or ():
        if name not in known:
            raise unknown_name("score", name, known)
    folder = out or results / "analysis"
    for line in write_analysis(runs, folder, str(results), wanted):
        print(line)
    print(f"tables: {folder}")
    end(found.damaged)
