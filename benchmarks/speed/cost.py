"""Measure what a training step of dislab costs: in time, against what may make it slower, and in memory."""

from __future__ import annotations

import contextlib
import statistics

import pandas as pd

from dislab.benchmarks.speed.processes import STEPS, WayEnded, WayProcess, WayProcesses
from dislab.benchmarks.speed.ways import Work, ways_on
from dislab.errors import DislabError

SIDE_BY_SIDE = "models side by side"


def measure_cost(device: str, options) -> pd.DataFrame:
    """Return the milliseconds of a step against what may make it slower, and the peak memory.

    Each is measured in a fresh process. A step of several models at once is a step of all of them.
    """
    on_cpu = device == "cpu"
    base = {"model": "vae", "dataset": "shapes3d", "batch_size": 32}
    _, name, *_ = ways = ways_on(device)
    way = (name, *ways[name], device, options.data_dir, options.threads)
    variants = [
        *(
            ("steps", n, Work(**base))
            for n in ([1, 2, 4, 8, 16, 32] if on_cpu else [1, 10, 100, 1000, 10_000])
        ),
        *(("images of the dataset", n, Work(**base, rows=n)) for n in (1000, 10_000, 100_000)),
        ("images of the dataset", 480_000, Work(**base)),
        *(("latents", n, Work(**base, hyperparameters={"latents": n})) for n in (2, 10, 50, 250)),
    ]
    if on_cpu:  # each in a process with its share of the threads, like the seeds of `dislab run`
        numbers = [n for n in (1, 2, 4, 8, 16, 32) if n <= options.threads]
        variants += [(SIDE_BY_SIDE, n, Work(**base)) for n in numbers]
    else:
        variants += [(SIDE_BY_SIDE, n, Work(**base, members=n)) for n in (1, 4, 16, 32)]
    lines = []
    for what, value, work in variants:
        number = value if what == "steps" else STEPS[device.partition(":")[0]]
        number_of_processes = value if on_cpu and what == SIDE_BY_SIDE else 1
        with contextlib.closing(WayProcesses(number_of_processes, *way)) as together:
            together.ask("begin", work)
            together.ask("steps", 5)
            seconds = statistics.median(max(together.ask("steps", number))[0] for _ in range(3))
            line = {"against": what, "value": value}
            line |= {"seconds": seconds, "ms_per_step": 1e3 * seconds / number}
            lines.append(line | {"peak_mb": sum(together.ask("memory"))})
    for dataset in options.datasets.split(","):
        with contextlib.closing(WayProcess(*way)) as process:
            try:
                process.ask("begin", Work("vae", dataset))
            except WayEnded:
                raise
            except DislabError:  # its files are not here
                continue
            process.ask("steps", 3)
            lines.append({"against": "dataset", "value": dataset, "peak_mb": process.ask("memory")})
    return pd.DataFrame(lines)


def plot_cost(cost: pd.DataFrame, about: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 3.6), layout="constrained")
    names = [name for name in dict.fromkeys(cost["against"]) if name != "dataset"]
    *panels, memory = figure.subplots(1, len(names) + 1)
    for name, axes in zip(names, panels, strict=True):
        line = cost[cost["against"] == name]
        values = line["value"].astype(int)
        height = line["seconds"] if name == "steps" else line["ms_per_step"]
        axes.plot(values, height, marker="o")
        words = "seconds" if name == "steps" else "milliseconds per step"
        scale = {"yscale": "log"} if name == "steps" else {"ylim": (0, 1.15 * height.max())}
        axes.set(xlabel=name, ylabel=words, xscale="log", **scale)
        axes.set_xticks(values, [f"{value // 1000}k" if value >= 1000 else value for value in values])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    held = cost[cost["against"] == "dataset"]
    memory.barh(held["value"].astype(str), held["peak_mb"])
    memory.set(xlabel="peak memory, MB")
    figure.supxlabel(f"{about}; a VAE on Shapes3D, batches of 32 (memory: 64)", fontsize=7)
    return figure
