"""Measure the speed of dislab beside the usual way, in one table.

    python -m dislab.benchmarks.speed [--device cuda] [--data-dir FOLDER] [--out results/speed]

speed.csv has the training steps/s of each model on each dataset, the images/s encoded, and the seconds of
each metric. It also has the FLOP/s of the networks as a share of the peak that is measured on the device in
the same precision. cost.csv and cost.png have the time of a step against the number of steps, the models in a
stack or side by side, the dataset's size and the latents, and the peak memory of each dataset. losses.csv and
losses.png show whether the fast ways learn the same.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import truediv
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import dislab
from dislab.benchmarks.speed import metrics
from dislab.benchmarks.speed.processes import WayProcess, WayProcesses
from dislab.benchmarks.speed.ways import OfDislab, Usual, Work
from dislab.data.devices import choose_device
from dislab.errors import DislabError
from dislab.files import save_figure
from dislab.progress import say
from dislab.registry import DATASETS, METRICS, MODELS
from dislab.runs.machine import room_for_runs
from dislab.training.batches import Batches
from dislab.training.precision import usual_precision

USUAL_MODELS = ("vae", "betavae", "betatcvae", "mlvae")
USUAL_DATASETS = ("shapes3d", "dsprites", "cars3d", "mpi3d_toy", "mnist")
ENCODED = {"cpu": 2048, "cuda": 100_000}  # rows per reading
# Training steps per reading, or as many as take a second if that is more.
STEPS = {"cpu": 12, "cuda": 500}
LOSS_STEPS, LOSS_EVERY, LOSS_SEEDS = 400, 20, 3
METRIC_ROWS = 30_000
SIDE_BY_SIDE = "models side by side"
STACKED = 10  # models at once on a GPU


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.speed", description="dislab beside the usual way, in one table."
    )
    parser.add_argument("--device", help="cpu, cuda, …; by default the GPU where there is one")
    parser.add_argument("--data-dir", help="where official files lie")
    parser.add_argument("--models", default=",".join(USUAL_MODELS), help="names with commas")
    parser.add_argument(
        "--datasets", default=",".join(USUAL_DATASETS), help="names with commas; absent ones are left out"
    )
    parser.add_argument("--repeats", type=int, default=7, help="readings per median (7)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="torch threads of each way"
    )
    parser.add_argument(
        "--out", default="results/speed", help="folder of the tables and plots (results/speed)"
    )
    options = parser.parse_args(arguments)
    try:
        measure_everything(options)
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure_everything(options) -> None:
    device = str(choose_device(options.device))
    models, datasets = options.models.split(","), options.datasets.split(",")
    for name in models:
        if MODELS[name].make.supervision == "none":
            raise DislabError(f"{name} takes no training steps whose speed could be measured")
    for name in datasets:
        DATASETS[name]  # raises DislabError if it is unknown
    for option in ("repeats", "threads"):
        if getattr(options, option) < 1:
            raise DislabError(f"--{option} is {getattr(options, option)}: it must be at least 1")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    usual = usual_precision(device)
    ways = {  # column -> (way, precision); the others are compared with the first
        "usual": (Usual, "fp32"),
        f"dislab {usual}": (OfDislab, usual),
        "dislab bf16": (OfDislab, "bf16"),
    }
    about = describe(device, options.threads)
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, (way, precision) in ways.items():
            process = WayProcess(way, precision, device, options.data_dir, options.threads)
            processes[name] = stack.enter_context(contextlib.closing(process))
        peaks = {name: process.ask("peak") for name, process in processes.items()}
        lines = []
        for dataset, model in itertools.product(datasets, models):
            try:
                lines += measure_training(Work(model, dataset), processes, peaks, device, options)
                if (dataset, model) == (datasets[0], models[0]):
                    lines += measure_several(Work(model, dataset), processes, ways, device, options)
            except DislabError as error:
                say(f"{model} on {dataset}: left out: {error}")
            write(pd.DataFrame(lines), out / "speed.csv", about)  # now, so that Ctrl-C does not lose it
        table = pd.DataFrame(lines + measure_metrics(f"dislab {usual}"))
        write(table, out / "speed.csv", about)
        say("losses of each way")
        losses = measure_losses(processes)
        write(losses, out / "losses.csv", about)
        save_figure(plot_losses(losses, about), out / "losses.png")
    say("cost of a step")
    cost = measure_cost(device, usual, options)
    write(cost, out / "cost.csv", about)
    save_figure(plot_cost(cost, about), out / "cost.png")
    peaks_of_ways = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in peaks.items())
    print(f"{about}\npeaks of a matrix product, GFLOP/s: {peaks_of_ways}")
    print(table.to_string(index=False, na_rep=""))
    print(cost.to_string(index=False, na_rep=""))


def describe(device: str, threads: int) -> str:
    """Return the device, the threads and the versions in one line."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else metrics.processor()
    return f"{name}, {threads} thread(s) (metrics: 1), torch {torch.__version__}, dislab {dislab.__version__}"


def write(table: pd.DataFrame, path: Path, about: str) -> None:
    table.assign(machine=about).to_csv(path, index=False)


def measure_training(work: Work, processes, peaks, device: str, options) -> list[dict]:
    """Return two lines of the table, training and encoding: medians of readings, taken in turn."""
    kind = device.partition(":")[0]
    for process in processes.values():
        process.ask("begin", work)
        process.ask("steps", 5)
        process.ask("encoding", 256)
    training = {name: [] for name in processes}
    encoding = {name: [] for name in processes}
    usual, ours, *_ = processes
    steps = steps_of_a_reading(processes[usual], kind)
    for repeat in range(options.repeats):
        for name, process in processes.items():
            training[name].append(process.ask("steps", steps) / steps)
            if repeat % 2 == 0:
                encoding[name].append(process.ask("encoding", ENCODED[kind]) / ENCODED[kind])
    of_step, of_image = flop(work, options.data_dir)
    lines = []
    for what, unit, readings, operations in (
        ("training", "steps/s", training, of_step),
        ("encoding", "images/s", encoding, of_image),
    ):
        line = {"what": what, "of": work.model, "dataset": work.dataset, "unit": unit} | rates(readings)
        line |= {
            f"{name}, share of peak": round(operations / statistics.median(values) / peaks[name], 3)
            for name, values in readings.items()
        }
        lines.append(line)
    step, image = statistics.median(training[ours]), statistics.median(encoding[ours])
    lines[1]["encoding / training, images"] = round(step / work.batch_size / image, 1)
    lines[1]["encoding / training, FLOP"] = round((of_image / image) / (of_step / step), 2)
    say(", ".join(f"{key} {value}" for key, value in lines[0].items() if "peak" not in key))
    return lines


def steps_of_a_reading(process: WayProcess, kind: str) -> int:
    return max(STEPS[kind], round(STEPS[kind] / process.ask("steps", STEPS[kind])))


def rates(readings: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the rate of each way from the seconds of its readings, and its ratio to that of the first way.

    A ratio is the median of the ratios of readings that follow each other, because a disturbance of some
    seconds slows both.
    """
    first, *others = readings
    per_second = {name: round(1 / statistics.median(values), 1) for name, values in readings.items()}
    return per_second | {
        f"{name} / {first}": round(statistics.median(map(truediv, readings[first], readings[name])), 2)
        for name in others
    }


def measure_several(work: Work, processes, ways, device: str, options) -> list[dict]:
    """Return a line of the table: several models at once, as `dislab run --seeds` trains them.

    The usual way trains them one after the other. There is no line if only one model fits.
    """
    (usual, one_by_one), *_ = processes.items()
    kind, on_cpu = device.partition(":")[0], device == "cpu"
    side_by_side = min(options.threads, room_for_runs()) if on_cpu else 1
    work = work if on_cpu else replace(work, members=STACKED)
    number = side_by_side * work.members
    if number == 1:
        return []
    line = {"what": f"training {number} models", "of": work.model, "dataset": work.dataset}
    line["unit"] = "steps/s of all"
    with contextlib.ExitStack() as stack:
        several = {}
        for name, (way, precision) in ways.items():
            if way is OfDislab and (on_cpu or precision != "bf16"):  # models in bf16 cannot be stacked
                together = WayProcesses(
                    side_by_side, way, precision, device, options.data_dir, options.threads
                )
                several[name] = stack.enter_context(contextlib.closing(together))
                together.ask("begin", work)
                together.ask("steps", 5)
        readings = {name: [] for name in (usual, *several)}
        steps = steps_of_a_reading(one_by_one, kind)
        for _ in range(options.repeats):
            readings[usual].append(one_by_one.ask("steps", steps) / steps)
            for name, together in several.items():
                readings[name].append(max(together.ask("steps", steps)) / steps / number)
    line |= rates(readings)
    say(", ".join(f"{key} {value}" for key, value in line.items()))
    return [line]


def flop(work: Work, data_dir) -> tuple[float, float]:
    """Return the floating-point operations of a training step, and those of encoding one image.

    Matrix products and convolutions are counted.
    """
    dataset = work.open("cpu", data_dir)
    model = work.make_model(dataset.image_shape, work.seed)
    batch = Batches(dataset, model, work.batch_size, [dataset.group_by], 0, torch.device("cpu")).draw()
    with FlopCounterMode(display=False) as counted:
        model.loss(batch, torch.zeros(()))["loss"].backward()
    with FlopCounterMode(display=False) as of_encoder, torch.no_grad():
        model.encode(batch.images)
    return counted.get_total_flops(), of_encoder.get_total_flops() / work.batch_size


def measure_metrics(column: str) -> list[dict]:
    """Return a line per metric: seconds on METRIC_ROWS codes with one thread, beside encoding images anew."""
    functions = {}
    for entry in METRICS.default():
        functions.setdefault(entry.make, entry.name)
    from threadpoolctl import threadpool_limits

    with contextlib.redirect_stdout(sys.stderr), threadpool_limits(1):
        lines = metrics.measure_all(metrics.make_table(METRIC_ROWS), functions, num_points=20)
    return [
        {
            "what": "metric",
            "of": line["metric"],
            "dataset": f"{METRIC_ROWS:,} rows",
            "unit": "seconds",
            "usual": line["images_anew_seconds"],
            column: line["seconds"],
        }
        for line in lines
    ]


def measure_losses(processes) -> pd.DataFrame:
    """Return the mean loss of every LOSS_EVERY steps of VAEs on Shapes3D.

    All ways begin with the same parameters. The usual way draws its batches from another random stream.
    """
    lines = []
    for seed, (name, process) in itertools.product(range(LOSS_SEEDS), processes.items()):
        process.ask("begin", Work("vae", "shapes3d", batch_size=32, seed=seed))
        for index, loss in enumerate(process.ask("losses", LOSS_STEPS, LOSS_EVERY), start=1):
            lines.append({"way": name, "seed": seed, "step": index * LOSS_EVERY, "loss": loss})
    return pd.DataFrame(lines)


def measure_cost(device: str, precision: str, options) -> pd.DataFrame:
    """Return the milliseconds of a step against what may make it slower, and the peak memory.

    Each is measured in a fresh process. A step of several models at once is a step of all of them.
    """
    on_cpu = device == "cpu"
    base = {"model": "vae", "dataset": "shapes3d", "batch_size": 32}
    way = (OfDislab, precision, device, options.data_dir, options.threads)
    variants = [
        *(
            ("steps", n, Work(**base))
            for n in ([1, 2, 4, 8, 16, 32] if on_cpu else [1, 10, 100, 1000, 10_000])
        ),
        *(
            ("models in a stack", n, Work(**base, members=n))
            for n in ([1, 2, 4] if on_cpu else [1, 4, 16, 32])
        ),
        *(("images of the dataset", n, Work(**base, rows=n)) for n in (1000, 10_000, 100_000)),
        ("images of the dataset", 480_000, Work(**base)),
        *(("latents", n, Work(**base, hyperparameters={"latents": n})) for n in (2, 10, 50, 250)),
    ]
    if on_cpu:  # each in a process with its share of the threads, like the seeds of `dislab run`
        numbers = [n for n in (1, 2, 4, 8, 16, 32) if n <= options.threads]
        variants += [(SIDE_BY_SIDE, n, Work(**base)) for n in numbers]
    lines = []
    for what, value, work in variants:
        number = value if what == "steps" else STEPS[device.partition(":")[0]]
        side_by_side = value if what == SIDE_BY_SIDE else 1
        with contextlib.closing(WayProcesses(side_by_side, *way)) as together:
            together.ask("begin", work)
            together.ask("steps", 5)
            seconds = statistics.median(max(together.ask("steps", number)) for _ in range(3))
            line = {"against": what, "value": value}
            line |= {"seconds": seconds, "ms_per_step": 1e3 * seconds / number}
            lines.append(line | {"peak_mb": sum(together.ask("memory"))})
    for dataset in options.datasets.split(","):
        with contextlib.closing(WayProcess(*way)) as process:
            try:
                process.ask("begin", Work("vae", dataset))
            except DislabError:
                continue
            process.ask("steps", 3)
            lines.append({"against": "dataset", "value": dataset, "peak_mb": process.ask("memory")})
    return pd.DataFrame(lines)


def plot_losses(losses: pd.DataFrame, about: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, lines), colour in zip(losses.groupby("way", sort=False), ("C7", "C0", "C1"), strict=True):
        for _, line in lines.groupby("seed"):
            axes.plot(line["step"], line["loss"], color=colour, linewidth=0.8, alpha=0.6)
        mean = lines.groupby("step")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, linewidth=2.5, label=name)
    title = f"VAEs on Shapes3D: {losses['seed'].nunique()} seeds of each way, and their mean"
    axes.set(xlabel="step", ylabel="loss, nats per image", yscale="log", title=title)
    axes.yaxis.set_minor_formatter("{x:,.0f}")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.supxlabel(about, fontsize=7)
    return figure


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


if __name__ == "__main__":
    sys.exit(main())
