"""`dislab evaluate`: score finished runs, or a file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import (
    GroupBy,
    MetricProtocol,
    Metrics,
    Plugin,
    a_path,
    load_plugins,
    parse_groupings,
    parse_names,
)
from dislab.cli.tables import end, print_scores, print_table
from dislab.errors import DislabError, RunFailed
from dislab.progress import say


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
    force: Annotated[
        bool, typer.Option("--force", help="Compute scores anew that finished runs have already.")
    ] = False,
    plugin: Plugin = None,
) -> None:
    """Score codes: add scores to finished runs without training, or score a file of arrays."""
    load_plugins(plugin)
    names = parse_names(metrics)
    if target.is_dir():
        if group_by:
            raise DislabError(
                "--group-by is for a .npz file: a run keeps the groups that it was trained with"
            )
        if seed is not None:
            raise DislabError("--seed is for a .npz file: a run is scored with the seed it was trained with")
        _evaluate_runs(target, names, metric_protocol, force)
    elif target.suffix == ".npz":
        _evaluate_arrays(target, names, metric_protocol, seed or 0, group_by)
    else:
        raise DislabError(
            f"'{target}' is neither a folder of runs nor a .npz file with the arrays codes and factors"
        )


def _evaluate_runs(folder: Path, names: list[str] | None, metric_protocol: str, force: bool) -> None:
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
    print_scores(runs, names)
    if not is_copy:
        print(f"\nleaderboard: {write_leaderboard(results)}")
    end(failures)


def _evaluate_arrays(
    path: Path, names: list[str] | None, metric_protocol: str, seed: int, group_by: list[str] | None
) -> None:
    from dislab.data.npz import read_arrays
    from dislab.scoring.evaluate import evaluate
    from dislab.scoring.protocols import recorded_name

    arrays = read_arrays(path, ("codes", "factors"), ("logvar",))
    scores = evaluate(
        **arrays,
        metrics=names,
        metric_protocol=metric_protocol,
        seed=seed,
        group_by=parse_groupings(group_by),
    )
    lines = [
        (recorded_name(name.partition("@")[0], scores.protocols[name]), f"{value:.4f}")
        for name, value in scores.items()
    ]
    print_table([("score", "value"), *lines])
    for name, cause in scores.left_out.items():
        say(f"{name} is left out: {cause}")
