"""The driver of a cluster: each task of the executor is a task of Ray.

Ray places the tasks, and repeats those of a node that is lost. What a node does is in dislab/runs/node.py.
Ray is an extra, dislab[ray], and is imported where it is used.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from operator import itemgetter

from dislab import registry, signals
from dislab.errors import DislabError, RunFailed, in_one_line, said_by
from dislab.files import write_atomically
from dislab.runs.machine import Machine, chosen_threads
from dislab.runs.node import do_on_node
from dislab.runs.perform import SECONDS_TO_STOP, Outcome, Tell, do_task
from dislab.runs.record import Results

MOST_WAITING = 1000  # tasks that wait in Ray; it looks at all of them again and again
SECONDS_BETWEEN_LOOKS = 1.0  # at the progress of tasks
SECONDS_TO_ANSWER = 10  # for the machine at an address
# Variables of the environment that nodes get. The key of wandb is none: Ray shows them to all who see it.
OF_NODES = ("DISLAB_", "WANDB_MODE", "WANDB_PROJECT")


@contextmanager
def connected(machine: Machine) -> Iterator[tuple[int, int]]:
    """Connect to the cluster; yield how many tasks it does at a time now, and the threads of each.

    Raises
    ------
    DislabError : there is no cluster at this address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    import ray

    was_there, on_sigterm = ray.is_initialized(), signal.getsignal(signal.SIGTERM)
    address = (os.environ.get("RAY_ADDRESS") or None) if machine.on == "ray" else machine.on
    try:
        if not was_there:
            _check_answers(address or "")
            ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        resources = ray.cluster_resources()
    except Exception as error:
        cause = said_by(error, with_type=True)
        raise DislabError(f"no connection to Ray ({address or machine.on}): {cause}") from error
    finally:
        with suppress(ValueError):  # in another thread than the main one, where Ray sets none
            signal.signal(signal.SIGTERM, on_sigterm)
    threads = chosen_threads() or 1
    places = resources.get("CPU", 0) // threads
    if machine.of_runs == "cuda":
        places = min(places, resources.get("GPU", 0) * machine.per_gpu)
    try:
        yield max(1, int(places)), threads
    finally:
        if not was_there:
            with signals.blocked():
                ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError if nobody listens at an address HOST:PORT; Ray would try again for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():  # else it is "auto" or "local", or Ray says what is wrong with it
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


def on_ray(
    tasks: Sequence[Mapping], tell: Tell, machine: Machine, places: int, threads: int
) -> Iterator[Outcome]:
    """Do tasks on the cluster that this process is connected to; see `connected` for the last parameters.

    Whatever ends the iteration early cancels the tasks; those that train save their checkpoints.
    """
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})
    settings = {name: value for name, value in os.environ.items() if name.startswith(OF_NODES)}
    do = ray.remote(do_on_node).options(
        num_cpus=threads,
        num_gpus=1 / machine.per_gpu if machine.of_runs == "cuda" else 0,
        runtime_env={"env_vars": settings | {"OMP_NUM_THREADS": str(threads)}},
    )
    plugins = ray.put([(path.name, path.read_bytes()) for path in registry.plugin_files])
    results, waiting, going, looked = Results(machine.out), iter(tasks), {}, 0.0
    if machine.collect:  # the codes of finished runs, which lack scores, are here
        known = set(results.lines.digests())
        for task in tasks:
            yield from do_task(_part(task, known.__contains__), tell)
        waiting = (_part(task, lambda digest: digest not in known) for task in tasks)
    try:
        while True:
            for task in islice(filter(itemgetter("digests"), waiting), places + MOST_WAITING - len(going)):
                going[do.remote(task, plugins, told.actor, machine.collect)] = task["digests"]
            if not going:
                break
            done, _ = ray.wait(list(going), timeout=SECONDS_BETWEEN_LOOKS)
            if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                looked = time.monotonic()
                for progress in told.get_nowait_batch(told.size()):
                    tell(*progress)
            for task in done:
                digests = going.pop(task)
                try:
                    answers = ray.get(task)
                except ray.exceptions.RayError as error:  # Ray has tried it several times
                    cause = f"its process ended: {said_by(error, with_type=True)}"
                    answers = [({"digest": digest, "failure": cause}, {}) for digest in digests]
                for outcome, files in answers:
                    yield (
                        _stored(Outcome(**outcome), files, results) if machine.collect else Outcome(**outcome)
                    )
    finally:
        for task in going:
            ray.cancel(task)
        if going:
            ray.wait(list(going), num_returns=len(going), timeout=SECONDS_TO_STOP, fetch_local=False)
        told.shutdown(force=True)


def _part(task: Mapping, is_part: Callable[[str], bool]) -> Mapping:
    """Return a task with those of its runs whose digest is part of it."""
    pairs = zip(task["digests"], task["configs"], strict=True)
    pairs = [(digest, config) for digest, config in pairs if is_part(digest)]
    return {**task, "digests": [digest for digest, _ in pairs], "configs": [config for _, config in pairs]}


def _stored(outcome: Outcome, files: Mapping[str, bytes], results: Results) -> Outcome:
    """Write a run that a node has sent."""
    try:
        if outcome.record is not None:
            run = results.run_of(outcome.record)
            run.path.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomically(run.path / name, content)
            results.write(outcome.record)
    except (RunFailed, OSError) as error:
        return Outcome(outcome.digest, failure=in_one_line(error))
    return outcome
