"""Measure how fast batches are drawn: images/s of every dataset and source that can be opened here.

    python -m dislab.benchmarks.speed.datasets [--device cpu] [--data-dir FOLDER] [--out FILE.csv]

The table also has the time of a VAE's training step on such batches, and that of drawing as a share of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import dislab
from dislab.data.devices import choose_device
from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.networks.fused import fuse
from dislab.progress import say
from dislab.registry import DATASETS
from dislab.training.batches import Batches

BATCH = 64


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Images drawn per second, by dataset and source.")
    parser.add_argument("--device", help="cpu, cuda, …; by default the GPU where there is one")
    parser.add_argument("--data-dir", help="where official files lie")
    parser.add_argument("--repeats", type=int, default=30, help="batches per median")
    parser.add_argument("--out", help="write the table as CSV, too")
    options = parser.parse_args(arguments)
    try:
        device = choose_device(options.device)
        if options.repeats < 1:
            raise DislabError(f"--repeats is {options.repeats}: it must be at least 1")
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows = []
    for entry in DATASETS:
        for source in ("official", "rendered"):
            try:
                rows.append(measure(entry.name, source, options.data_dir, device, options.repeats))
            except DislabError as error:
                say(f"{entry.name}, {source}: left out: {error}")
    import pandas as pd

    frame = pd.DataFrame(rows)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"device: {name}, {torch.get_num_threads()} threads, torch {torch.__version__}, batches of {BATCH}")
    print(frame.to_string(index=False))
    if options.out:
        frame.to_csv(options.out, index=False)
    return 0


def measure(name: str, source: str, data_dir, device: torch.device, repeats: int) -> dict:
    """Return a row of the table: medians over `repeats` batches, drawing and training in turn."""
    dislab.load_dataset(name, source=source, data_dir=data_dir, device=str(device))  # fills the cache
    began = time.perf_counter()
    dataset = dislab.load_dataset(name, source=source, data_dir=data_dir, device=str(device))
    opened = time.perf_counter() - began
    model = fuse(VAE(dataset.image_shape).to(device, memory_format=torch.channels_last))
    batches = Batches(dataset, model, BATCH, [dataset.group_by], 0, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    step = torch.zeros((), device=device)

    def draw() -> None:
        dataset.images(batches.rows(batches.random()[0])[0])

    def train() -> None:
        loss = model.loss(batch, step)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    batch = batches.draw()
    seconds: dict[str, list[float]] = {"draw": [], "train": []}
    for repeat in range(repeats + 3):
        for what, work in (("draw", draw), ("train", train)):
            taken = _seconds(work, device)
            if repeat >= 3:  # the first ones are slower
                seconds[what].append(taken)
    drawing, training = (statistics.median(seconds[what]) for what in ("draw", "train"))
    stored = np.prod(dataset.image_shape) * len(dataset) / 1e6
    return {
        "dataset": dataset.name,
        "source": source,
        "open again, s": round(opened, 3),
        "images/s": round(BATCH / drawing),
        "draw, ms": round(1e3 * drawing, 2),
        "VAE step, ms": round(1e3 * training, 2),
        "draw / step": round(drawing / training, 3),
        "as bytes, MB": round(stored),
    }


def _seconds(work: Callable, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
