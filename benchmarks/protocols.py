"""Compare training protocols: scores against the CPU-seconds of training, for every seed.

    python -m dislab.benchmarks.protocols [--protocols quick,fast] [--seeds 0-4] [--out results/protocols]

Each model is trained as `dislab run` trains it, on one thread, and scored at a quarter, at half and at the
end of its steps; with --readings 1 at the end only. scores.csv has a line for every reading, scores.png draws
them. The same command goes on where it was stopped. Several processes may share the work, each with an --out
of its own: `--draw A B …` joins their lines and draws them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

import dislab
from dislab.cli.options import parse_seeds
from dislab.errors import DislabError
from dislab.files import save_figure
from dislab.networks.fused import fuse
from dislab.progress import say
from dislab.registry import unknown_name
from dislab.runs.config import RunConfig
from dislab.runs.images import images_of
from dislab.runs.machine import Machine
from dislab.runs.resolve import make_batches, make_model, resolve
from dislab.scoring.encoding import choose_rows, encode_model, reconstruction_errors
from dislab.scoring.request import asked
from dislab.scoring.score import compute
from dislab.training.checkpoint import Member
from dislab.training.loop import keep_freed_memory
from dislab.training.steps import SingleSteps

SCORES = {
    "vae": ("elbo",),
    "betatcvae": ("elbo", "mig", "factorvae_score", "betavae_score"),
    "mlvae": ("elbo", "content_accuracy", "style_accuracy", "factorvae_score"),
}
KEY = ["dataset", "model", "protocol", "seed"]
CPU = torch.device("cpu")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.protocols", description="Scores against CPU-seconds of training."
    )
    parser.add_argument("--protocols", default="quick,fast", help="names with commas")
    parser.add_argument("--steps", type=int, help="training steps, instead of the protocol's")
    parser.add_argument("--models", default=",".join(SCORES), help="names with commas")
    parser.add_argument(
        "--datasets", default="shapes3d", help="names with commas; their drawn images are used"
    )
    parser.add_argument("--seeds", default="0-4", help="0,1,2 or 0-9")
    parser.add_argument(
        "--readings", type=int, default=3, help="the last at the end, each at half of the next"
    )
    parser.add_argument("--out", default="results/protocols", help="folder of scores.csv and scores.png")
    parser.add_argument("--draw", nargs="+", help="folders whose lines are joined in --out and drawn")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        if options.draw:
            lines = pd.concat(pd.read_csv(Path(folder) / "scores.csv") for folder in options.draw)
            lines.sort_values([*KEY, "step"]).to_csv(out / "scores.csv", index=False)
        else:
            measure(options, out / "scores.csv")
        save_figure(draw(pd.read_csv(out / "scores.csv")), out / "scores.png")
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(options, path: Path) -> None:
    """Train and score what scores.csv lacks, and add a line for each reading."""
    keep_freed_memory()
    torch.set_num_threads(1)
    machine = Machine.here("cpu")
    for model in options.models.split(","):
        if model not in SCORES:
            raise unknown_name("model of this comparison", model, SCORES)
    if options.readings < 1:
        raise DislabError(f"--readings is {options.readings}: it must be 1 or more")
    configs = [
        resolve(
            model,
            dataset,
            machine,
            source="rendered",
            protocol=protocol,
            metrics=SCORES[model],
            seed=seed,
            steps=options.steps,
        )
        for seed in parse_seeds(options.seeds)
        for dataset in options.datasets.split(",")
        for protocol in options.protocols.split(",")
        for model in options.models.split(",")
    ]
    for config in configs:
        lines = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=KEY)
        key = [config.dataset, config.model, config.protocol_name, config.seed]
        if (lines[KEY] == key).all(axis=1).any():
            continue
        say(f"{config}, protocol {config.protocol_name}")
        new = pd.DataFrame(
            [dict(zip(KEY, key, strict=True)) | line for line in readings(config, machine, options.readings)]
        )
        pd.concat([lines, new]).to_csv(path, index=False)


def readings(config: RunConfig, machine: Machine, number: int) -> list[dict[str, float]]:
    """Train a model; return its scores and the CPU-seconds of its training at each reading."""
    images = images_of(config, machine)
    model = fuse(make_model(config, images.image_shape).to(memory_format=torch.channels_last))
    member = Member(model, make_batches(config, images, model, CPU), Path("no-checkpoint"))
    member.resume(config.protocol.learning_rate)
    steps, rows = SingleSteps(member, config.protocol), choose_rows(images, config.protocol.rows)
    lines, seconds, done = [], 0.0, 0
    for halvings in reversed(range(number)):
        until, began = config.protocol.steps >> halvings, time.process_time()
        for _ in range(done, until):
            steps.step()
        seconds, done = seconds + time.process_time() - began, until
        lines.append(
            {"step": done, "cpu_seconds": round(seconds, 2)} | scores(config, model.eval(), images, rows)
        )
        model.train()
    return lines


def scores(config: RunConfig, model: nn.Module, images: dislab.Dataset, rows) -> dict[str, float]:
    """Return the scores of a model, as a run of this configuration has them."""
    table = encode_model(model, images, rows, CPU, group_by=config.group_by)
    table.reconstruction = reconstruction_errors(model, images, rows, config.seed, CPU)
    found = compute(asked(config.metrics), table, config.seed, lambda name: None)
    return {name: round(float(found[name]), 6) for name in SCORES[config.model]}


def draw(lines: pd.DataFrame) -> Figure:
    """Return a panel for each dataset, model and score, with a thin line for each seed and a thick mean."""
    panels = [(*key, score) for key in lines.groupby(KEY[:2]).groups for score in SCORES[key[1]]]
    width = max(map(len, SCORES.values()))
    figure = Figure(figsize=(4 * width, 3 * -(-len(panels) // width)), layout="constrained")
    axes = figure.subplots(-(-len(panels) // width), width, squeeze=False).ravel()
    colours = {name: f"C{index}" for index, name in enumerate(lines["protocol"].unique())}
    for (dataset, model, score), axis in zip(panels, axes, strict=False):
        here = lines[(lines["dataset"] == dataset) & (lines["model"] == model)]
        for name, of_protocol in here.groupby("protocol", sort=False):
            for _, of_seed in of_protocol.groupby("seed"):
                axis.plot(
                    of_seed["cpu_seconds"], of_seed[score], ".-", color=colours[name], alpha=0.35, lw=0.8
                )
            mean = of_protocol.groupby("step")[["cpu_seconds", score]].mean()
            axis.plot(mean["cpu_seconds"], mean[score], "o-", color=colours[name], label=name)
        axis.set(title=f"{model} on {dataset}", xlabel="CPU-seconds of training", ylabel=score)
        axis.legend()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


if __name__ == "__main__":
    raise SystemExit(main())
