"""`dislab run`: train a model on a dataset, and score it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import (
    All,
    Collect,
    DataDir,
    Device,
    Factors,
    GroupBy,
    HoldOut,
    Jobs,
    Log,
    MetricProtocol,
    Metrics,
    On,
    PerGpu,
    Pictures,
    Plugin,
    Source,
    a_path,
    load_plugins,
    make_machine,
    parse_groupings,
    parse_names,
    parse_seeds,
    parse_settings,
)
from dislab.errors import DislabError

BESIDE_CONFIG = (
    "config",
    "device",
    "jobs",
    "on",
    "per_gpu",
    "collect",
    "data_dir",
    "log",
    "pictures",
    "out",
    "plugin",
    "all_",
)  # options that --config leaves to the user


def run_command(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A model, see `dislab list models`.")] = "mlvae",
    dataset: Annotated[
        str,
        typer.Option(
            help="A dataset, see `dislab list datasets`; or a folder of images, with --factors or a "
            "sub-folder per group."
        ),
    ] = "shapes3d",
    factors: Factors = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="fast|quick|medium|paper|bouchacourt2017",
            help="quick: minutes on a CPU; fast: half of its steps; medium: a quarter of an hour; "
            "paper: 300,000 steps, Adam 1e-4; bouchacourt2017: 12,000 steps, the best of a validation.",
        ),
    ] = "quick",
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the protocol's.")] = None,
    seeds: Annotated[
        str, typer.Option(metavar="0,1,2 | 0-9", help="Seeds; a leaderboard row aggregates them.")
    ] = "0",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyper-parameter of the model, see `dislab list models`; may be repeated.",
        ),
    ] = None,
    metrics: Metrics = None,
    metric_protocol: MetricProtocol = "locatello2019",
    group_by: GroupBy = None,
    hold_out: HoldOut = None,
    source: Source = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, instead of the protocol's.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|tf32|bf16", help="Arithmetic of the networks; by default tf32 on CUDA, else fp32."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="run.json",
            help="Repeat the run of this record, in place of all options above.",
        ),
    ] = None,
    device: Device = None,
    out: Annotated[
        Path, typer.Option(parser=a_path, metavar="FOLDER", help="Folder of all runs and of leaderboard.csv.")
    ] = Path("results"),
    jobs: Jobs = None,
    on: On = None,
    per_gpu: PerGpu = None,
    collect: Collect = False,
    data_dir: DataDir = None,
    log: Log = None,
    pictures: Pictures = "png",
    all_: All = False,
    plugin: Plugin = None,
) -> None:
    """Train a model on a dataset, score it, and add it to the leaderboard.

    The same command goes on with a run that was interrupted, and does nothing twice.
    """
    numbers, hyperparameters = parse_seeds(seeds), parse_settings(set_)
    load_plugins(plugin)
    from dislab.cli.tables import end, print_next, print_scores
    from dislab.report.leaderboard import write_leaderboard
    from dislab.runs.config import RunConfig
    from dislab.runs.execute import execute
    from dislab.runs.record import Results
    from dislab.runs.resolve import check, resolve

    machine = make_machine(device, jobs, data_dir, out, on, per_gpu, collect, log, pictures)
    if config is not None:
        for name in context.params:
            if name not in BESIDE_CONFIG and context.get_parameter_source(name).name == "COMMANDLINE":
                option = name.strip("_").replace("_", "-")
                raise DislabError(f"--{option} is set by --config: leave one of them out")
        configs = [check(RunConfig.from_json(config), machine)]
    else:
        settings = {
            "protocol": protocol,
            "steps": steps,
            "batch_size": batch_size,
            "precision": precision,
            "metrics": parse_names(metrics),
            "metric_protocol": metric_protocol,
            "group_by": parse_groupings(group_by),
            "hold_out": hold_out,
            "source": source,
            "factors": factors,
        }
        for name in {*settings, "model", "dataset", "seed", "device", "out", "jobs"} & hyperparameters.keys():
            option = "seeds" if name == "seed" else name.replace("_", "-")
            raise DislabError(f"--set {name} is no hyper-parameter: it is an option of its own, --{option}")
        first = resolve(model, dataset, machine, **settings, **hyperparameters)
        configs = [first.with_seed(seed) for seed in numbers]
    results = Results(out)
    damaged = results.damaged
    failures = {o.digest: o.failure for o in execute(configs, machine) if o.failure}
    runs = [run for one in configs if (run := results.find(one.digest))]
    if runs:
        print_scores(runs, everything=all_)
        print_next(runs, write_leaderboard(results))
    end([*failures.values(), *damaged], said=len(failures))
