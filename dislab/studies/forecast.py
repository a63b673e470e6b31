"""What a study would do: how many runs, how long they take, and how much disk they need."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from dislab.progress import clock
from dislab.runs.config import RunConfig
from dislab.runs.display import Durations, duration_of, kind_of
from dislab.runs.execute import recorded
from dislab.runs.finished import Run
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.studies.file import Study
from dislab.studies.study import plan, share_of

SIZED = 10  # runs of a kind whose files are measured


def forecast(study: Study, machine: Machine, share: tuple[int, int] = (1, 1)) -> list[tuple[str, ...]]:
    """Return the lines of a table of what a study, or a share of it, would do now. Nothing is written.

    Hours and disk are those of finished runs in the results folder of the same model, dataset and number of
    steps.

    Raises
    ------
    DislabError : as `plan` does.
    """
    whole = plan(study, machine)
    configs = share_of(whole, share)
    results, todo = Results(machine.out), dict(configs)
    seconds, bytes_, measured, counts = Durations(), Durations(), Counter(), Counter()
    for run, lacks in recorded(results, configs):
        kind, duration = duration_of(run.record)
        seconds.add(kind, duration)
        if measured[kind] < SIZED and run.path.is_dir():
            bytes_.add(kind, size_of(run))
            measured[kind] += 1
        state = "done" if not lacks else "to score" if run.path.is_dir() else "gone"
        counts[state] += 1
        del todo[run.record["digest"]]
    others = (digest for digest in results.lines.digests() if digest not in configs)
    for kind, duration in map(duration_of, results.lines.records(others)):
        seconds.add(kind, duration)
    of_study = "" if len(configs) == len(whole) else f"share {share[0]} of {share[1]} of {len(whole):,} runs"
    lines = [
        ("runs", f"{len(configs):,}", of_study),
        ("done", f"{counts['done']:,}", ""),
        ("to score", f"{counts['to score']:,}", "they lack scores; nothing is trained"),
        ("skipped", f"{counts['gone']:,}", "they lack scores, and their folders are gone"),
        ("to do", f"{len(todo):,}", ""),
    ]
    return [("", "number", ""), *lines, *_costs(todo, seconds, bytes_, machine)]


def _costs(
    todo: Mapping[str, RunConfig], seconds: Durations, bytes_: Durations, machine: Machine
) -> list[tuple[str, ...]]:
    """Return the lines of the hours and of the disk that runs need."""
    kinds = Counter(kind_of(config.to_json()) for config in todo.values())
    times, sizes = (
        {kind: each.mean(kind) for kind in kinds if kind in each.sums} for each in (seconds, bytes_)
    )
    took = sum(times[kind] * number for kind, number in kinds.items() if kind in times)
    room = sum(sizes[kind] * number for kind, number in kinds.items() if kind in sizes)
    untimed, unsized = (sum(n for kind, n in kinds.items() if kind not in of) for of in (times, sizes))
    jobs, _ = machine.share(len(todo)) or (1, 1)
    here = "" if machine.on or not times else f"; {clock(took / jobs)} here, {jobs} at a time"
    free = shutil.disk_usage(next(p for p in (Path(machine.out).absolute() / "x").parents if p.exists())).free
    return [
        ("hours", f"{took / 3600:,.1f}" if times or not todo else "?", f"{_without(untimed)}{here}"),
        (
            "GB",
            f"{room / 1e9:,.1f}" if sizes or not todo else "?",
            f"{_without(unsized)}; {free / 1e9:,.1f} are free",
        ),
    ]


def _without(number: int) -> str:
    if number == 0:
        return "as finished runs of the same model, dataset and steps"
    return f"without {number:,} runs of whose model, dataset and steps none is finished"


def size_of(run: Run) -> int:
    """Return the bytes of a run's files."""
    names = itertools.chain(run.record["files"], ["run.json"])
    return sum(path.stat().st_size for path in map(run.path.joinpath, names) if path.is_file())
