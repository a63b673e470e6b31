"""Let several processes do one study, and kill some of them: every run must be there, and done once.

In every other round each process does the whole study. In the others each has a share (`--shard`), and those
that were killed are started again, as a scheduler does. The moments of the kills are random.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from dislab.benchmarks.robustness import bars, contents
from dislab.benchmarks.robustness.commands import Command, check_done, prepare, reap
from dislab.cli.tables import print_table
from dislab.progress import Bar

STUDY = """title = "Shares"
steps = 20
batch_size = 16
seeds = [{seeds}]
metrics = ["mig"]
figures = []

[[runs]]
model = "vae"
dataset = "bars"
set = {{ network = "mlp" }}
"""
PLAIN = "\nimport dislab.runs.perform\n\ndislab.runs.perform.draw_pictures = lambda *scene: []\n"
SECONDS = 600  # that a command may take
PROBLEMS = ("exit codes", "lost", "wrong", "left over")


def add_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("--processes", type=int, default=8, help="processes at once (8)")
    part.add_argument("--killed", type=int, default=3, help="how many of them are killed (3)")
    part.add_argument("--runs", type=int, default=100, help="runs of the study (100)")
    part.add_argument("--rounds", type=int, default=4, help="how often (4)")


def show(options, scratch: Path) -> int:
    prepare()
    reference = furnish(scratch / "reference", options.runs)
    check_done(Command(bars.BENCH, reference, scratch / "log", environment=bars.places(scratch)), SECONDS)
    counts, killed = Counter(), 0
    with Bar("rounds", options.rounds) as bar:
        for number in range(options.rounds):
            draw = random.Random(f"{options.seed} {number}")
            folder = furnish(scratch / f"round{number}", options.runs)
            problems, kills = play(folder, scratch, options, number % 2 == 1, draw)
            killed += kills
            for kind, lines in contents.compare(reference, folder).items():
                problems += [(kind, line) for line in lines]
            counts.update(kind for kind, _ in problems)
            for kind, text in problems:
                print(f"round {number}: {kind}: {text}", flush=True)
            if problems and options.out is not None:
                shutil.copytree(folder, options.out / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
            bar.update(number + 1)
    cells = (options.rounds, options.processes, killed, options.runs, *(counts[kind] for kind in PROBLEMS))
    print_table([("rounds", "processes", "killed", "runs of each", *PROBLEMS), tuple(map(str, cells))])
    return int(bool(counts))


def furnish(folder: Path, runs: int) -> Path:
    """Make a working folder with the plug-in and a study of so many runs; return it."""
    bars.furnish(folder)
    (folder / "bars.py").write_text(bars.PLUGIN + PLAIN)
    (folder / "study.toml").write_text(STUDY.format(seeds=", ".join(map(str, range(runs)))))
    return folder


def play(
    folder: Path, scratch: Path, options, in_shares: bool, draw: random.Random
) -> tuple[list[tuple[str, str]], int]:
    """Let processes do the study of a folder; return what is wrong with their ends, and how many died."""

    def start(number: int) -> Command:
        share = [f"--shard={number + 1}/{options.processes}"] if in_shares else []
        log = scratch / f"log{number}"
        return Command([*bars.BENCH, *share], folder, log, environment=bars.places(scratch))

    started = [start(number) for number in range(options.processes)]
    chosen = draw.sample(range(options.processes), options.killed)
    # A process is killed some milliseconds after so many runs are done.
    for runs, number in sorted((draw.randrange(2 * options.runs // 3), number) for number in chosen):
        while number_of_records(folder) < runs and not started[number].is_over():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        if not started[number].is_over():
            os.kill(started[number].pid, signal.SIGKILL)
    problems, killed = [], []
    for number, command in enumerate(started):
        command.wait(SECONDS)
        sent = signal.SIGKILL if number in chosen else None
        if problem := command.wrong_ending(sent):
            problems.append(("exit codes", f"{problem}: {command.messages()[-300:]}"))
        if command.code == -signal.SIGKILL:
            killed.append(number)
    for number in killed if in_shares else []:
        check_done(start(number), SECONDS)
    if in_shares:  # tables of all: whoever ended last may have been killed while it wrote them
        check_done(Command(bars.BENCH, folder, scratch / "log", environment=bars.places(scratch)), SECONDS)
    if left := reap(0):
        problems.append(("left over", f"{left} processes"))
    return problems, len(killed)


def number_of_records(folder: Path) -> int:
    """Return how many runs of a working folder are done."""
    path = folder / "results" / "study" / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
