"""The one executor: do runs, in this process or in several, and yield what became of each.

A backend is a function from tasks to outcomes: `here`, `in_workers` and, for clusters, `on_ray`. What passes
through it is JSON: a task is {"digests": […], "configs": […], "machine": {…}, "plugins": […]} with the
configurations of runs whose models are trained at once, and an outcome is `Outcome.to_json`.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

from dislab import registry, signals
from dislab.errors import DislabError
from dislab.progress import say
from dislab.runs.config import MEMORY, RunConfig, merge
from dislab.runs.display import Display, duration_of
from dislab.runs.finished import Run
from dislab.runs.machine import Machine
from dislab.runs.on_ray import connected, on_ray
from dislab.runs.perform import SECONDS_TO_STOP, Outcome, Tell, do_task, most_at_once
from dislab.runs.record import Results
from dislab.scoring.request import asked
from dislab.training.loggers import Callback

SECONDS_BETWEEN_LOOKS = 1.0  # at the runs that other processes do


def execute(
    configs: Iterable[RunConfig], machine: Machine, callbacks: Sequence[Callback] = ()
) -> Iterator[Outcome]:
    """Do runs and yield what became of each, as it comes; one outcome for each digest.

    A run that is finished is not done again; only scores and pictures that it lacks are made. A run that
    another process does is waited for, and taken over if that process dies. A run that fails does not stop
    the others. Whatever ends the iteration early leaves checkpoints from which the same call goes on.

    Parameters
    ----------
    configs : resolved configurations. Two of one digest are one run, with the scores that both ask for.
    machine : where and how they are done.
    callbacks : called with the loss terms of each run, in this process: none where there are workers.

    Raises
    ------
    DislabError : the results folder cannot be written to, or other processes lack what a run needs.
    """
    merged = merge(configs)
    results = Results(machine.out)
    left, durations = dict(merged), []
    for run, lacks in recorded(results, merged):
        digest = run.record["digest"]
        durations.append(duration_of(run.record))
        if not lacks and not run.missing_pictures(machine.formats_of_runs):
            failure = results.tidy([run]).get(digest, "")
        elif run.path.is_dir():
            continue
        else:
            failure = run.gone
        del left[digest]
        yield Outcome(digest, run.record, failure=failure)
    if len(left) < len(merged):
        number = f"{len(merged) - len(left)} of {len(merged)}"
        say(f"{number} run(s) finished before (another --out trains them again)", machine.quiet)
    if not left:
        return
    todo = list(left.values())
    # By all runs, not by those left: the threads of a run, and so its last digits, stay when it is resumed.
    share = machine.share(len(merged))
    if machine.on or share is not None:
        _check_known_elsewhere(todo)
    results.create()
    busy: list[RunConfig] = []  # executed by other processes
    others = (digest for digest in results.lines.digests() if digest not in merged)
    all_durations = itertools.chain(durations, map(duration_of, results.lines.records(others)))
    with ExitStack() as stack:
        if machine.on:
            share = stack.enter_context(connected(machine))
        display = stack.enter_context(Display(merged.values(), todo, all_durations, machine, share))
        while todo or busy:
            tasks = tasks_of(todo, replace(machine, quiet=machine.quiet or display.is_joint))
            if machine.on:
                backend = on_ray(tasks, display.hear, machine, *share)
            elif share is not None:
                backend = in_workers(tasks, display.hear, *share, machine.devices)
            else:
                backend = here(tasks, display.hear, callbacks)
            with closing(backend) as outcomes:
                for outcome in outcomes:
                    if outcome.busy:
                        busy.append(merged[outcome.digest])
                        say(f"waiting for another process that does {busy[-1]}", machine.quiet)
                        continue
                    display.end(outcome)
                    yield outcome
            todo, whole = [], {}
            for run, lacks in recorded(results, {config.digest: config for config in busy}):
                if not lacks:
                    whole[run.record["digest"]] = run.record
            for config in list(busy):
                if config.digest in whole:
                    busy.remove(config)
                    outcome = Outcome(config.digest, whole[config.digest])
                    display.end(outcome)
                    yield outcome
                elif results.claim(config.digest).is_free():  # that process failed, or died
                    busy.remove(config)
                    todo.append(config)
            if busy and not todo:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def recorded(results: Results, configs: Mapping[str, RunConfig]) -> Iterator[tuple[Run, bool]]:
    """Yield the finished runs of configurations, which are by digest, and whether they lack scores."""
    # Each request once: to look up the names of all its metrics takes longer than to read a record.
    wanted = {metrics: asked(metrics) for metrics in {config.metrics for config in configs.values()}}
    for record in results.lines.records(configs):
        run = results.run_of(record)
        yield run, run.lacks(wanted[configs[record["digest"]].metrics])


def tasks_of(configs: Sequence[RunConfig], machine: Machine) -> list[dict]:
    """Return the tasks of a backend: runs in their order, those together whose models are trained at once.

    On a GPU these are runs that follow one another and differ in the seed and in hyper-parameters that are
    floats.
    """

    def same(config: RunConfig) -> str:
        sizes = {name: v for name, v in config.hyperparameters.items() if not isinstance(v, float)}
        return json.dumps(replace(config, seed=0, hyperparameters=sizes).to_json())

    of_runs = replace(machine, device=machine.of_runs, devices=(), on="").to_json()
    tasks = []
    for _, alike in itertools.groupby(configs, same):
        alike = list(alike)
        most = most_at_once(alike, machine.of_runs)
        for begin in range(0, len(alike), most):
            together = alike[begin : begin + most]
            tasks.append(
                {
                    "digests": [config.digest for config in together],
                    "configs": [config.to_json() for config in together],
                    "machine": of_runs,
                    "plugins": [str(path) for path in registry.plugin_files],
                }
            )
    return tasks


def here(tasks: Sequence[Mapping], tell: Tell, callbacks: Sequence[Callback] = ()) -> Iterator[Outcome]:
    """Do tasks in this process, one after the other."""
    for task in tasks:
        yield from do_task(task, tell, callbacks)


# Worker processes ----------------------------------------------------------------------------------


class _Worker:
    """A worker process as its parent sees it; see dislab/runs/worker.py."""

    def __init__(self, threads: int, replies: queue.SimpleQueue, device: str | None):
        self.task: Mapping | None = None  # that it does
        self.device = device  # in place of the tasks' own
        with signals.blocked():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dislab.runs.worker"],
                # BLAS and torch read the number of threads when they are imported.
                env=os.environ
                | {
                    "OMP_NUM_THREADS": str(threads),
                    "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
            )
        threading.Thread(target=self._read, args=(replies,), daemon=True).start()

    def _read(self, replies: queue.SimpleQueue) -> None:
        with suppress(ValueError, OSError):  # closed by `stop`
            for line in self.process.stdout:
                replies.put((self, json.loads(line)))
        replies.put((self, None))

    def begin(self, task: Mapping) -> None:
        self.task = task if self.device is None else _moved(task, self.device)
        with suppress(OSError):  # it has ended: its reply says so
            print(json.dumps(self.task), file=self.process.stdin, flush=True)


def in_workers(
    tasks: Sequence[Mapping], tell: Tell, jobs: int, threads: int, devices: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Do tasks in worker processes, several at a time.

    Small models leave most of a second thread idle: two processes of one thread each were measured to train
    1.7 times as many of them as one process of two threads.

    Parameters
    ----------
    tasks : every dataset in them was opened before: what is drawn or decoded once is then in the cache.
    tell : called with the progress of a run.
    jobs : worker processes at a time.
    threads : torch threads of each.
    devices : those that the workers share; () for that of the tasks.

    Whatever ends the iteration early ends the workers; those that train save their checkpoints.
    """
    waiting, workers = deque(tasks), []
    replies: queue.SimpleQueue = queue.SimpleQueue()
    answered: set[str] = set()
    try:
        while waiting or any(worker.task for worker in workers):
            idle = [worker for worker in workers if worker.task is None and worker.process.poll() is None]
            while waiting and (idle or len(workers) < jobs):
                if not idle:
                    taken = [worker.device for worker in workers]
                    workers.append(_Worker(threads, replies, min(devices, key=taken.count, default=None)))
                    idle = workers[-1:]
                idle.pop().begin(waiting.popleft())
            worker, reply = replies.get()
            if reply is None:  # the process has ended
                workers.remove(worker)
                if worker.task is not None:
                    failure = f"its process ended by {_how(worker.process.wait())}"
                    for digest in worker.task["digests"]:
                        if digest not in answered:
                            yield Outcome(digest, failure=failure)
            elif "progress" in reply:
                tell(*reply["progress"])
            elif "outcome" in reply:
                answered.add(reply["outcome"]["digest"])
                yield Outcome(**reply["outcome"])
            else:
                worker.task = None
    finally:
        _stop(workers)


def _moved(task: Mapping, device: str) -> dict:
    """Return a task with another device."""
    return {**task, "machine": task["machine"] | {"device": device}}


def _how(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    reason = " (mostly for want of memory: fewer --jobs need less)" if code == -signal.SIGKILL else ""
    return f"the signal {signal.Signals(-code).name}{reason}"


def _stop(workers: Sequence[_Worker]) -> None:
    try:
        for worker in workers:
            with suppress(OSError):
                worker.process.stdin.close()
        for worker in workers:
            worker.process.wait(SECONDS_TO_STOP + 10)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where Ctrl-C is pressed again
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def _check_known_elsewhere(configs: Sequence[RunConfig]) -> None:
    """Raise DislabError if another process would not know the dataset, the model or a metric of a run."""
    if any(config.own_images == MEMORY for config in configs):
        raise DislabError("other processes cannot read a Dataset object: give its name, or choose jobs=1")
    networks = (str(config.hyperparameters.get("network")).partition("@")[0] for config in configs)
    requests = dict.fromkeys(config.metrics for config in configs)
    named = {  # each name once: a look-up reads the files of all packages that are installed
        registry.MODELS: [config.model for config in configs],
        registry.DATASETS: [config.dataset for config in configs if not config.own_images],
        registry.NETWORKS: [name for name in networks if name in registry.NETWORKS],
        registry.METRICS: [one.metric.name for request in requests for one in asked(request).values()],
    }
    for names, used in named.items():
        for name in dict.fromkeys(used):
            if not names.is_known_elsewhere(name):
                raise DislabError(
                    f"the {names.kind} '{name}' is registered by the running program, which other processes "
                    "do not read: put it in a file for dislab.load_plugin (--plugin), or choose jobs=1"
                )
