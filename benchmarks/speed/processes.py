"""Ways of training and encoding, each in a process of its own.

A way changes settings of its whole process, such as the allocator's, which must not reach the other way.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dislab.benchmarks.speed.metrics import peak_memory
from dislab.benchmarks.speed.ways import Work
from dislab.data.devices import choose_device
from dislab.errors import FAILURES, DislabError, RunFailed, in_one_line
from dislab.training.precision import arithmetic

STEPS = {"cpu": 12, "cuda": 500}  # per reading, at least
# The matrix products that give the measured peak: rows and columns of the matrices, and products between two
# waits for the device. A wait takes a GPU as long as a small product, and a core nothing beside 100 ms.
PRODUCTS = {"cpu": (2048, 1), "cuda": (8192, 20)}


class WayEnded(RunFailed):
    """The process of a way has ended; the message names the way, what it did last, and the cause."""


class WayProcess:
    """A process that trains and encodes in one way.

    Parameters
    ----------
    name : of the way, for messages.
    way : OfDislab, Usual or a peer.
    precision : "fp32", "tf32" or "bf16".
    """

    def __init__(self, name: str, way: type, precision: str, device: str, data_dir, threads: int):
        self.name, self.last, self.work = name, "its start", ""
        context = multiprocessing.get_context("spawn")
        self.connection, its_end = context.Pipe()
        arguments = (its_end, way, precision, device, data_dir, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        before = dict(os.environ)
        os.environ.update(way.environment)
        try:
            self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        its_end.close()

    def start(self, task: str, *arguments) -> None:
        """Let the process begin one of the tasks of `_serve`."""
        for work in arguments:
            if isinstance(work, Work):
                self.work = f" of {work.model} on {work.dataset}"
        with suppress(OSError):  # the process has ended, which `answer` says
            self.connection.send((task, arguments))
            self.last = f"'{task}'{self.work}"

    def answer(self):
        """Wait for the result of the task and return it.

        Raises
        ------
        DislabError : the task raised it.
        WayEnded : the process has ended, now or before.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            answer = WayEnded(f"exit code {self.process.exitcode}")
        if isinstance(answer, WayEnded):
            raise WayEnded(f"the process of '{self.name}' ended; the last it did was {self.last}: {answer}")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, task: str, *arguments):
        """Let the process do one of the tasks of `_serve`, and return its result."""
        self.start(task, *arguments)
        return self.answer()

    def close(self) -> None:
        self.connection.close()
        self.process.join()


class WayProcesses:
    """Processes that do the same at the same time, like the seeds of `dislab run` on a CPU.

    Parameters
    ----------
    number : number of processes. Each has its share of the threads.
    """

    def __init__(
        self, number: int, name: str, way: type, precision: str, device: str, data_dir, threads: int
    ):
        share = max(1, threads // number)
        self.processes = [WayProcess(name, way, precision, device, data_dir, share) for _ in range(number)]

    def ask(self, task: str, *arguments) -> list:
        """Let all processes do one of the tasks of `_serve`, and return their results."""
        for process in self.processes:
            process.start(task, *arguments)
        return [process.answer() for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.close()


def in_turn(works: Mapping[str, Callable], repeats: int) -> dict[str, list]:
    """Return the results of each work, done `repeats` times: one after the other, again and again."""
    results = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            results[name].append(work())
    return results


def steps_of_a_reading(process: WayProcess, kind: str) -> int:
    """Return STEPS for this kind of device, or the number of steps that take a second if that is more."""
    return max(STEPS[kind], round(STEPS[kind] / process.ask("steps", STEPS[kind])[0]))


def _serve(connection, kind: type, precision: str, device_name: str, data_dir, threads: int) -> None:
    """Do the tasks that arrive, and send their results, until the connection is closed."""
    torch.set_num_threads(threads)
    device = choose_device(device_name)
    way = None

    def begin(work: Work) -> None:
        nonlocal way
        way = None  # frees the memory of the last one
        way = kind(work, precision, device, data_dir)

    def steps(number: int) -> tuple[float, float]:
        """Return the seconds of this number of steps, and the CPU seconds of the process."""
        began, began_cpu = time.perf_counter(), time.process_time()
        for _ in range(number):
            loss = way.step()
        loss.item()
        return time.perf_counter() - began, time.process_time() - began_cpu

    def flop() -> float:
        """Return the floating-point operations of a step: those of matrix products and convolutions."""
        with FlopCounterMode(display=False) as counted:
            way.step()
        return counted.get_total_flops()

    def losses(number: int, every: int) -> list[float]:
        """Return the mean losses of the steps, one for every `every` of them."""
        return [torch.stack([way.step() for _ in range(every)]).mean().item() for _ in range(number // every)]

    def encoding(number: int) -> float:
        """Return the seconds to encode this number of rows."""
        rows = np.arange(number)
        began = time.perf_counter()
        way.encode(rows)
        return time.perf_counter() - began

    def peak() -> float:
        """Return the FLOP/s of a matrix product in this precision."""
        size, number = PRODUCTS[device.type]
        matrix = torch.randn(size, size, device=device)
        matrix = matrix.bfloat16() if precision == "bf16" else matrix
        seconds = []
        with arithmetic(device, precision):
            for _ in range(5):
                began = time.perf_counter()
                for _ in range(number):
                    product = matrix @ matrix
                product[0, 0].item()
                seconds.append((time.perf_counter() - began) / number)
        return 2 * size**3 / min(seconds)

    def memory() -> float:
        """Return the peak memory in MB: of the process, or of its tensors on a GPU."""
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 1e6
        return peak_memory()

    tasks = {task.__name__: task for task in (begin, steps, flop, losses, encoding, peak, memory)}
    with arithmetic(device, precision) if kind.is_exact else nullcontext():
        while True:
            try:
                task, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send(tasks[task](*arguments))
            except DislabError as error:
                connection.send(error)
            except FAILURES as error:  # on a GPU nothing works after some errors
                connection.send(WayEnded(in_one_line(error)))
                return
