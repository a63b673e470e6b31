"""Measure the seconds of every metric on a full grid of codes, beside encoding images anew.

    python -m dislab.benchmarks.speed.metrics [--rows 30000] [--metrics mig,sap] [--out FILE.csv]

The codes are noisy mixtures of the factors of Shapes3D, so no model is needed. For three metrics the table
also has the time that disentanglement_lib's way would take: it draws factors, looks up their images and
encodes them batch by batch, for every point of the metric. This is measured on a few points and scaled to
all. It is a lower bound, because the classifier that follows is left out.
"""

from __future__ import annotations

import argparse
import inspect
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import dislab
from dislab.data.dataset import unit_images
from dislab.data.space import Circle
from dislab.errors import DislabError
from dislab.networks.fused import fuse
from dislab.networks.named import make_networks
from dislab.registry import METRICS
from dislab.scoring.encoding import encode
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SIZES = (10, 10, 10, 8, 4, 15)
NUM_CODES = 10
ENCODED = 2048  # images, for the estimate of encoding all


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.speed.metrics", description="Seconds per metric on a full grid."
    )
    parser.add_argument("--rows", type=int, help="number of random rows; by default the full grid of 480,000")
    parser.add_argument("--metrics", help="names with commas; by default all but the slow ones")
    parser.add_argument("--threads", type=int, default=1, help="threads of numpy and torch (1)")
    parser.add_argument(
        "--points", type=int, default=20, help="points to measure the reference's way on, or 0 (20)"
    )
    parser.add_argument("--out", help="write the table as CSV, too")
    options = parser.parse_args(arguments)
    try:
        lines = run(options)
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.out:
        import pandas as pd

        pd.DataFrame(lines).to_csv(options.out, index=False)
    return 0


def run(options) -> list[dict]:
    from threadpoolctl import threadpool_limits

    for option, least in (("threads", 1), ("points", 0)):
        if getattr(options, option) < least:
            raise DislabError(f"--{option} is {getattr(options, option)}: it must be at least {least}")
    names = [name.strip() for name in (options.metrics or "").split(",") if name.strip()]
    functions: dict[Callable, str] = {}  # with the name of one of its scores; one call gives all of them
    for entry in METRICS.choose(names) if names else METRICS.default():
        functions.setdefault(entry.make, entry.name)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with threadpool_limits(options.threads):
            print(description(options.threads))
            table = make_table(options.rows)
            print(f"table: {table}, 1 seed; seconds: of the clock; CPU: of this process")
            return measure_all(table, functions, options.points)
    finally:
        torch.set_num_threads(before)


def description(threads: int) -> str:
    """Return the machine and the versions, on two lines."""
    import sklearn

    versions = f"Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}"
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{processor()}, {os.cpu_count()} cores, {threads} thread(s) used, load {load}\n"
        f"dislab {dislab.__version__}, {versions}, scikit-learn {sklearn.__version__}"
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def make_table(num_rows: int | None, seed: int = 0) -> CodeTable:
    """Return codes that are mixtures of the six factors with noise, with all that any metric needs.

    The orientation is declared a circle, which it is not in Shapes3D, because pose_error needs one.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(np.prod(SIZES))
    if num_rows is not None and not 1 <= num_rows <= len(rows):
        raise DislabError(f"--rows is {num_rows}: it must be 1 to {len(rows)}")
    if num_rows is not None:
        rows = np.sort(rng.permutation(rows)[:num_rows])
    factors = np.stack(np.unravel_index(rows, SIZES), axis=-1)
    weights = rng.standard_normal((len(SIZES), NUM_CODES)) / np.sqrt(len(SIZES))
    standardised = (factors - (np.array(SIZES) - 1) / 2) / (np.array(SIZES) / np.sqrt(12))
    shape = (len(rows), NUM_CODES)
    return CodeTable(
        standardised @ weights + 0.3 * rng.standard_normal(shape),
        factors,
        logvar=rng.uniform(-4, -2, size=shape),
        names=NAMES,
        sizes=SIZES,
        labels=factors[:, NAMES.index("shape")],
        full_grid=num_rows is None,
        circle=Circle("orientation", SIZES[-1]),
        reconstruction=rng.uniform(50, 60, size=2048),
    )


def measure_all(table: CodeTable, functions: dict[Callable, str], num_points: int) -> list[dict]:
    """Measure the metrics, print a row for each, and return the rows."""
    # Imported here, so that the first metric that needs them is not charged for it.
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.neural_network  # noqa: F401

    way = ReferenceWay() if num_points else None
    columns = f"{'seconds':>9} {'CPU':>8} {'peak, MB':>9} {'images anew':>12}  points used"
    print(f"{'metric':<22} {columns}")
    lines, notes = [], ["peak, MB: of the process so far, with the table and the images"]
    for function, name in functions.items():
        seconds, cpu, scores = timed(lambda name=name: score(table, [name]))
        anew, anew_cpu, note = None, None, ""
        if way and function.__name__ in way.work:
            anew, anew_cpu, note = way.measure(function.__name__, num_points)
            notes.append(note)
        line = {
            "metric": function.__name__,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(cpu, 3),
            "peak_mb": round(peak_memory()),
            "images_anew_seconds": anew,
            "images_anew_cpu_seconds": anew_cpu,
            "points_used": points_used(function) or f"all {len(table):,} rows",
            "rows": len(table),
            "note": "; ".join([*scores.failed.values(), *scores.left_out.values()]),
        }
        lines.append(line)
        print(
            f"{line['metric']:<22} {seconds:>9.3f} {cpu:>8.3f} {line['peak_mb']:>9,} "
            f"{'' if anew is None else format(anew, ',.0f'):>12}  "
            f"{line['points_used']}{'; ' * bool(line['note'])}{line['note']}",
            flush=True,
        )
    print("\n".join(notes))
    compared = [line for line in lines if line["images_anew_seconds"] is not None]
    if compared:
        once, once_cpu = way.encode_once()
        print(
            f"encoding all {len(way.dataset):,} images once, as dislab does for all metrics together: "
            f"{once:,.0f} s, {once_cpu:,.0f} s CPU, scaled from {ENCODED:,} images"
        )
        for key, kind, encoding in (("", "", once), ("cpu_", " CPU", once_cpu)):
            anew = sum(line[f"images_anew_{key}seconds"] for line in compared)
            ours = encoding + sum(line[f"{key}seconds"] for line in compared)
            print(
                f"these {len(compared)} in all: {anew:,.0f} s{kind} anew, {ours:,.0f} s{kind} once and here"
            )
    return lines


def points_used(function: Callable) -> str:
    """Return the whole-number arguments of a metric's protocol, such as num_train=10,000."""
    parameters = inspect.signature(function).parameters.values()
    numbers = [p for p in parameters if isinstance(p.default, int) and not isinstance(p.default, bool)]
    return ", ".join(f"{p.name}={p.default:,}" for p in numbers)


def timed(work: Callable) -> tuple[float, float, object]:
    """Return seconds of the clock, CPU seconds of this process, and the result."""
    began, began_cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - began, time.process_time() - began_cpu, result


def peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    try:  # On Linux, getrusage also counts the memory of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        pass
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


# The reference's way -------------------------------------------------------------------------------


class ReferenceWay:
    """Draws factors as disentanglement_lib does, and encodes their images batch by batch.

    The encoder is the convolutional one of Locatello et al. 2019, not trained.

    Attributes
    ----------
    work : metric -> the work for one point, its description, and the number of points in the published
        protocol.
    """

    def __init__(self):
        self.dataset = dislab.load_dataset("shapes3d", source="rendered")
        shape, channels = self.dataset.image_shape, self.dataset.image_shape[0]
        encoder, _ = make_networks("conv", shape, outputs=2 * NUM_CODES, latents=NUM_CODES, channels=channels)
        self.encoder = fuse(encoder.to(memory_format=torch.channels_last))
        self.random = np.random.RandomState(0)
        self.work = {
            "betavae_score": (self.betavae_point, "two batches of 64", 10_000 + 5_000),
            "factorvae_score": (self.factorvae_vote, "batch of 64", 10_000 + 5_000 + 10_000 / 64),
            "mig": (self.sixteen_codes, "batch of 16", 10_000 / 16),
        }

    def factors(self, number: int) -> np.ndarray:
        return np.stack([self.random.randint(size, size=number) for size in SIZES], axis=1)

    def codes(self, factors: np.ndarray) -> np.ndarray:
        images = unit_images(self.dataset.images(self.dataset.space.rows(factors)))
        with torch.inference_mode():
            return self.encoder(images)[:, :NUM_CODES].numpy()

    def betavae_point(self) -> None:
        """Draw two batches that share a factor, and compute the mean distance of their codes."""
        first, second = self.factors(64), self.factors(64)
        shared = self.random.randint(len(SIZES))
        second[:, shared] = first[:, shared]
        np.abs(self.codes(first) - self.codes(second)).mean(axis=0)

    def factorvae_vote(self) -> None:
        """Draw a batch with one factor fixed, and compute the variances of its codes."""
        factors = self.factors(64)
        fixed = self.random.randint(len(SIZES))
        factors[:, fixed] = factors[0, fixed]
        np.argmin(self.codes(factors).var(axis=0, ddof=1))

    def sixteen_codes(self) -> None:
        self.codes(self.factors(16))

    def measure(self, metric: str, num_points: int) -> tuple[float, float, str]:
        """Return seconds and CPU seconds, scaled from `num_points` to all points, and a line that says so."""
        point, words, number = self.work[metric]
        point()  # the first one is slower
        seconds, cpu, _ = timed(lambda: [point() for _ in range(num_points)])
        seconds, cpu = seconds / num_points, cpu / num_points
        note = (
            f"images anew, {metric}: {1e3 * seconds:.1f} ms ({1e3 * cpu:.1f} ms CPU) per {words}, measured "
            f"on {num_points} and scaled to {number:,.0f}; what follows is left out"
        )
        return round(seconds * number, 1), round(cpu * number, 1), note

    def encode_once(self) -> tuple[float, float]:
        """Return seconds and CPU seconds for all images of the dataset, scaled from ENCODED of them."""
        rows = np.random.default_rng(0).integers(len(self.dataset), size=ENCODED)
        seconds, cpu, _ = timed(lambda: encode(lambda x: self.encoder(x)[:, :NUM_CODES], self.dataset, rows))
        return seconds / ENCODED * len(self.dataset), cpu / ENCODED * len(self.dataset)


if __name__ == "__main__":
    sys.exit(main())
