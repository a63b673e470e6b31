"""Worker processes: several runs at a time, each with torch threads of its own.

Small models leave most of a second thread idle: two processes of one thread each were measured to train 1.7
times as many of them as one process of two threads.

A worker is a fresh Python that takes one run after the other from its parent over a socket. When the socket
closes, because the parent was interrupted, killed or is done, a worker that is training saves its checkpoint
between two steps and ends; so no run trains on without a parent, and all of them resume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import SimpleQueue

from dislab import registry
from dislab.errors import DislabError
from dislab.progress import heard_by

# A quick run was measured to take 0.9 GB at its peak. Scores of all rows of a full grid, other models and
# metrics take more, and a process that the kernel kills for memory loses its run.
BYTES_PER_RUN = 3 * 2**30
# After which a worker that does not stop is killed: a step and its checkpoint take seconds, but numpy and
# scikit-learn hear of an interruption only between two of their calls.
SECONDS_TO_STOP = 60


@dataclass(frozen=True)
class Answer:
    """What became of a task: the folder of its finished run, or in one line why there is none."""

    task: int
    path: Path | None = None
    failure: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a task is in what its run does at present, see `dislab.progress.Bar`."""

    task: int
    title: str
    done: int
    total: int


def cores() -> int:
    """CPU cores that this process may use: those of its affinity, at most its container's share of time."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return number if quota == "max" else min(number, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return number


def given_threads() -> int | None:
    """The threads that the user asks for by OMP_NUM_THREADS, None where there is no such number."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def usual_jobs(device: str) -> int:
    """How many runs go at a time where the user does not say: on the CPU one for every core, or for every
    OMP_NUM_THREADS cores; on a GPU, which a run has for itself, one; and one on Windows, whose processes
    cannot be handed a socket."""
    return max(1, cores() // (given_threads() or 1)) if device == "cpu" and os.name == "posix" else 1


def room_for_runs(memory: str = "MemAvailable") -> int:
    """How many runs a memory of /proc/meminfo has room for, at least one; one where there is no such file."""
    sizes = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{memory}:"):
                sizes.append(int(line.split()[1]) * 1024)
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's; or "max"
    except (OSError, ValueError):
        pass
    return max(1, min(sizes) // BYTES_PER_RUN) if sizes else 1


def shared(jobs: int | None, number: int, device: str) -> tuple[int, int] | None:
    """How runs share the machine: worker processes at a time and the torch threads of each, or None where
    this process does them itself, one after the other.

    Parameters
    ----------
    jobs : runs at a time, as the user says. With more than 1 each is done in a process of its own with
        OMP_NUM_THREADS threads, else its share of the cores. None is what `usual_jobs` says, or as many as
        the memory has room for.
    number : of the runs, also those that are finished.

    Raises
    ------
    DislabError : there can be no such number of jobs.
    """
    if jobs is not None and jobs < 1:
        raise DislabError(f"jobs is {jobs}: it must be 1 or more")
    at_a_time = jobs
    if jobs is None:
        # (The threads of a run, and so its last digits, do not depend on the memory that is free now.)
        jobs = min(usual_jobs(device), number, room_for_runs("MemTotal"))
        at_a_time = min(jobs, room_for_runs())
    return None if jobs <= 1 else (at_a_time, given_threads() or max(1, cores() // jobs))


def in_words(number: int, jobs: int, threads: int) -> str:
    """What is about to be done."""
    return f"{number} run(s) to do, {min(jobs, number)} at a time, {threads} thread(s) each"


def check_known_elsewhere(model: str, dataset: str, metrics: Iterable[str]) -> None:
    """Raise DislabError where another process would not know these names."""
    from dislab.data.own import is_folder_text

    named = [(registry.MODELS, model), (registry.DATASETS, dataset)]
    named += [(registry.METRICS, metric) for metric in metrics]
    for names, name in named:
        if not is_folder_text(name) and not names.is_found_anew(name):
            raise DislabError(
                f"the {names.kind} '{name}' is registered by the running program, which other processes "
                "do not read: put it in a file for dislab.load_plugin (--plugin), or choose jobs=1"
            )


class _Worker:
    """A worker process as its parent sees it; `task` is the index of what it does, None where it waits."""

    def __init__(self, threads: int):
        self.task: int | None = None
        self.connection, there = Pipe()
        code = "import sys; sys.path[:] = {!r}; from dislab.runs.workers import work; work({})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code.format(sys.path, there.fileno())],
            # BLAS and torch read it when they are imported.
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a plug-in prints is no output of the study
            pass_fds=[there.fileno()],
            process_group=0,  # Ctrl-C in a terminal reaches the parent alone, which then ends its workers
        )
        there.close()

    def begin(self, index: int, task: Mapping) -> None:
        self.task = index
        with suppress(OSError):  # it has ended: `receive` says so
            self.connection.send((registry.plugin_files, task))

    def receive(self) -> Answer | Progress:
        """The answer to its task, or how far it is; of a process that ended, how it did."""
        try:
            kind, *values = self.connection.recv()
        except (EOFError, OSError):
            kind, values = Answer, (None, f"its process ended by {_how(self.process.wait())}")
        received = kind(self.task, *values)
        if kind is Answer:
            self.task = None
        return received


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    reason = " (mostly for want of memory: fewer --jobs need less)" if code == -signal.SIGKILL else ""
    return f"the signal {signal.Signals(-code).name}{reason}"


def run_tasks(
    tasks: Sequence[Mapping],
    jobs: int,
    threads: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Answer]:
    """Do tasks, several at a time, and answer each as it comes.

    Parameters
    ----------
    tasks : arguments of `dislab.run`, as plain values. Every dataset should have been opened before: what is
        drawn or decoded once is then in the cache, and no two workers do it at a time.
    jobs : worker processes at a time.
    threads : torch threads of each.
    on_progress : called with how far a task is.

    Whatever ends the iteration early ends the workers, those that train with their checkpoints saved.
    """
    waiting = deque(enumerate(tasks))
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.task is not None for worker in workers):
            workers = [
                worker for worker in workers if worker.task is not None or worker.process.poll() is None
            ]
            idle = sum(worker.task is None for worker in workers)
            for _ in range(min(jobs - len(workers), len(waiting) - idle)):
                workers.append(_Worker(threads))
            for worker in workers:
                if waiting and worker.task is None:
                    worker.begin(*waiting.popleft())
            for connection in wait([worker.connection for worker in workers if worker.task is not None]):
                received = next(worker for worker in workers if worker.connection is connection).receive()
                if isinstance(received, Answer):
                    yield received
                else:
                    on_progress(received)
    finally:
        _stop(workers)


def _stop(workers: Sequence[_Worker]) -> None:
    try:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.process.wait(SECONDS_TO_STOP + 10)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where Ctrl-C is pressed again
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def work(handle: int) -> None:
    """Do the tasks that come over a socket, one at a time, until it closes: the main program of a worker."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    connection = Connection(handle)
    tasks: SimpleQueue = SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                task = connection.recv()
                busy.set()
                tasks.put(task)
        tasks.put(None)
        if busy.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(SECONDS_TO_STOP)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()

    def tell(*progress) -> None:
        with suppress(OSError):  # the parent has ended: `listen` sees to it
            connection.send((Progress, *progress))

    with suppress(KeyboardInterrupt, OSError), heard_by(tell):
        while (task := tasks.get()) is not None:
            answer = _do(*task)
            busy.clear()
            connection.send((Answer, *answer))


def _do(plugins: Sequence[Path], task: Mapping) -> tuple[Path | None, str]:
    """The folder of the finished run that a task asks for, and a line that says why there is none."""
    try:
        _load_plugins(tuple(plugins))
        from dislab.runs import run as runs

        place = (task["dataset"], task["source"], task["data_dir"], task["device"])
        return runs.run(**task | {"dataset": _open(*place)}).path, ""
    except Exception as error:  # whatever it is, the other runs go on
        return None, in_one_line(error)


@lru_cache(maxsize=1)
def _load_plugins(plugins: tuple[Path, ...]) -> None:
    for path in plugins:
        registry.load_plugin(path)


@lru_cache(maxsize=1)  # the runs of one dataset follow one another
def _open(dataset: str, source: str, data_dir, device: str):
    from dislab.runs import run as runs

    return runs.open_dataset(dataset, source, data_dir, device, True)


def in_one_line(error: Exception) -> str:
    """What went wrong, as one line."""
    cause = str(error) if isinstance(error, DislabError) else f"{type(error).__name__}: {error}"
    return " ".join(cause.split())
