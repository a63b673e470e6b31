"""`dislab bench`: run a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dislab.cli.options import (
    Collect,
    DataDir,
    Device,
    Jobs,
    Log,
    On,
    PerGpu,
    Pictures,
    Plugin,
    a_path,
    load_plugins,
    make_machine,
    parse_scale,
    parse_seeds,
    parse_shard,
)
from dislab.cli.tables import end, print_table
from dislab.errors import DislabError


def bench_command(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE.toml", help="A study that comes with dislab (--list), or your own."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the studies that come with dislab.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="Folder of its runs, tables and figures; by default results/NAME.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2 | 0-9", help="Seeds, instead of the study's.")
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="Try the study with a share of its seeds and training steps, such as 0.01."
        ),
    ] = "1",
    shard: Annotated[
        str,
        typer.Option(
            metavar="K/N", help="The K-th of N shares of the runs, such as $SLURM_ARRAY_TASK_ID/100."
        ),
    ] = "1/1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, how long it takes, and stop.")
    ] = False,
    jobs: Jobs = None,
    device: Device = None,
    on: On = None,
    per_gpu: PerGpu = None,
    collect: Collect = False,
    data_dir: DataDir = None,
    log: Log = None,
    pictures: Pictures = "png",
    plugin: Plugin = None,
) -> None:
    """Run a study: models x datasets x hyper-parameters x seeds, then its tables and figures.

    The whole study is checked before anything trains. The same command goes on with a study that was
    interrupted, and does nothing twice.
    """
    numbers = None if seeds is None else parse_seeds(seeds)
    part, share = parse_scale(scale), parse_shard(shard)
    load_plugins(plugin)
    from dislab.studies.file import find_study, read_study, shipped_studies

    if list_:
        for name, path in shipped_studies().items():
            listed = read_study(path)
            print(f"{name}: {listed.title}\n    {listed.number} runs; {path}")
        return
    if study is None:
        raise DislabError("name a study (dislab bench --list lists those that come with dislab), or a file")
    read = read_study(find_study(study), numbers, part)
    from dislab.studies.forecast import forecast
    from dislab.studies.study import run_study, short_lines  # it imports torch

    folder = Path("results") / read.name if out is None else out
    machine = make_machine(device, jobs, data_dir, folder, on, per_gpu, collect, log, pictures)
    if dry_run:
        print_table(forecast(read, machine, share))
        return
    outcome = run_study(read, machine, share)
    print_table(short_lines(outcome))
    print("\n".join(["", *map(str, outcome.paths)]))
    end(outcome.failures)
