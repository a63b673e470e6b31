"""What a user sees while runs are done: one progress bar and one estimate of the time left."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from dislab.progress import Bar, clock, say
from dislab.runs.config import RunConfig
from dislab.runs.machine import Machine

TRAINING = "training"  # begins the title of the progress of training
SHARE = 0.9  # of a run that its training is taken for, in the bar; encoding and scoring follow


class Display:
    """The progress of several runs, as a context manager. A single run shows the bars of its own steps.

    Parameters
    ----------
    configs : all runs that were asked for.
    todo : those of them that are done now.
    records : by digest, of runs that are finished; they tell how long a run takes.
    machine : where they are done.
    share : runs at a time and threads of each, None for one after the other in this process.
    """

    def __init__(
        self,
        configs: Collection[RunConfig],
        todo: Sequence[RunConfig],
        records: Mapping[str, Mapping],
        machine: Machine,
        share: tuple[int, int] | None,
    ):
        self.names = {config.digest: str(config) for config in configs}
        self.number, self.ended = len(self.names), len(self.names) - len(todo)
        self.is_joint = len(todo) > 1 or share is not None  # one bar stands for all runs
        self.quiet = machine.quiet
        jobs, threads = share or (1, 0)
        self.estimate = Estimate(todo, records, jobs)
        if self.ended:
            say(
                f"{self.ended} of {self.number} run(s) finished before (another --out trains them again)",
                self.quiet,
            )
        if share and todo:
            at_a_time = min(jobs, len(todo))
            say(f"{len(todo)} run(s) to do, {at_a_time} at a time, {threads} thread(s) each", self.quiet)
        self.bar = Bar(
            "runs", self.number, start=self.ended, quiet=self.quiet or not self.is_joint or not todo
        )

    def __enter__(self) -> Display:
        self.bar.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.bar.__exit__(*error)

    def hear(self, digest: str, title: str, done: int, total: int, note: str) -> None:
        """Show how far a run is in what it does at present."""
        self.estimate.hear(digest, title, done, total)
        what = f"{self.names[digest]}: {title} {done:,}/{total:,}"
        self.bar.show(self.ended + self.estimate.fraction(), what, self.estimate.left())

    def end(self, outcome) -> None:
        """Show that a run has ended."""
        self.estimate.end(outcome.digest, outcome.record)
        self.ended += 1
        name, left = self.names[outcome.digest], self.estimate.left()
        if outcome.failure:
            say(f"failed: {name}: {outcome.failure}", self.quiet or not self.is_joint)
        elif self.is_joint:
            goes_on = left is not None and self.ended < self.number
            words = f", about {clock(left)} left" if goes_on else ""
            say(f"run {self.ended} of {self.number} done{words}: {name}", self.quiet)
        self.bar.show(self.ended + self.estimate.fraction(), name, left)


class Estimate:
    """How long the rest of several runs takes.

    A run takes as long as finished runs that are most like it. Until one is finished it takes as long as the
    speed of its training says.

    Parameters
    ----------
    configs : the runs to do, in their order.
    records : by digest, of runs that are finished.
    jobs : runs at a time.
    """

    def __init__(self, configs: Iterable[RunConfig], records: Mapping[str, Mapping], jobs: int):
        self.kinds = {config.digest: kind_of(config) for config in configs}  # of those that are not ended
        self.jobs = jobs
        self.durations = [
            (kind_of(RunConfig.from_json(record)), seconds_of(record)) for record in records.values()
        ]
        self.began: dict[str, float] = {}  # when a run was first heard of
        self.first: dict[str, tuple[float, float]] = {}  # when its training was, and how far it was then
        self.share: dict[str, float] = {}  # of its training that is done

    def hear(self, digest: str, title: str, done: int, total: int) -> None:
        """Note how far a run is."""
        now = time.monotonic()
        self.began.setdefault(digest, now)
        if title.startswith(TRAINING):
            self.first.setdefault(digest, (now, done / total))
            self.share[digest] = done / total

    def end(self, digest: str, record: Mapping | None) -> None:
        """Note that a run has ended; its record tells how long it took."""
        kind = self.kinds.pop(digest, None)
        self.share.pop(digest, None)
        if record is not None and kind is not None:
            self.durations.append((kind, seconds_of(record)))

    def fraction(self) -> float:
        """Return how much of the runs that have begun is done, in runs."""
        return SHARE * sum(self.share.values())

    def left(self) -> float | None:
        """Return the seconds until all runs are done, or None where nothing tells."""
        known = list(self.durations)
        going = {}
        now = time.monotonic()
        for digest, began in self.began.items():
            if digest not in self.kinds:
                continue
            if self.durations:
                going[digest] = expected_seconds(self.kinds[digest], self.durations) - (now - began)
            elif digest in self.first and self.share[digest] > self.first[digest][1]:
                since, share = self.first[digest]
                speed = (self.share[digest] - share) / max(now - since, 1e-9)
                going[digest] = (1 - self.share[digest]) / speed
                known.append((self.kinds[digest], 1 / speed))
        if self.kinds and not known:
            return None
        return seconds_of_several(
            (
                going[digest] if digest in going else expected_seconds(kind, known)
                for digest, kind in self.kinds.items()
            ),
            self.jobs,
        )


def kind_of(config: RunConfig) -> tuple:
    """Return what decides how long a run takes, what matters most first."""
    return (config.protocol.steps > 0, config.model, config.dataset, config.protocol.steps)


def seconds_of(record: Mapping) -> float:
    """Return the seconds of training, encoding and scoring, also of the time before an interruption."""
    return sum(record["timings"][name] for name in ("train_seconds", "encode_seconds", "score_seconds"))


def expected_seconds(kind: tuple, durations: Sequence[tuple[tuple, float]]) -> float:
    """Return how long a run takes, if as long as the mean of those most like it.

    Parameters
    ----------
    kind : see `kind_of`.
    durations : (kind, seconds) of other runs, at least one.
    """
    for shared in range(len(kind), -1, -1):
        alike = [seconds for other, seconds in durations if other[:shared] == kind[:shared]]
        if alike:
            return sum(alike) / len(alike)
    raise ValueError("there is no duration of any run")


def seconds_of_several(expected: Iterable[float], jobs: int) -> float:
    """Return how long runs of these durations take, begun in their order, `jobs` at a time."""
    ends = [0.0] * jobs
    for seconds in expected:
        heapq.heapreplace(ends, ends[0] + max(0.0, seconds))
    return max(ends)
