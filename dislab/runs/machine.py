"""The machine that runs are carried out on: what does not change a result."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dislab.errors import DislabError
from dislab.files import FORMATS
from dislab.registry import unknown_name

# A quick run was measured to take 0.9 GB at its peak. Scores of all rows of a full grid, other models and
# metrics take more, and a process that the kernel kills for memory loses its run.
BYTES_PER_RUN = 3 * 2**30
MOST_JOBS = 1000  # processes on one machine


@dataclass(frozen=True)
class Machine:
    """Where and how runs are carried out.

    Attributes
    ----------
    device : "cpu", "cuda", …, as `Machine.here` has checked it.
    jobs : runs at a time; None takes the default number, see `share`.
    data_dir : folder of official dataset files; None takes the default, see `dislab.load_dataset`.
    out : the results folder.
    quiet : show no progress.
    log : names of the loggers that show loss terms elsewhere, see `dislab.training.loggers`.
    pictures : "svg" or "pdf" writes pictures and figures in this format, too, beside PNG; by default "png".
    """

    device: str = "cpu"
    jobs: int | None = 1
    data_dir: str | None = None
    out: str = "results"
    quiet: bool = True
    log: tuple[str, ...] = ()
    pictures: str = "png"

    @classmethod
    def here(
        cls,
        device=None,
        *,
        jobs: int | None = 1,
        data_dir=None,
        out="results",
        quiet: bool = True,
        log: Iterable[str] = (),
        pictures: str = "png",
    ) -> Machine:
        """Return the machine that this process runs on; `device` is by default CUDA where there is a GPU.

        Raises
        ------
        DislabError : the device cannot be used here, `jobs` is no number of processes, a logger is not
            known or not installed, or the format of pictures is not known.
        """
        from dislab.data.devices import choose_device
        from dislab.training.loggers import check_loggers

        if jobs is not None and not 1 <= jobs <= MOST_JOBS:
            bound = "1 or more" if jobs < 1 else f"{MOST_JOBS} or less"
            raise DislabError(f"jobs is {jobs}: it must be {bound}")
        if pictures not in FORMATS:
            raise unknown_name("format of pictures", pictures, FORMATS)
        directory = None if data_dir is None else str(data_dir)
        return cls(str(choose_device(device)), jobs, directory, str(out), quiet, check_loggers(log), pictures)

    def to_json(self) -> dict:
        """Return the machine as a dict that JSON can hold."""
        return asdict(self)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that pictures are written in; PNG is always one, for pages."""
        return tuple(dict.fromkeys(["png", self.pictures]))

    def share(self, number: int) -> tuple[int, int] | None:
        """Return how `number` runs share the machine: runs at a time, and the threads of each.

        None means that this process does them itself, one after the other. With several at a time each run
        has a process of its own, with OMP_NUM_THREADS threads or else its share of the cores. Where `jobs` is
        None there are as many as the cores allow, but no more than the memory has room for.
        """
        jobs, at_a_time = self.jobs, self.jobs
        if jobs is None:
            # The threads of a run, and so its last digits, must not depend on the memory that is free now.
            jobs = min(default_jobs(self.device), number, room_for_runs("MemTotal"))
            at_a_time = min(jobs, room_for_runs())
        return None if jobs <= 1 else (at_a_time, chosen_threads() or max(1, cores() // jobs))


def cores() -> int:
    """Return the CPU cores that this process may use: by its affinity and its container's share of time."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return number if quota == "max" else min(number, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return number


def chosen_threads() -> int | None:
    """Return the number of threads in OMP_NUM_THREADS, or None where it holds no such number."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def default_jobs(device: str) -> int:
    """Return the default number of parallel runs: one per core on a CPU, one on a GPU.

    Where OMP_NUM_THREADS is set, it is one for every so many cores.
    """
    return max(1, cores() // (chosen_threads() or 1)) if device == "cpu" else 1


def room_for_runs(memory: str = "MemAvailable") -> int:
    """Return how many runs fit into the memory that /proc/meminfo names so; 1 where there is no such file."""
    sizes = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{memory}:"):
                sizes.append(int(line.split()[1]) * 1024)
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's; or "max"
    except (OSError, ValueError):
        pass
    return max(1, min(sizes) // BYTES_PER_RUN) if sizes else 1
