"""Stop commands at random moments: nothing may be lost, wrong or left over.

A story is a command that is stopped once or several times, and then left alone. What it leaves is held
against what the same command leaves undisturbed: names of all files, every score, loss history, code file,
picture and table, bit for bit but for times. More than a fourth of the processes are new Pythons, the others
are children of this one. Half of the moments are random times, the others lie between two changes of files.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dislab.benchmarks.robustness import bars, contents
from dislab.benchmarks.robustness.commands import SECONDS_OF_PYTHON, Command, check_done, prepare, reap
from dislab.benchmarks.robustness.moments import Changes
from dislab.cli.tables import print_table
from dislab.progress import Bar

COMMANDS = {"run": bars.RUN, "seeds": bars.SEEDS, "bench": bars.BENCH, "evaluate": bars.EVALUATE}
SIGNALS = {signal.SIGKILL: 6, signal.SIGTERM: 2, signal.SIGINT: 2, signal.SIGHUP: 1}  # how often each
TARGETS = {"command": 6, "all": 3, "worker": 2}
KILLS_OF_A_STORY = 3  # on average
SECONDS = 120  # that a command may take
SECONDS_OF_ORPHANS = 20  # that workers whose parent was killed may take to end
PROBLEMS = ("wrong", "lost", "left over", "tracebacks", "endings")


@dataclass
class Reference:
    """What an undisturbed command leaves, and what it takes."""

    folder: Path
    seconds: float  # of a child
    real_seconds: float  # of a new Python
    changes: int  # of files, by the command
    changes_of_worker: int
    said: list[str]
    temporary: set[str]  # names below $TMPDIR


@dataclass
class Tally:
    """What was done to a command, and what went wrong."""

    kills: int = 0
    new_pythons: int = 0  # of these
    counts: Counter = field(default_factory=Counter)

    def add(self, kind: str, story: str, text: str) -> None:
        self.counts[kind] += 1
        print(f"{story}: {kind}: {text}", flush=True)


def add_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("--kills", type=int, default=200, help="how many processes are stopped (200)")
    part.add_argument("--commands", default=",".join(COMMANDS), help="names with commas")
    part.add_argument("--story", type=int, help="only the story of this number")


def show(options, scratch: Path) -> int:
    prepare()
    chosen = options.commands.split(",")
    references = {name: refer(name, scratch) for name in chosen}
    tallies = {name: Tally() for name in chosen}
    story = 0 if options.story is None else options.story
    with Bar("kills", options.kills) as bar:
        while sum(tally.kills for tally in tallies.values()) < options.kills:
            name = min(chosen, key=lambda name: tallies[name].kills)
            tell(name, references[name], tallies[name], story, options, scratch)
            story += 1
            if options.story is not None:
                break
            bar.update(min(options.kills, sum(tally.kills for tally in tallies.values())), name)
    return summarise(tallies)


def summarise(tallies: dict[str, Tally]) -> int:
    """Print the table; return the exit code."""
    lines = [
        [name, tally.kills, tally.new_pythons, *(tally.counts[kind] for kind in PROBLEMS)]
        for name, tally in tallies.items()
    ]
    totals = [sum(column) for column in list(zip(*lines, strict=True))[1:]]
    lines = [["command", "kills", "new Python", *PROBLEMS], *lines, ["all", *totals]]
    print_table([tuple(map(str, line)) for line in lines])
    return int(any(totals[2:]))


def begin(name: str, folder: Path, scratch: Path) -> Path:
    """Make the working folder of a command; `evaluate` finds two finished runs there."""
    bars.furnish(folder)
    if name == "evaluate":
        runs = scratch / "runs"
        if not runs.exists():
            bars.furnish(runs)
            check_done(Command(bars.SEEDS, runs, scratch / "log", environment=bars.places(scratch)), SECONDS)
        shutil.copytree(runs / "results", folder / "results")
    return folder


def refer(name: str, scratch: Path) -> Reference:
    """Let a command alone twice, as a child and as a new Python, and hold the one against the other."""
    folder, other = (begin(name, scratch / f"{name}-{way}", scratch) for way in ("child", "real"))
    log, counts = scratch / f"{name}.log", scratch / f"{name}.changes"
    counts.mkdir()

    def watch() -> None:
        Changes(folder, lambda number, path: (counts / f"{os.getpid()}").write_text(str(number)) and None)

    command = Command(COMMANDS[name], folder, log, before=watch, environment=bars.places(scratch))
    check_done(command, SECONDS)
    seconds, said = command.seconds, command.messages().splitlines()
    by_process = {int(path.name): int(path.read_text()) for path in counts.iterdir()}
    changes = by_process.pop(command.pid)
    command = Command(COMMANDS[name], other, log, real=True, environment=bars.places(scratch))
    check_done(command, SECONDS)
    problems = contents.compare(folder, other)
    if any(problems.values()):
        raise SystemExit(f"{name}: a child of this process and a new Python differ: {problems}")
    of_worker, temporary = max(by_process.values(), default=0), contents.names(scratch / "tmp")
    return Reference(folder, seconds, command.seconds, changes, of_worker, said, temporary)


def tell(name: str, reference: Reference, tally: Tally, story: int, options, scratch: Path) -> None:
    """Stop a command a few times, let it end, and compare."""
    draw = random.Random(f"{options.seed} {story}")
    folder = begin(name, scratch / f"story{story}", scratch)
    before, where = tally.counts.total(), f"story {story} ({name})"
    for _ in range(1 + min(6, int(draw.expovariate(1 / (KILLS_OF_A_STORY - 1))))):
        stop = Stop.draw(draw, name, reference)
        command = stop.carry_out(COMMANDS[name], folder, scratch)
        tally.kills += command.code != 0
        tally.new_pythons += command.code != 0 and stop.real
        note_ending(tally, f"{where}, {stop}", stop.wrong_ending(command, reference.said), command)
        if command.code == 0:
            break
        if draw.random() < 0.5:
            reap(SECONDS_OF_ORPHANS)
    else:
        command = Command(COMMANDS[name], folder, scratch / "story.log", environment=bars.places(scratch))
        if not command.wait(SECONDS):
            tally.add("endings", where, "hangs when it is let alone")
            os.kill(command.pid, signal.SIGKILL)
        note_ending(tally, f"{where}, let alone", command.wrong_ending(None), command)
    if left := reap(SECONDS_OF_ORPHANS):
        tally.add("left over", where, f"{left} processes")
    for kind, lines in contents.compare(reference.folder, folder).items():
        for line in lines:
            tally.add(kind, where, line)
    for line in contents.names(scratch / "tmp") - reference.temporary:
        tally.add("left over", where, f"$TMPDIR/{line}")
    if tally.counts.total() > before and options.out is not None:
        shutil.copytree(folder, options.out / folder.name, dirs_exist_ok=True)
    shutil.rmtree(folder)


def note_ending(tally: Tally, where: str, problem: str, command: Command) -> None:
    if problem:
        kind = "tracebacks" if problem == "traceback" else "endings"
        shown = 30 if kind == "tracebacks" else 3
        last = "".join(f"\n    {line}" for line in command.messages().splitlines()[-shown:])
        tally.add(kind, where, f"{problem}{last}")


@dataclass(frozen=True)
class Stop:
    """How a command is stopped.

    Attributes
    ----------
    number : of the signal.
    target : "command", "worker", or "all".
    real : whether the command is a new Python.
    seconds : when, after its start; None if it is stopped before a change of files.
    change : the number of that change in the process.
    """

    number: int
    target: str
    real: bool
    seconds: float | None
    change: int

    @classmethod
    def draw(cls, draw: random.Random, name: str, reference: Reference) -> Stop:
        number = draw.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        target = draw.choices(list(TARGETS), list(TARGETS.values()))[0] if name == "seeds" else "command"
        real, at_a_change, late = (draw.random() < part for part in (0.3, 0.5, 0.5))
        first = 0.0 if number == signal.SIGKILL else SECONDS_OF_PYTHON if real else 0.05
        seconds = max(
            first, draw.uniform(0.6 * late, 1.02) * (reference.real_seconds if real else reference.seconds)
        )
        if not real and at_a_change and target != "all":
            changes = reference.changes_of_worker if target == "worker" else reference.changes
            return cls(number, target, real, None, draw.randint(1, max(1, changes)))
        return cls(number, target, real, seconds, 0)

    def __str__(self) -> str:
        moment = f"before change {self.change}" if self.seconds is None else f"after {self.seconds:.2f} s"
        return f"{signal.Signals(self.number).name} to {self.target} {moment}{', real' if self.real else ''}"

    def carry_out(self, arguments: list[str], folder: Path, scratch: Path) -> Command:
        """Start a command, stop it, and wait until it has ended."""

        def watch() -> None:
            main = os.getpid()

            def then(number: int, path: str) -> None:
                if number == self.change and (os.getpid() == main) == (self.target == "command"):
                    os.kill(os.getpid(), self.number)

            Changes(folder, then)

        command = Command(
            arguments,
            folder,
            scratch / "story.log",
            real=self.real,
            before=watch if self.seconds is None else lambda: None,
            environment=bars.places(scratch),
        )
        if self.seconds is not None and not command.wait(self.seconds):
            first, *others = command.family()
            # A worker may not have begun: then nothing is stopped.
            targets = {"command": [first], "worker": others[-1:], "all": [first, *others]}
            for number in targets[self.target]:
                with suppress(ProcessLookupError):
                    os.kill(number, self.number)
        if not command.wait(SECONDS):
            os.kill(command.pid, signal.SIGKILL)
            command.wait(SECONDS)
        return command

    def wrong_ending(self, command: Command, said: list[str]) -> str:
        if command.seconds > SECONDS:
            return "hangs"
        if self.target == "worker":  # the command says that its run failed
            if command.code in (0, 1):
                return "traceback" if command.has_traceback() else ""
            return command.wrong_ending(None)
        return command.wrong_ending(self.number, said)
