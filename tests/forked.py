"""Commands of dislab as processes that begin at once: children of a process that has imported torch.

A new Python takes three seconds of CPU time for that. It is needed only where the beginning or the end of a
program is tested; else a child is a process like any other. Its workers are children in their turn.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import torch

from dislab.benchmarks.robustness import commands
from dislab.runs import execute

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([*commands.IMPORTED, "dislab.models.mlvae", commands.__name__])


class Forked:
    """A process that does a command of dislab in this working folder, with this environment.

    Parameters
    ----------
    arguments : of dislab.
    log : its standard error goes to this file; nobody sees its standard output.
    """

    def __init__(self, *arguments: str, log: str = os.devnull):
        Path(log).write_text("")
        state = str(Path.cwd()), dict(os.environ)
        self._process = PROCESSES.Process(target=_do, args=(arguments, log, *state))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Return its exit code as soon as it has ended."""
        self._process.join(seconds)
        assert self.poll() is not None, f"it runs for more than {seconds} s"
        return self.poll()

    def children(self) -> list[str]:
        """Return the numbers of the processes that it has started."""
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()


def _do(arguments: tuple, log: str, folder: str, environment: dict) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream, number in enumerate((nothing, nothing, os.open(log, os.O_WRONLY | os.O_APPEND))):
        os.dup2(number, stream)
    commands.like_new()
    execute.subprocess.Popen = commands.ForkedWorker
    sys.argv = ["dislab", *arguments]
    runpy.run_module("dislab", run_name="__main__")
