"""Ways of training and encoding, each in a process of its own.

A way changes settings of its whole process, such as the allocator's, which must not reach the other way.
"""

from __future__ import annotations

import multiprocessing
import os
import time

import numpy as np
import torch

from dislab.benchmarks.speed.metrics import peak_memory
from dislab.benchmarks.speed.ways import Work
from dislab.data.devices import choose_device
from dislab.errors import DislabError, RunFailed
from dislab.training.precision import arithmetic

MATMUL = 2048  # rows and columns of the matrices whose product gives the measured peak


class WayProcess:
    """A process that trains and encodes in one way.

    Parameters
    ----------
    way : OfDislab or Usual.
    precision : "fp32", "tf32" or "bf16".
    """

    def __init__(self, way: type, precision: str, device: str, data_dir, threads: int):
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
        self.connection.send((task, arguments))

    def answer(self):
        """Wait for the result of the task and return it.

        Raises
        ------
        DislabError : the task raised it, or the process ended.
        """
        try:
            answer = self.connection.recv()
        except EOFError:
            raise RunFailed("a process of the benchmark ended before it answered") from None
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

    def __init__(self, number: int, way: type, precision: str, device: str, data_dir, threads: int):
        share = max(1, threads // number)
        self.processes = [WayProcess(way, precision, device, data_dir, share) for _ in range(number)]

    def ask(self, task: str, *arguments) -> list:
        """Let all processes do one of the tasks of `_serve`, and return their results."""
        for process in self.processes:
            process.start(task, *arguments)
        return [process.answer() for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.close()


def _serve(connection, kind: type, precision: str, device_name: str, data_dir, threads: int) -> None:
    """Do the tasks that arrive, and send their results, until the connection is closed."""
    torch.set_num_threads(threads)
    device = choose_device(device_name)
    way = None

    def begin(work: Work) -> None:
        nonlocal way
        way = None  # frees the memory of the last one
        way = kind(work, precision, device, data_dir)

    def steps(number: int) -> float:
        """Return the seconds of this number of steps."""
        began = time.perf_counter()
        for _ in range(number):
            loss = way.step()
        loss.item()
        return time.perf_counter() - began

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
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        matrix = torch.randn(MATMUL, MATMUL, device=device).to(dtype)
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            seconds.append(time.perf_counter() - began)
        return 2 * MATMUL**3 / min(seconds)

    def memory() -> float:
        """Return the peak memory in MB: of the process, or of its tensors on a GPU."""
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 1e6
        return peak_memory()

    tasks = {task.__name__: task for task in (begin, steps, losses, encoding, peak, memory)}
    with arithmetic(device, precision):
        while True:
            try:
                task, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send(tasks[task](*arguments))
            except DislabError as error:
                connection.send(error)
