"""Start several processes on one results folder at the same moment: every run and every score must be there.

They do different runs and the same run, a study, scores of runs that are finished, and a leaderboard. In
every other round each process waits before it changes the records, the leaderboard, or another kind of
file, so that what it has read may be out of date when it writes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

from dislab.benchmarks.robustness import bars, contents
from dislab.benchmarks.robustness.commands import Command, check_done, prepare, reap
from dislab.benchmarks.robustness.moments import Changes
from dislab.cli.tables import print_table
from dislab.progress import Bar

FINISHED = ["run", "--model", "vae", "--steps", "25", "--seeds", "0-1", "--jobs", "1", *bars.SMALL]
NEW = ["run", "--model", "vae", "--steps", "25", *bars.SMALL]
SCORES = ("sap", "irs", "modularity", "explicitness")
SECONDS = 120  # that a command may take
# In every other round each process waits before it changes one of these, and at most so many seconds.
WAITS, LONGEST_WAIT = ("records.jsonl", "leaderboard.csv", "run.json", ".claim-", ""), 0.6
PROBLEMS = ("exit codes", "lost", "wrong", "left over", "leaderboard")


def add_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("--processes", type=int, default=8, help="processes at once (8)")
    part.add_argument("--rounds", type=int, default=30, help="how often (30)")


def cast(processes: int) -> list[list[str]]:
    """Return the commands of a round."""
    score = cycle(SCORES)
    plays = cycle(["same", "same", "other", "bench", "score", "score", "score", "leaderboard"])
    others = iter(range(6, 1000))
    commands = []
    for play in islice(plays, processes):
        if play in ("same", "other"):
            commands.append([*NEW, "--seeds", "5" if play == "same" else str(next(others))])
        elif play == "bench":
            commands.append([*bars.BENCH, "--out", "results"])
        elif play == "score":
            commands.append(["evaluate", "results", "--metrics", next(score), *bars.PLUGINS])
        else:
            commands.append(["leaderboard", "results", "--format", "csv", *bars.PLUGINS])
    return commands


def show(options, scratch: Path) -> int:
    prepare()
    commands = cast(options.processes)
    finished, reference = scratch / "finished", scratch / "reference"
    let_go(FINISHED, bars.furnish(finished), scratch)
    shutil.copytree(finished, reference)
    for command in sorted(
        commands, key=lambda command: ["run", "bench", "evaluate", "leaderboard"].index(command[0])
    ):
        let_go(command, reference, scratch)
    counts: Counter = Counter()
    with Bar("rounds", options.rounds) as bar:
        for number in range(options.rounds):
            draw = random.Random(f"{options.seed} {number}")
            folder = scratch / f"round{number}"
            shutil.copytree(finished, folder)
            order = draw.sample(commands, len(commands))
            waits = WAITS[number // 2 % len(WAITS)] if number % 2 else None
            problems = play(order, folder, scratch, waits, draw)
            problems += compare(reference, folder, finished, order)
            problems += compare_leaderboard(folder, scratch)
            counts.update(kind for kind, _ in problems)
            for kind, text in problems:
                print(f"round {number}{' (with waits)' * (number % 2)}: {kind}: {text}", flush=True)
            if problems and options.out is not None:
                shutil.copytree(folder, options.out / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
            bar.update(number + 1)
    cells = (options.rounds, options.processes, *(counts[kind] for kind in PROBLEMS))
    print_table([("rounds", "processes", *PROBLEMS), tuple(map(str, cells))])
    return int(bool(counts))


def let_go(arguments: list[str], folder: Path, scratch: Path) -> Command:
    """Do a command alone."""
    command = Command(arguments, folder, scratch / "log", environment=bars.places(scratch))
    check_done(command, SECONDS)
    return command


def play(
    commands: list[list[str]], folder: Path, scratch: Path, waits: str | None, draw: random.Random
) -> list[tuple[str, str]]:
    """Start all commands at the same moment; return what is wrong with how they end.

    Parameters
    ----------
    waits : what the names of files hold before whose change each process waits; None if none waits.
    draw : decides how long.
    """
    moment = time.monotonic() + 0.1 + 0.03 * len(commands)

    def start(number: int, arguments: list[str]) -> Command:
        own = random.Random(draw.random())

        def then(change: int, path: str) -> None:
            if waits in path:
                time.sleep(own.random() ** (1 if waits else 9) * LONGEST_WAIT)

        def before() -> None:
            if waits is not None:
                Changes(folder, then)
            time.sleep(max(0, moment - time.monotonic()))

        log = scratch / f"log{number}"
        return Command(arguments, folder, log, before=before, environment=bars.places(scratch))

    started = [start(number, arguments) for number, arguments in enumerate(commands)]
    problems = []
    for command in started:
        if not command.wait(SECONDS):
            os.kill(command.pid, signal.SIGKILL)
            command.wait(SECONDS)
        if problem := command.wrong_ending(None):
            last = "".join(f"\n    {line}" for line in command.messages().splitlines()[-3:])
            problems.append(("exit codes", f"{' '.join(command.arguments)}: {problem}{last}"))
    if left := reap(0):
        problems.append(("left over", f"{left} processes"))
    return problems


def compare(
    reference: Path, folder: Path, finished: Path, commands: list[list[str]]
) -> list[tuple[str, str]]:
    """Return what is lost, wrong or left over in a folder, beside one whose commands ran one after the other.

    Which scores of new runs are computed depends on who was first; those of finished runs do not.
    """
    problems = [("left over", name) for name in contents.left_over(folder)]
    expected, found = contents.names(reference), contents.names(folder)
    problems += [("lost", name) for name in sorted(expected - found)]
    problems += [
        ("left over", name) for name in sorted(found - expected) if ("left over", name) not in problems
    ]
    alone, here = (contents.last_records(path / "results") for path in (reference, folder))
    asked = {"mig"}
    before = contents.last_records(finished / "results")
    scored = {command[3] for command in commands if command[0] == "evaluate"}
    for digest, record in alone.items():
        if digest not in here:
            problems.append(("lost", f"record of {digest}"))
            continue
        scores = here[digest]["scores"]
        needed = asked | scored if digest in before else asked
        problems += [("lost", f"{name} of {digest}") for name in sorted(needed - scores.keys())]
        problems += [
            ("wrong", f"{name} of {digest}") for name in scores if scores[name] != record["scores"].get(name)
        ]
        run_json = folder / "results" / here[digest]["folder"] / "run.json"
        if contents.as_read(run_json) != {**here[digest], "check": None}:
            problems.append(("wrong", f"run.json of {digest} is not its record"))
    ends: dict[str, set[str]] = {}
    for record in contents.lines_of(folder / "results"):
        if not record:
            problems.append(("wrong", "a damaged line in records.jsonl"))
            continue
        ends.setdefault(record["digest"], set()).add(record["environment"]["finished"])
    problems += [
        ("wrong", f"{digest} was done {len(end)} times") for digest, end in ends.items() if len(end) > 1
    ]
    for path in sorted((reference / "results").rglob("*")):
        name = path.relative_to(reference).as_posix()
        is_compared = path.suffix in (".safetensors", ".png") or path.name == "history.csv"
        if is_compared and name in found and contents.content(path) != contents.content(folder / name):
            problems.append(("wrong", name))
    return problems


def compare_leaderboard(folder: Path, scratch: Path) -> list[tuple[str, str]]:
    """Return whether leaderboard.csv is what `dislab leaderboard` prints now."""
    printed = let_go(["leaderboard", "--format", "csv", *bars.PLUGINS], folder, scratch).printed.read_text()
    written = (folder / "results" / "leaderboard.csv").read_text()
    return [] if printed == written else [("leaderboard", "leaderboard.csv is not what the records hold")]
