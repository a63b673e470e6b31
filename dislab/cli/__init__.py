"""The command line: `dislab run`, `bench`, `evaluate`, `leaderboard`, `list`; `data` is in data_commands.

What needs torch or scikit-learn is imported inside the commands, so that help is shown at once.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.data import app as data_app
from dislab.errors import DislabError, RunFailed
from dislab.progress import say

MOST_SEEDS = 10_000
DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}

app = typer.Typer(
    name="dislab",
    help="Train disentangled representations, score them, and compare them in tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app)

Metrics = Annotated[
    str | None,
    typer.Option(metavar="NAME[,NAME…]", help="Scores to compute; by default all that apply but slow ones."),
]
MetricProtocol = Annotated[
    str,
    typer.Option(
        metavar="locatello2019|softtpr2024", help="How scores are computed; recorded with every score."
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.py", help="A file that registers metrics, models or datasets; may be repeated."
    ),
]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FACTOR[,FACTOR…]",
        help="Factors whose combined value is a group; by default the dataset's. "
        "Repeated, it makes several groupings, each with a content code of its own.",
    ),
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="What is kept from training and scored alone: values (object_hue=0,5-7&scale=3), a random part "
        "of all factor combinations (0.2), or all but a correlated band (floor_hue~wall_hue:0.25). "
        "May be repeated.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where official dataset files lie; else $DISLAB_DATA, else data in the cache folder."),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="auto|official|rendered", help="Published images, or the same grid drawn by dislab."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; by default the GPU where there is one.")]

Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Runs at a time, each in a process with its share of the CPU's cores; by default one for "
        "every core (or every OMP_NUM_THREADS cores) that the memory has room for, and on a GPU a single "
        "process.",
    ),
]


@app.command("run")
def run_command(
    model: Annotated[str, typer.Option(help="A model, see `dislab list models`.")] = "mlvae",
    dataset: Annotated[
        str,
        typer.Option(help="A dataset, see `dislab list datasets`; or a folder with a sub-folder per group."),
    ] = "shapes3d",
    protocol: Annotated[
        str,
        typer.Option(metavar="quick|paper", help="quick: minutes on a CPU; paper: 300,000 steps, Adam 1e-4."),
    ] = "quick",
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the protocol's.")] = None,
    seeds: Annotated[
        str, typer.Option(metavar="0,1,2 | 0-9", help="Seeds; a leaderboard row aggregates them.")
    ] = "0",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyper-parameter; may be repeated."),
    ] = None,
    metrics: Metrics = None,
    metric_protocol: MetricProtocol = "locatello2019",
    group_by: GroupBy = None,
    hold_out: HoldOut = None,
    source: Source = "auto",
    device: Device = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, instead of the protocol's.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|tf32|bf16", help="Arithmetic of the networks; by default tf32 on CUDA, else fp32."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs and of leaderboard.csv.")] = Path("results"),
    jobs: Jobs = None,
    data_dir: DataDir = None,
    plugin: Plugin = None,
) -> None:
    """Train a model on a dataset, score it, and add it to the leaderboard.

    The same command goes on with a run that was interrupted, and does nothing twice.
    """
    numbers = parse_seeds(seeds)
    given = parse_settings(set_ or [])
    _load_plugins(plugin)
    from dislab.report import leaderboard
    from dislab.runs import run as runs

    options = {
        "protocol": protocol,
        "steps": steps,
        "batch_size": batch_size,
        "precision": precision,
        "metrics": _names(metrics),
        "metric_protocol": metric_protocol,
        "group_by": _groupings(group_by),
        "hold_out": hold_out,
        "source": source,
        "device": device,
        "data_dir": data_dir,
        "out": out,
        "jobs": jobs,
        "quiet": False,
    }
    for name in {*options, "model", "dataset", "seed"} & given.keys():
        option = "seeds" if name == "seed" else name.replace("_", "-")
        raise DislabError(f"--set {name} is no hyper-parameter: it is an option of its own, --{option}")
    outcomes = runs.run_several([given | {"seed": seed} for seed in numbers], model, dataset, **options)
    failures = [outcome for outcome in outcomes if isinstance(outcome, RunFailed)]
    finished = [outcome for outcome in outcomes if isinstance(outcome, runs.Run)]
    if finished:
        path = leaderboard.write_leaderboard(out)
        _print_scores(finished)
        print("\n".join(["", *(f"run: {run.path}" for run in finished), f"leaderboard: {path}"]))
    for failure in failures[:-1]:
        say(f"dislab: {failure}")
    if failures:
        raise failures[-1]


@app.command("evaluate")
def evaluate_command(
    target: Annotated[
        Path,
        typer.Argument(
            help="A results folder, one run's folder, or a .npz file with the arrays codes, factors."
        ),
    ] = Path("results"),
    metrics: Metrics = None,
    metric_protocol: MetricProtocol = "locatello2019",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the draws, for a .npz file; by default 0.")
    ] = None,
    group_by: GroupBy = None,
    plugin: Plugin = None,
) -> None:
    """Score codes: add scores to finished runs without training, or score a file of arrays."""
    _load_plugins(plugin)
    names = _names(metrics)
    if target.is_dir():
        if group_by:
            raise DislabError(
                "--group-by is for a .npz file: a run keeps the groups that it was trained with"
            )
        if seed is not None:
            raise DislabError("--seed is for a .npz file: a run is scored with the seed it was trained with")
        _evaluate_runs(target, names, metric_protocol)
    elif target.suffix == ".npz":
        _evaluate_arrays(target, names, metric_protocol, seed or 0, group_by)
    else:
        raise DislabError(
            f"'{target}' is neither a folder of runs nor a .npz file with the arrays codes and factors"
        )


@app.command("leaderboard")
def leaderboard_command(
    results: Annotated[Path, typer.Argument(help="A folder of runs.")] = Path("results"),
    format_: Annotated[str, typer.Option("--format", metavar="table|csv|markdown|latex")] = "table",
    rank_by: Annotated[
        str, typer.Option(help="The score that orders the rows of a dataset, best first.")
    ] = "mig",
    plugin: Plugin = None,
) -> None:
    """Print the leaderboard of a results folder."""
    _load_plugins(plugin)
    from dislab.report import leaderboard

    print(leaderboard.render(leaderboard.leaderboard(results, rank_by), format_), end="")


@app.command("bench")
def bench_command(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE.toml", help="A study that comes with dislab (--list), or your own."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the studies that come with dislab.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of its runs, tables and figures; by default results/NAME.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2 | 0-9", help="Seeds, instead of the study's.")
    ] = None,
    jobs: Jobs = None,
    device: Device = None,
    data_dir: DataDir = None,
    plugin: Plugin = None,
) -> None:
    """Run a study: models x datasets x hyper-parameters x seeds, then its tables and figures.

    The whole study is checked before anything trains. The same command goes on with a study that was
    interrupted, and does nothing twice.
    """
    numbers = None if seeds is None else parse_seeds(seeds)
    _load_plugins(plugin)
    from dislab import studies as bench

    if list_:
        for name, path in bench.shipped_studies().items():
            listed = bench.read_study(path)
            print(f"{name}: {listed.title}\n    {len(listed.planned)} runs; {path}")
        return
    if study is None:
        raise DislabError("name a study (dislab bench --list lists those that come with dislab), or a file")
    outcome = bench.run_study(
        study, out=out, device=device, data_dir=data_dir, seeds=numbers, jobs=jobs, quiet=False
    )
    print_table(bench.short_lines(outcome))
    print("\n".join(["", *map(str, outcome.paths)]))
    if outcome.failures:
        for line in outcome.failures:
            say(f"failed: {line}")
        raise RunFailed(f"{len(outcome.failures)} failed, all else is done; the same command tries again")


class Kind(StrEnum):
    models = "models"
    datasets = "datasets"
    metrics = "metrics"


@app.command("list")
def list_command(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Plugin = None,
) -> None:
    """List the models with their hyper-parameters, the datasets, or the metrics."""
    _load_plugins(plugin)
    from dislab import registry
    from dislab.data.official import ALIASES

    entries = {"models": registry.MODELS, "datasets": registry.DATASETS, "metrics": registry.METRICS}
    from dislab.runs.hyperparameters import defaults

    for entry in entries[kind.value]:
        hyperparameters = defaults(entry.make) if kind is Kind.models else {}
        if kind is Kind.datasets and entry.name in ALIASES:
            print(f"{entry.name}: another name of {ALIASES[entry.name]}")
            continue
        print(f"{entry.name}: {entry.title}")
        if entry.reference:
            print(f"    {entry.reference}")
        if kind is Kind.models:
            values = {name: value for name, value in hyperparameters.items() if name != "groupings"}
            if values:
                words = ", ".join(f"{name}={value}" for name, value in values.items())
                print(f"    hyper-parameters (--set NAME=VALUE): {words}")
        elif kind is Kind.metrics:
            low, high = ("" if bound is None else f"{bound:g}" for bound in (entry.low, entry.high))
            better = DIRECTIONS[entry.direction] or "no better or worse"
            needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
            slow = "; slow: only when it is named" if entry.slow else ""
            print(f"    range {low or 'unbounded'} to {high or 'unbounded'}; {better}{needs}{slow}")


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0,1,2", "0-9", or a mixture."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(last) >= int(first))):
            raise DislabError(
                f"--seeds is '{text}': write whole numbers such as 0,1,2 or a range such as 0-9"
            )
        if int(last or first) - int(first) >= MOST_SEEDS or int(last or first) >= 2**63:
            raise DislabError(f"--seeds is '{text}': at most {MOST_SEEDS} seeds below 2**63")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Hyper-parameters from NAME=VALUE texts."""
    given = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise DislabError(f"--set is '{text}': write NAME=VALUE, such as --set beta=8")
        given[name.strip()] = value.strip()
    return given


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _groupings(texts: list[str] | None) -> list[list[str]] | None:
    return [names for text in texts or [] if (names := _names(text))] or None


def _load_plugins(paths: list[Path] | None) -> None:
    from dislab.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


def _evaluate_runs(folder: Path, names: list[str] | None, metric_protocol: str) -> None:
    from dislab.report import leaderboard
    from dislab.runs import run as runs

    is_run = runs.is_finished(folder)
    found = [runs.load(folder)] if is_run else runs.find_runs(folder)
    results = runs.results_folder(folder) or (None if is_run else folder)
    if not found:
        raise DislabError(f"there is no finished run in '{folder}'")
    failures = []
    for run in found:
        say(f"{run.path}")
        try:
            scores = run.add_scores(names, lambda name: say(f"  scoring {name}"), metric_protocol)
        except RunFailed as error:  # the other runs go on
            failures.append(str(error))
            continue
        failures += [f"{name} ({cause}) in {run.path}" for name, cause in scores.failed.items()]
    _print_scores(found, names)
    if results:
        print(f"\nleaderboard: {leaderboard.write_leaderboard(results)}")
    if failures:
        raise RunFailed(f"{len(failures)} score(s) could not be computed: {failures[0]}")


def _evaluate_arrays(
    path: Path, names: list[str] | None, metric_protocol: str, seed: int, group_by: list[str] | None
) -> None:
    import zipfile
    import zlib

    import numpy as np

    import dislab
    from dislab.scoring.protocols import recorded_name

    try:
        with np.lib.npyio.NpzFile(path.open("rb"), own_fid=True) as file:
            arrays = {key: file[key] for key in ("codes", "factors", "logvar") if key in file}
            keys = ", ".join(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DislabError(f"'{path}' cannot be read as .npz: {error}") from None
    if not {"codes", "factors"} <= set(arrays):
        raise DislabError(
            f"'{path}' needs the arrays codes [N, D] and factors [N, K]; it has {keys or 'none'}"
        )
    scores = dislab.evaluate(
        **arrays,
        metrics=names,
        metric_protocol=metric_protocol,
        seed=seed,
        group_by=_groupings(group_by),
    )
    lines = [(recorded_name(name, scores.protocols[name]), f"{value:.4f}") for name, value in scores.items()]
    print_table([("score", "value"), *lines])
    for name, cause in scores.left_out.items():
        say(f"{name} is left out: {cause}")


def _print_scores(finished: list, names: list[str] | None = None) -> None:
    """The scores of runs that differ in their seed only, or of several configurations, a table each."""
    from dislab.registry import METRICS
    from dislab.report import leaderboard

    wanted = None if names is None else {entry.name for entry in METRICS.choose(names)}
    groups: dict[tuple, list] = {}
    for run in finished:
        groups.setdefault(leaderboard.row_key(run), []).append(run)
    for key, runs in groups.items():
        dataset, source, protocol, hold_out, group_by, model, parameters = key
        seeds = ", ".join(str(run.config["seed"]) for run in runs)
        print(f"\n{model} on {dataset} ({source}), protocol {protocol}, grouped by {group_by}, seeds {seeds}")
        if hold_out:
            print(f"trained without, and scored on: {hold_out}")
        print(f"{parameters}")
        for name, value in runs[0].record["report"].items():
            print(f"{name} = {value:.4g}")
        frame = leaderboard.tabulate(runs)
        lines = [("score", "mean", "std", "95% interval", "", "beside it")]
        for name in leaderboard.main_scores(frame):
            if wanted is not None and name.partition("@")[0] not in wanted:
                continue
            mean, std, half = (float(frame[f"{name}_{part}"].iloc[0]) for part in ("mean", "std", "ci95"))
            spread = ("", "") if std != std else (f"{std:.4f}", f"{mean - half:.4f} to {mean + half:.4f}")
            lines.append(
                (name, f"{mean:.4f}", *spread, DIRECTIONS[leaderboard.direction(name)], _related(frame, name))
            )
        print_table(lines)
        for name, cause in runs[0].scores.left_out.items():
            if wanted is None or name in wanted:
                print(f"{name} is left out: {cause}")


def _related(frame, score: str) -> str:
    """The means of what a metric gives beside its score, in one line: "chance 0.100, k10 0.998"."""
    from dislab.report.leaderboard import home

    name, _, protocol = score.partition("@")
    found = {}
    for column in frame.columns[frame.columns.str.endswith("_mean")]:
        other, _, other_protocol = column.removesuffix("_mean").partition("@")
        if other.startswith(f"{name}_") and other_protocol == protocol and home(other) is home(name):
            found[other.removeprefix(f"{name}_")] = float(frame[column].iloc[0])
    return ", ".join(f"{other} {value:.3f}" for other, value in found.items())


def print_table(lines: list[tuple[str, ...]]) -> None:
    """Columns of text: on a terminal with rich, elsewhere plain and aligned."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*lines[0])
        for line in lines[1:]:
            table.add_row(*line)
        Console().print(table)
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; every expected error is one line on standard error and an exit code."""
    try:
        code = app(arguments, standalone_mode=False)
        if code == 130:  # Typer's own way of saying that Ctrl-C was pressed
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except DislabError as error:
        say(f"dislab: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("dislab: interrupted; the same command takes it up again")
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
