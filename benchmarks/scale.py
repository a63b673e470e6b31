"""Measure what many runs cost beside their training: the executor, records, claims and tables.

    python -m dislab.benchmarks.scale [--runs 300] [--most 100000] [--out results/scale]

throughput.csv has runs that train nothing, on 60 images, with one score and no pictures: what is left is the
work of the executor. growth.csv has the cost of each part as the number of runs grows; the records are
simulated. Costs are CPU seconds of all processes, which a loaded machine changes less than seconds by the
clock.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import dislab
from dislab.cli.tables import print_table
from dislab.progress import say
from dislab.report.leaderboard import write_leaderboard
from dislab.runs import execute
from dislab.runs.config import RunConfig
from dislab.runs.finished import as_json
from dislab.runs.machine import Machine
from dislab.runs.perform import Outcome
from dislab.runs.record import Results
from dislab.runs.resolve import resolve
from dislab.studies.file import read_study
from dislab.studies.study import plan

PLUGIN = '''
import numpy as np
import torch
import dislab
import dislab.runs.perform
dislab.runs.perform.draw_pictures = lambda *scene: []

@dislab.register_dataset("sixty")
def sixty(source, data_dir, device):
    """Sixty black images."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 16, 16, dtype=torch.uint8)
    return dislab.Dataset("sixty", "rendered", space, (1, 16, 16), lambda rows: images[rows], ["shape"])

@dislab.register_model("nothing")
class Nothing(torch.nn.Module):
    """Codes that are the factors."""
    supervision = "none"
    def __init__(self, image_shape):
        super().__init__()
    def fit(self, dataset, rows, generator):
        pass
    def encode_rows(self, dataset, rows):
        return torch.from_numpy(dataset.space.factors(rows)).float()

@dislab.register_metric("zero", slow=True)
def zero(table, rng):
    """Nothing."""
    return 0.0
'''
STUDY = 'metrics = ["zero"]\n[[runs]]\nmodel = "nothing"\ndataset = "sixty"\n'
RECORD_BYTES = 9800  # of a run with all usual scores
FEW = 10  # records and claims that are timed where each costs the same


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dislab.benchmarks.scale", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="runs that do nothing (300)")
    parser.add_argument("--most", type=int, default=100_000, help="simulated runs at most (100,000)")
    parser.add_argument("--out", type=Path, default=Path("results/scale"), help="folder (results/scale)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="dislab-scale-") as scratch, contextlib.chdir(scratch):
        Path("nothing.py").write_text(PLUGIN)
        Path("study.toml").write_text(STUDY)
        dislab.load_plugin("nothing.py")
        base = resolve("nothing", "sixty", Machine(), metrics=["zero"])
        tables = {"throughput": list(throughput(base, options.runs))}
        show(tables["throughput"])
        sizes = itertools.takewhile(lambda n: n <= options.most, (10**power for power in itertools.count(1)))
        tables["growth"] = [growth(base, number) for number in sizes]
        show(tables["growth"])
    for name, lines in tables.items():
        text = "".join(
            ",".join(map(str, line)) + "\n" for line in [tuple(lines[0]), *map(dict.values, lines)]
        )
        (options.out / f"{name}.csv").write_text(text)
    return 0


def show(lines: list[dict]) -> None:
    print_table([tuple(lines[0]), *(tuple(map(str, line.values())) for line in lines)])
    print(flush=True)


def throughput(base: RunConfig, runs: int) -> Iterator[dict]:
    """Yield a line for each backend: the cost of a run, and what it costs to begin."""
    backends = {"this process": Machine(jobs=1), "2 worker processes": Machine(jobs=2)}
    if find_spec("ray"):
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        far = Machine.cluster("ray", None, None, False, data_dir=None, out="x", quiet=True)
        backends["Ray, 2 CPUs"] = far
    for name, machine in backends.items():
        costs = []
        # Ray's processes stay between the calls, those of the executor do not: the first call tells what it
        # costs to begin.
        for call, number in enumerate((runs // 10, runs // 10, runs)):
            out = Path(f"{name} {call}").absolute()
            configs = [base.with_seed(seed) for seed in range(number)]
            began, cpu = time.monotonic(), cpu_seconds()
            outcomes = list(execute.execute(configs, replace(machine, out=str(out))))
            costs.append((number, cpu_seconds() - cpu, time.monotonic() - began))
            assert [outcome.failure for outcome in outcomes] == [""] * number
        (_, first_cpu, _), (few, cpu, seconds), (many, more_cpu, more_seconds) = costs
        each = (more_cpu - cpu) / (many - few)
        line = {
            "backend": name,
            "runs": many,
            "CPU ms per run": round(1e3 * each, 1),
            "runs per CPU second": round(1 / each, 1),
            "runs per second by the clock": round((many - few) / (more_seconds - seconds), 1),
            "CPU seconds to begin": round(first_cpu - few * each, 1),
        }
        say(str(line))
        yield line


def growth(base: RunConfig, number: int) -> dict:
    """Return the cost of each part with so many runs in the results folder, in CPU microseconds per run."""
    folder = Path(f"growth{number}")
    study = read_study("study.toml", range(number))
    line = {"runs": number}
    configs, line["plan"] = timed(number, lambda: plan(study, Machine()))
    line["tasks"] = timed(number, lambda: execute.tasks_of(list(configs.values()), Machine()))[1]
    record = simulated(base)
    line["schedule and display"] = timed(number, lambda: instantly(configs, folder, record))[1]
    results = Results(folder)
    with (folder / "records.jsonl").open("wb") as file:
        for config in configs.values():
            file.write(as_json(of_run(record, config)))
    found, line["look up records"] = timed(number, lambda: sum(1 for _ in execute.recorded(results, configs)))
    assert found == number
    few = range(number, number + FEW)
    new = [of_run(record, base.with_seed(seed)) for seed in few]
    line["write a record"] = timed(FEW, lambda: [results.write(one) for one in new])[1]
    line["tables"] = timed(number, lambda: write_leaderboard(results))[1]
    row = (folder / base.folder).parent
    row.mkdir(parents=True)
    for seed in range(number):
        (row / f"seed{seed}").mkdir()
    claims = [results.claim(base.with_seed(seed).digest) for seed in few]
    _, line["claim, all seeds in one row"] = timed(
        FEW, lambda: [(one.take(), one.release()) for one in claims]
    )
    line["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    shutil.rmtree(folder)
    say(str(line))
    return line


def timed(number: int, work: Callable) -> tuple[object, float]:
    """Return what work returns, and its CPU microseconds for each of so many runs."""
    began = time.process_time()
    result = work()
    return result, round(1e6 * (time.process_time() - began) / number, 1)


def instantly(configs: dict[str, RunConfig], folder: Path, record: dict) -> None:
    """Let the executor do runs that take no time, with its progress on a screen that nobody sees."""
    here = execute.here
    execute.here = lambda tasks, *rest: (Outcome(task["digests"][0], record) for task in tasks)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            for _ in execute.execute(configs.values(), Machine(out=str(folder), quiet=False)):
                pass
    finally:
        execute.here = here


def simulated(base: RunConfig) -> dict:
    """Return the record of a run, as long as one with all usual scores."""
    [outcome] = execute.execute([base], Machine(out="one"))
    record = {name: part for name, part in outcome.record.items() if name != "check"}
    short = RECORD_BYTES - len(as_json(record))
    return record | {"details": {"zero_curve": [[k, 0.123456789012345] for k in range(short // 24)]}}


def of_run(record: dict, config: RunConfig) -> dict:
    """Return the simulated record of another run of the same row."""
    values = {"digest": config.digest, "folder": config.folder.as_posix()}
    return record | values | {"config": record["config"] | {"seed": config.seed}}


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all that it started, also of those that have ended."""
    family, ticks = [os.getpid()], 0
    for process in family:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            for task in Path(f"/proc/{process}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
