"""What a user sees while runs are done: one progress bar and one estimate of the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dislab.progress import Bar, clock, say
from dislab.runs.config import RunConfig
from dislab.runs.machine import Machine

TRAINING = "training"  # begins the title of the progress of training
TRAINED = 0.9  # part of a run that its training is taken for in the bar; encoding and scoring follow


class Display:
    """The progress of several runs, as a context manager. A single run shows the bars of its own steps.

    Parameters
    ----------
    configs : all runs that were asked for.
    todo : those of them that are done now.
    durations : of runs that are finished, see `duration_of`.
    machine : where they are done.
    share : runs at a time and threads of each, None for one after the other in this process.
    """

    def __init__(
        self,
        configs: Collection[RunConfig],
        todo: Sequence[RunConfig],
        durations: Iterable[tuple[tuple, float]],
        machine: Machine,
        share: tuple[int, int] | None,
    ):
        self.configs = {config.digest: config for config in configs}
        self.number, self.ended = len(self.configs), len(self.configs) - len(todo)
        self.is_joint = len(todo) > 1 or share is not None  # one bar stands for all runs
        self.quiet = machine.quiet or not self.is_joint
        jobs, threads = share or (1, 0)
        self.estimate = Estimate(todo, () if self.quiet else durations, jobs)
        if share:
            at_a_time = min(jobs, len(todo))
            say(f"{len(todo)} run(s) to do, {at_a_time} at a time, {threads} thread(s) each", machine.quiet)
        self.bar = Bar("runs", self.number, start=self.ended, quiet=self.quiet)

    def __enter__(self) -> Display:
        if self.is_joint:
            self.bar.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self.is_joint:
            self.bar.__exit__(*error)

    def hear(self, digests: Sequence[str], title: str, done: int, total: int, note: str) -> None:
        """Show how far the runs of a task are in what they do at present."""
        if self.quiet:
            return
        self.estimate.hear(digests, title, done, total)
        left = self.estimate.left()
        if left is not None:  # else the bar would guess
            what = f"{title} {100 * done // max(1, total)}%: {self.configs[digests[0]]}"
            self.bar.show(self.ended + self.estimate.fraction(), what, left, whole=self.ended)

    def end(self, outcome) -> None:
        """Show that a run has ended."""
        self.ended += 1
        if self.quiet:
            return
        self.estimate.end(outcome.digest, outcome.record)
        config, left = self.configs[outcome.digest], self.estimate.left()
        if outcome.failure:
            say(f"failed: {config}: {outcome.failure}")
        else:
            goes_on = left is not None and self.ended < self.number
            words = f", about {clock(left)} left" if goes_on else ""
            say(f"run {self.ended} of {self.number} done{words}: {config}")
        self.bar.show(self.ended + self.estimate.fraction(), str(config), left, whole=self.ended)


class Estimate:
    """How long the rest of several runs takes.

    A run in training takes as long as its speed says. Another run takes as long as the mean of the runs that
    are most like it.

    Parameters
    ----------
    configs : the runs to do.
    durations : of runs that are finished, see `duration_of`.
    jobs : tasks at a time.
    """

    def __init__(self, configs: Iterable[RunConfig], durations: Iterable[tuple[tuple, float]], jobs: int):
        self.kinds = {config.digest: kind_of(config.to_json()) for config in configs}
        self.waiting = Counter(self.kinds.values())  # number of runs of each kind that have not begun
        self.jobs = jobs
        self.finished = Durations()
        self.going: dict[str, Going] = {}  # by the digest of each of its runs
        for kind, seconds in durations:
            self.finished.add(kind, seconds)

    def hear(self, digests: Sequence[str], title: str, done: int, total: int) -> None:
        """Note how far the runs of a task are."""
        now = time.monotonic()
        if digests[0] not in self.going:
            going = Going(self.kinds[digests[0]], len(digests), began=now)
            self.going |= dict.fromkeys(digests, going)
            self.waiting[going.kind] -= len(digests)
        if title.startswith(TRAINING):
            going = self.going[digests[0]]
            going.trained = done / total
            going.first = going.first or (now, going.trained)

    def end(self, digest: str, record: Mapping | None) -> None:
        """Note that a run has ended; its record tells how long it took."""
        if self.going.pop(digest, None) is None:
            self.waiting[self.kinds[digest]] -= 1
        if record is not None:
            self.finished.add(self.kinds[digest], seconds_of(record))

    def fraction(self) -> float:
        """Return how much of the runs that have begun is done, in runs."""
        return TRAINED * sum(going.trained for going in self.going.values())

    def left(self) -> float | None:
        """Return the seconds until all runs are done, or None where nothing tells."""
        now = time.monotonic()
        begun, durations = [], self.finished.copy()
        for going in {id(going): going for going in self.going.values()}.values():
            speed = going.speed(now)
            mean = self.finished.mean(going.kind)
            if speed is not None and going.trained < 1:
                begun.append((1 - going.trained) / speed)
                durations.add(going.kind, 1 / speed / going.number)
            elif mean is not None:
                begun.append(max(0.0, mean * going.number - (now - going.began)))
            else:
                return None
        waiting = 0.0
        for kind, number in self.waiting.items():
            if number:
                mean = durations.mean(kind)
                if mean is None:
                    return None
                waiting += number * mean
        return max([*begun, (sum(begun) + waiting) / self.jobs])


@dataclass
class Going:
    """The runs of a task that have begun.

    Attributes
    ----------
    kind, number : see `kind_of`, and how many runs are trained at once.
    began : when.
    trained : the part of the training that is done.
    first : when that was first heard, and what it was.
    """

    kind: tuple
    number: int
    began: float
    trained: float = 0.0
    first: tuple[float, float] | None = None

    def speed(self, now: float) -> float | None:
        """Return the part of the training that is done in a second, None where nothing tells."""
        if self.first is None or self.trained <= self.first[1]:
            return None
        return (self.trained - self.first[1]) / max(now - self.first[0], 1e-9)


class Durations:
    """The mean duration of the runs that are most like a kind."""

    def __init__(self, sums: Mapping[tuple, tuple[float, int]] = MappingProxyType({})):
        self.sums = dict(sums)  # first parts of a kind -> seconds in all, and number of runs

    def copy(self) -> Durations:
        return Durations(self.sums)

    def add(self, kind: tuple, seconds: float) -> None:
        """Count a run of this kind."""
        for shared in range(len(kind) + 1):
            before, runs = self.sums.get(kind[:shared], (0.0, 0))
            self.sums[kind[:shared]] = before + seconds, runs + 1

    def mean(self, kind: tuple) -> float | None:
        """Return the mean seconds of the runs that share the most parts of a kind; None without any run."""
        for shared in range(len(kind), -1, -1):
            if kind[:shared] in self.sums:
                seconds, runs = self.sums[kind[:shared]]
                return seconds / runs
        return None


def kind_of(config: Mapping) -> tuple:
    """Return what decides how long a run takes, what matters most first; of a configuration as JSON."""
    steps = config["protocol"]["steps"]
    return (steps > 0, config["model"], config["dataset"], steps)


def duration_of(record: Mapping) -> tuple[tuple, float]:
    """Return the kind of a finished run, and its seconds."""
    return kind_of(record["config"]), seconds_of(record)


def seconds_of(record: Mapping) -> float:
    """Return the seconds of training, encoding and scoring, also of the time before an interruption."""
    return sum(record["timings"][name] or 0 for name in ("train_seconds", "encode_seconds", "score_seconds"))
