"""Measure the speed of dislab beside the usual way, in one table.

    python -m dislab.benchmarks.speed [--device cuda] [--data-dir FOLDER] [--out results/speed]
    python -m dislab.benchmarks.speed --peers

The first writes speed.csv, cost.csv and cost.png, losses.csv and losses.png; the second writes peers.csv,
with pythae and disent if they are installed here. `benchmarks/speed/__init__.py` says what the columns are.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import truediv
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import dislab
from dislab.benchmarks.speed import metrics
from dislab.benchmarks.speed.command import measure_command
from dislab.benchmarks.speed.cost import measure_cost, plot_cost
from dislab.benchmarks.speed.peers import measure_peers
from dislab.benchmarks.speed.processes import WayEnded, WayProcess, WayProcesses, in_turn, steps_of_a_reading
from dislab.benchmarks.speed.ways import Usual, Work, ways_on
from dislab.data.devices import choose_device
from dislab.errors import DislabError
from dislab.files import save_figure
from dislab.progress import say
from dislab.registry import DATASETS, METRICS, MODELS
from dislab.runs.machine import room_for_runs
from dislab.training.batches import Batches

USUAL_MODELS = ("vae", "betavae", "betatcvae", "mlvae")
USUAL_DATASETS = ("shapes3d", "dsprites", "cars3d", "mpi3d_toy", "mnist")
ENCODED = {"cpu": 2048, "cuda": 100_000}  # rows per reading
LOSS_STEPS, LOSS_EVERY, LOSS_SEEDS = 400, 20, 3
METRIC_ROWS = 30_000
AT_ONCE = 10  # models on a GPU


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.speed",
        description="dislab beside the usual way, in one table.",
        epilog="The columns of the tables are explained in benchmarks/speed/__init__.py.",
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
    parser.add_argument("--peers", action="store_true", help="only other libraries beside dislab: peers.csv")
    options = parser.parse_args(arguments)
    try:
        device = check(options)
        about = describe(device, options.threads)
        if options.peers:
            peers = measure_peers(device, options)
            write(peers, Path(options.out) / "peers.csv", about)
            print(f"{about}\n{peers.to_string(index=False, na_rep='')}")
        else:
            measure_everything(device, about, options)
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check(options) -> str:
    """Return the device. Raise DislabError if an option is wrong; else make the folder of the tables."""
    device = str(choose_device(options.device))
    for name in options.models.split(","):
        if MODELS[name].make.supervision == "none":
            raise DislabError(f"{name} takes no training steps whose speed could be measured")
    for name in options.datasets.split(","):
        DATASETS[name]  # raises DislabError if it is unknown
    for option in ("repeats", "threads"):
        if getattr(options, option) < 1:
            raise DislabError(f"--{option} is {getattr(options, option)}: it must be at least 1")
    Path(options.out).mkdir(parents=True, exist_ok=True)
    return device


def measure_everything(device: str, about: str, options) -> None:
    models, datasets = options.models.split(","), options.datasets.split(",")
    out, ways = Path(options.out), ways_on(device)
    if "dislab bf16" not in ways:
        say("dislab bf16: left out: this CPU multiplies matrices in bf16 more slowly than in float32")
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, way in ways.items():
            process = WayProcess(name, *way, device, options.data_dir, options.threads)
            processes[name] = stack.enter_context(contextlib.closing(process))
        peaks = {name: process.ask("peak") for name, process in processes.items()}
        lines = []
        for dataset, model in itertools.product(datasets, models):
            try:
                lines += measure_training(Work(model, dataset), processes, peaks, device, options)
                if (dataset, model) == (datasets[0], models[0]):
                    lines += measure_several(Work(model, dataset), processes, ways, device, options)
            except WayEnded:
                raise
            except DislabError as error:
                say(f"{model} on {dataset}: left out: {error}")
            write(pd.DataFrame(lines), out / "speed.csv", about)  # now, so that Ctrl-C does not lose it
        ours = list(ways)[1]
        lines += measure_metrics(ours)
        lines += measure_command(ours, device, options.data_dir, options.threads)
        table = pd.DataFrame(lines)
        write(table, out / "speed.csv", about)
        say("losses of each way")
        losses = measure_losses(processes)
        write(losses, out / "losses.csv", about)
        save_figure(plot_losses(losses, about), out / "losses.png")
    say("cost of a step")
    cost = measure_cost(device, options)
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
    usual, ours, *_ = processes
    steps, images = steps_of_a_reading(processes[usual], kind), ENCODED[kind]
    a_reading = {name: partial(process.ask, "steps", steps) for name, process in processes.items()}
    pairs = in_turn(a_reading, options.repeats)
    training = {name: [seconds / steps for seconds, _ in of_way] for name, of_way in pairs.items()}
    a_reading = {name: partial(process.ask, "encoding", images) for name, process in processes.items()}
    readings = in_turn(a_reading, -(-options.repeats // 2))
    encoding = {name: [seconds / images for seconds in of_way] for name, of_way in readings.items()}
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
    if device == "cpu" and options.threads == 1:  # with several threads, those that wait would count
        cpu = {name: statistics.median(cpu for _, cpu in of_way) / steps for name, of_way in pairs.items()}
        lines[0] |= {f"{name}, CPU ms": round(1e3 * seconds, 1) for name, seconds in cpu.items()}
    step, image = statistics.median(training[ours]), statistics.median(encoding[ours])
    lines[1]["encoding / training, images"] = round(step / work.batch_size / image, 1)
    lines[1]["encoding / training, FLOP"] = round((of_image / image) / (of_step / step), 2)
    say(", ".join(f"{key} {value}" for key, value in lines[0].items() if "peak" not in key))
    return lines


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
    """Return lines of the table: several models at once, as `dislab run --seeds` trains them.

    The usual way trains them one after the other. On a CPU each of dislab's has a process; there is no line
    if only one fits. On a GPU they are side by side in one.
    """
    if device == "cpu":
        kind, number = "in processes", min(options.threads, room_for_runs())
    else:
        kind, number, work = "side by side", 1, replace(work, members=AT_ONCE)
    models = number * work.members
    if models == 1:
        return []
    line = {"what": f"training {models} models, {kind}", "of": work.model, "dataset": work.dataset}
    rates = rates_of_several(number, work, processes, ways, device, options)
    return [line | {"unit": "steps/s of all"} | rates]


def rates_of_several(number: int, work: Work, processes, ways, device: str, options) -> dict[str, float]:
    """Return the rates of the usual way, and of dislab in a number of processes."""
    (usual, one_by_one), *_ = processes.items()
    steps = steps_of_a_reading(one_by_one, device.partition(":")[0])
    a_reading = {usual: partial(one_by_one.ask, "steps", steps)}
    with contextlib.ExitStack() as stack:
        for name, (way, precision) in ways.items():
            if way is Usual:
                continue
            several = WayProcesses(number, name, way, precision, device, options.data_dir, options.threads)
            stack.enter_context(contextlib.closing(several)).ask("begin", work)
            several.ask("steps", 5)
            a_reading[name] = partial(several.ask, "steps", steps)
        readings = in_turn(a_reading, options.repeats)
    seconds = {usual: [seconds / steps for seconds, _ in readings.pop(usual)]}
    for name, of_way in readings.items():
        seconds[name] = [max(each)[0] / steps / number / work.members for each in of_way]
    return rates(seconds)


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


def plot_losses(losses: pd.DataFrame, about: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, lines), colour in zip(losses.groupby("way", sort=False), ("C7", "C0", "C1"), strict=False):
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


if __name__ == "__main__":
    sys.exit(main())
