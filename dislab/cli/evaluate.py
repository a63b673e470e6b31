"""`dislab evaluate`: score finished runs, or a file of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import (
    All,
    DataDir,
    Factors,
    GroupBy,
    MetricProtocol,
    Metrics,
    Plugin,
    a_path,
    load_plugins,
    parse_groupings,
    parse_names,
)
from dislab.cli.tables import end, print_scores, print_scores_of_codes
from dislab.errors import DislabError, RunFailed
from dislab.progress import say

FORMATS = ("table", "json")
OF_RUN = {  # why an option is not for a folder of runs
    "--group-by": "a run keeps the groups that it was trained with",
    "--seed": "a run is scored with the seed it was trained with",
}


def evaluate_command(
    target: Annotated[
        Path,
        typer.Argument(
            parser=a_path,
            help="A results folder, one run's folder, or a .npz file with the arrays codes, factors.",
        ),
    ] = Path("results"),
    metrics: Metrics = None,
    metric_protocol: MetricProtocol = "locatello2019",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the draws, for a .npz file; by default 0.")
    ] = None,
    group_by: GroupBy = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="For a .npz file: the dataset (or the folder of images) that the codes are of.",
        ),
    ] = None,
    factors: Factors = None,
    name: Annotated[
        str | None,
        typer.Option(help="For a .npz file: record its scores, and call the codes so in all tables."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path, metavar="FOLDER", help="The results folder of that record; by default results."
        ),
    ] = None,
    data_dir: DataDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compute scores anew that finished runs have already.")
    ] = False,
    all_: All = False,
    format_: Annotated[str, typer.Option("--format", metavar="table|json")] = "table",
    plugin: Plugin = None,
) -> None:
    """Score codes: add scores to finished runs without training, or score a file of arrays."""
    load_plugins(plugin)
    names = parse_names(metrics)
    if format_ not in FORMATS:
        from dislab.registry import unknown_name

        raise unknown_name("format", format_, FORMATS)
    if target.is_dir():
        of_arrays = {
            "--group-by": group_by,
            "--seed": seed,
            "--dataset": dataset,
            "--factors": factors,
            "--name": name,
            "--out": out,
        }
        for option, value in of_arrays.items():
            if value is not None and value != []:
                raise DislabError(f"{option} is for a .npz file: {OF_RUN.get(option, 'a run has its own')}")
        _evaluate_runs(target, names, metric_protocol, force, all_, format_)
    elif target.suffix == ".npz":
        options = {"metrics": names, "metric_protocol": metric_protocol, "seed": seed or 0, "name": name}
        options |= {"group_by": parse_groupings(group_by), "dataset": dataset, "data_dir": data_dir}
        if factors is not None:
            options["factors"] = factors
        _evaluate_arrays(target, out, all_, format_, options)
    else:
        raise DislabError(
            f"'{target}' is neither a folder of runs nor a .npz file with the arrays codes and factors"
        )


def _evaluate_runs(
    folder: Path, names: list[str] | None, metric_protocol: str, force: bool, all_: bool, format_: str
) -> None:
    from dislab.report.leaderboard import write_leaderboard
    from dislab.runs.record import Results, load, results_of
    from dislab.scoring.request import asked, request

    wanted = request(names, metric_protocol)
    # The folder of a single run may be a copy that lies in no results folder.
    is_copy = (folder / "run.json").is_file() and Results.around(folder) is None
    results = results_of(folder)
    runs = [load(folder)] if is_copy else results.runs(within=folder)
    failures = results.damaged
    if not runs:
        raise DislabError("; ".join([f"there is no finished run in '{folder}'", *failures]))
    lacking = asked(wanted)
    if not is_copy and any(run.lacks(lacking, force) for run in runs):
        results.create()
    failures += results.tidy(runs).values()
    for run in runs:
        say(f"{run.path}")
        try:
            scores = run.add_scores(wanted, lambda name: say(f"  scoring {name}"), force)
        except RunFailed as error:  # the other runs go on
            failures.append(f"{run.path}: {error}")
            continue
        failures += [f"{run.path}: metric '{name}' failed: {cause}" for name, cause in scores.failed.items()]
    table = None if is_copy else write_leaderboard(results)
    if format_ == "json":
        print(json.dumps([_of_run(run) for run in runs], indent=1))
    else:
        print_scores(runs, names, all_)
        print(f"\nleaderboard: {table}" if table else "", end="\n" if table else "")
    end(failures)


def _of_run(run) -> dict:
    """Return the scores of a finished run, and what identifies it, as JSON can hold them."""
    about = {"path": str(run.path), "seed": run.config.seed, **run.config.key}
    return about | {part: run.record[part] for part in ("scored_rows", "scores", "left_out")}


def _evaluate_arrays(path: Path, out: Path | None, all_: bool, format_: str, options: dict) -> None:
    from dislab.data.npz import read_arrays
    from dislab.runs.evaluate import evaluate
    from dislab.runs.external import as_recorded

    # A CSV file has the factors, or the dataset: then those of the file of arrays are not needed.
    has_factors_file = "factors" in options
    needed = ("codes",) if has_factors_file or options["dataset"] is not None else ("codes", "factors")
    also = ("logvar",) if has_factors_file or "factors" in needed else ("factors", "logvar")
    record = as_recorded(evaluate(**read_arrays(path, needed, also), **options, out=out))
    if format_ == "json":
        print(json.dumps({part: record[part] for part in ("scores", "left_out")}, indent=1))
    else:
        print_scores_of_codes(record, options["metrics"], all_)
    if options["name"] is not None:
        from dislab.report.leaderboard import write_leaderboard
        from dislab.runs.record import Results

        say(f"leaderboard: {write_leaderboard(Results(out or 'results'))}")
