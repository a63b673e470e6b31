"""Results folders that were damaged: the damaged run is named in one line, and the others go on."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from dislab.benchmarks.robustness import bars, contents
from dislab.benchmarks.robustness.cases.case import (
    DAMAGES,
    DONE,
    FAILED,
    REFUSED,
    REPLACEMENTS,
    Case,
    damage,
    words,
)
from dislab.benchmarks.robustness.cases.texts import mutated

SEEDS = (0, 1, 2)
# The runs that a results folder has; another, seed 9, was interrupted and has a checkpoint.
MAKE = ["run", "--model", "vae", "--steps", "50", *bars.SMALL, "--jobs", "1"]
INTERRUPTED = 9
COMMANDS = {
    "leaderboard": ["leaderboard", "results", "--format", "csv", *bars.PLUGINS],
    "evaluate": ["evaluate", "results", "--metrics", "sap", *bars.PLUGINS],
    "evaluate a run": ["evaluate", "RUN", "--metrics", "sap", *bars.PLUGINS],
    "run again": [*MAKE, "--seeds", "0-2"],
    "run": [*MAKE, "--seeds", "9"],
    "score": [*MAKE, "--metrics", "mig,irs", "--seeds", "0-2"],
}
FILES = {
    "run.json": ("leaderboard", "evaluate", "evaluate a run", "run again", "score"),
    "codes.safetensors": ("evaluate", "evaluate a run", "score", "leaderboard"),
    "model.safetensors": ("leaderboard", "evaluate", "run again"),
    "history.csv": ("leaderboard", "evaluate", "run again"),
    "records.jsonl": ("leaderboard", "evaluate", "evaluate a run", "run again", "run", "score"),
    "checkpoint.safetensors": ("run",),
    "leaderboard.csv": ("evaluate", "run"),
}
READ = {  # the files that a command must have noticed
    "leaderboard": ("records.jsonl",),
    "evaluate": ("records.jsonl", "codes.safetensors"),
}


def runs_of(folder: Path) -> list[Path]:
    return sorted(
        path for path in (folder / "results").glob("*/*/*/seed?") if path.name != f"seed{INTERRUPTED}"
    )


def results(draw: random.Random, number: int) -> Case:
    """A damaged file of a results folder, and each command that reads it."""
    pairs = [(name, command) for name, commands in FILES.items() for command in commands]
    name, command = pairs[number % len(pairs)]
    is_json = name in ("run.json", "records.jsonl")
    how = "a tree" if is_json and draw.random() < 0.4 else draw.choice((*DAMAGES, *DAMAGES, *REPLACEMENTS))
    seed = draw.choice(SEEDS)
    notes: list[str] = []

    def path_of(folder: Path) -> Path:
        if name in ("records.jsonl", "leaderboard.csv"):
            return folder / "results" / name
        [run] = (folder / "results").glob(
            f"*/*/*/seed{INTERRUPTED if name.startswith('checkpoint') else seed}"
        )
        return run / name

    def prepare(folder: Path) -> None:
        path = path_of(folder)
        if how != "a tree":
            damage(path, how, draw)
            return
        lines = path.read_text().splitlines() if name == "records.jsonl" else [path.read_text()]
        tree, about = mutated(json.loads(lines[seed % len(lines)]), draw)
        notes.append(about)
        lines[seed % len(lines)] = json.dumps(tree)
        path.unlink()
        path.write_text("\n".join(lines) + "\n")

    arguments = [f"RUN{seed}" if word == "RUN" else word for word in COMMANDS[command]]

    def check(folder: Path, code: int, printed: str, messages: str) -> str:
        return checked(folder, code, printed, name, command, seed) or ""

    # The exit code is 1 where a run is damaged, and the rest is done.
    expect = (
        (DONE, FAILED, REFUSED) if command == "evaluate a run" or name == "records.jsonl" else (DONE, FAILED)
    )
    if name == "leaderboard.csv":
        expect = (DONE, FAILED, REFUSED)  # a file that dislab did not write is not replaced
    return Case(
        arguments,
        expect,
        prepare,
        f"{name} of seed {seed}: {words(how)}; {command}",
        needs_runs=True,
        check=check,
    )


def remember(folder: Path, runs: Path) -> None:
    """Write the scores of each seed beside the runs."""
    scores = {
        str(record["config"]["seed"]): record["scores"]
        for record in contents.last_records(folder / "results").values()
    }
    (runs / "expected.json").write_text(json.dumps(scores))


def with_row(arguments: list[str], folder: Path) -> list[str]:
    """Return arguments with the folder of a run in place of RUN and its seed."""
    return [
        str(next((folder / "results").glob(f"*/*/*/seed{word[3:]}")).relative_to(folder))
        if word in ("RUN0", "RUN1", "RUN2")
        else word
        for word in arguments
    ]


def checked(folder: Path, code: int, printed: str, name: str, command: str, seed: int) -> str:
    """Return what is wrong with the results after a command, "" if nothing is."""
    expected = json.loads((folder / "expected.json").read_text())
    if command == "leaderboard" and code in (DONE, FAILED) and printed:
        rows = list(csv.DictReader(printed.splitlines()))
        count = sum(int(row["n"]) for row in rows)
        if code == DONE and count != len(SEEDS):
            return f"exit code 0, but the leaderboard has {count} of {len(SEEDS)} runs"
        for row in rows:
            seeds = row["seeds"].split()
            right = [expected[one]["mig"] for one in seeds if one in expected]
            if len(right) != len(seeds) or abs(float(row["mig_mean"]) - sum(right) / len(right)) > 1e-5:
                return f"the leaderboard shows mig {row['mig_mean']} of seeds {row['seeds']}: silently wrong"
    try:
        records = contents.last_records(folder / "results")
    except OSError:
        return ""
    if name == "records.jsonl":
        return ""
    have = {}
    for record in records.values():
        of_seed = str(record["config"]["seed"])
        for score, value in record["scores"].items():
            if expected[of_seed].get(score) != value:
                return f"{score} of seed {of_seed} is recorded as {value}, not {expected[of_seed].get(score)}"
        have[of_seed] = record["scores"].keys()
    wanted = {"evaluate": "sap", "score": "irs"}.get(command)
    lacking = [one for one in map(str, SEEDS) if wanted and wanted not in have.get(one, ())]
    if lacking and code == DONE:
        return f"exit code 0, but {wanted} of seed {', '.join(lacking)} is missing"
    if others := [one for one in lacking if one != str(seed)]:
        return f"{wanted} of the whole runs of seed {', '.join(others)} is missing"
    if command == "run" and code == DONE and str(INTERRUPTED) not in have:
        return "exit code 0, but the run is missing"
    return ""
