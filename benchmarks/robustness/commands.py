"""Start commands of dislab as processes, quickly: children of this process, which has imported torch.

A child is a process like any other: its number, signals, files and results are its own. Importing torch takes
three seconds of CPU time, which a child does without; `real=True` starts a new Python all the same. Worker
processes of a child are its children in turn.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from dislab.registry import DATASETS, METRICS, MODELS, NETWORKS

IMPORTED = [
    "h5py",
    "matplotlib.pyplot",
    "pandas",
    "safetensors.torch",
    "scipy.io",
    "sklearn.svm",
    "torch._dynamo",  # as the first step of an optimiser does, in a second and a half
    "dislab.cli",
    "dislab.cli.app",
    "dislab.report.figures",
    "dislab.runs.run",
    "dislab.runs.evaluate",
    "dislab.studies.study",
]
MOST_FILES = 4096  # that a process has open
SET_CHILD_SUBREAPER = 36  # sys/prctl.h
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}  # exit codes
# A Python that is still starting cannot answer a signal: nothing of dislab has run.
SECONDS_OF_PYTHON = 0.3


def prepare() -> None:
    """Import all that commands import, and become the parent of orphans, so that they are seen."""
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    for registry in (DATASETS, METRICS, MODELS, NETWORKS):
        list(registry)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # a child of a process that has used several would wait for ever
    with suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)


class Command:
    """A command that runs in a process of its own.

    Parameters
    ----------
    arguments : of dislab, such as ["run", "--model", "vae"].
    folder : the working folder.
    log : its standard error goes to this file, its standard output to the same name with ".out" added.
    real : start a new Python with `python -m dislab`, instead of a child of this process.
    before : called in the child before the command, if `real` is False.
    environment : variables to add.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        real: bool = False,
        before: Callable[[], None] = lambda: None,
        environment: dict[str, str] | None = None,
    ):
        self.arguments, self.log, self.real = list(arguments), log, real
        self.printed = log.with_name(f"{log.name}.out")
        self.code: int | None = None
        self.usage = None
        self.began = time.monotonic()
        self.pid = _fork(self._in_child, folder, before, environment or {})

    def _in_child(self, folder: Path, before: Callable[[], None], environment: dict[str, str]) -> None:
        os.environ.update(environment, PYTHONDONTWRITEBYTECODE="1")
        os.chdir(folder)
        os.setpgid(0, 0)
        for number, path in ((1, self.printed), (2, self.log)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if self.real:
            os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execv(sys.executable, [sys.executable, "-m", "dislab", *self.arguments])
        like_new()
        from dislab.runs import execute

        execute.subprocess.Popen = ForkedWorker
        before()
        sys.argv = ["dislab", *self.arguments]
        runpy.run_module("dislab", run_name="__main__")

    def is_over(self) -> bool:
        """Return whether the process has ended; `code` is then its exit code, or minus a signal's number."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.usage = os.waitstatus_to_exitcode(status), usage
                self.seconds = time.monotonic() - self.began
        return self.code is not None

    def wait(self, seconds: float) -> bool:
        """Wait until the process ends; return False if it still runs after so many seconds."""
        end, pause = time.monotonic() + seconds, 0.001
        while not self.is_over():
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(0.02, 1.3 * pause)
        return True

    def family(self) -> list[int]:
        """Return the numbers of the process and of those that it started, itself first."""
        found = [self.pid]
        for number in found:
            with suppress(OSError):
                for task in Path(f"/proc/{number}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def messages(self) -> str:
        """Return what it wrote to standard error."""
        return self.log.read_text(errors="surrogateescape") if self.log.exists() else ""

    def has_traceback(self) -> bool:
        """Return whether it wrote a traceback, or what Python writes of an exception in a destructor."""
        return re.search(r"^(Traceback|Exception ignored)", self.messages(), re.MULTILINE) is not None

    def wrong_ending(self, sent: int | None, usual: Sequence[str] = ()) -> str:
        """Return what is wrong with how it ended, "" if nothing is.

        Parameters
        ----------
        sent : the signal that it was sent, None if none was.
        usual : lines that an undisturbed command writes as well.
        """
        text = self.messages()
        if self.has_traceback():
            return "traceback"
        if sent is None:
            return "" if self.code == 0 else f"exit code {self.code}"
        if sent == signal.SIGKILL or self.code == 0:  # the signal came too late
            return "" if self.code in (0, -signal.SIGKILL) else f"exit code {self.code} after SIGKILL"
        lines = [line for line in text.splitlines() if line.startswith("dislab: ") and line not in usual]
        if self.code == -sent and self.real and self.seconds < SECONDS_OF_PYTHON:
            return ""
        if self.code != STOPPED[sent]:
            return f"exit code {self.code} after {signal.Signals(sent).name}, not {STOPPED[sent]}"
        if len(lines) != 1 or text.splitlines()[-1] != lines[0]:
            return f"{len(lines)} lines 'dislab: …' after {signal.Signals(sent).name}, not one at the end"
        return ""


def check_done(command: Command, seconds: float) -> None:
    """Wait for a command that nobody disturbs; end the program if it does not do its work."""
    if not command.wait(seconds) or command.code:
        raise SystemExit(f"dislab {' '.join(command.arguments)} fails undisturbed:\n{command.messages()}")


def reap(seconds: float) -> int:
    """Wait for the orphans of commands that ended; return how many still run after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0:
            if time.monotonic() > end:
                left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                for number in left:
                    os.kill(int(number), signal.SIGKILL)
                    os.waitpid(int(number), 0)
                return len(left)
            time.sleep(0.01)


def _fork(work: Callable, *arguments) -> int:
    """Do work in a child process, which ends as Python would; return its number.

    Signals wait until the child is like a new process: it must not go on with what its parent does.
    """
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    number = os.fork()
    if number:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return number
    code = 1
    try:
        work(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code & 0xFF)


def like_new() -> None:
    """Make this child like a new process: its signals, its streams, no files of its parent."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.closerange(3, MOST_FILES)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    sys.dont_write_bytecode = True
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class ForkedWorker(subprocess.Popen):
    """A worker process that is a child of its parent, instead of a new Python."""

    def _execute_child(self, *arguments) -> None:
        execute_child = super()._execute_child
        given = inspect.signature(execute_child).bind(*arguments).arguments
        if given["args"][1:2] != ["-m"]:
            return execute_child(*arguments)
        sys.stdout.flush()
        self.pid = _fork(self._in_child, given)
        self._child_created = True
        os.close(given["p2cread"])
        os.close(given["c2pwrite"])

    @staticmethod
    def _in_child(given: dict) -> None:
        os.dup2(given["p2cread"], 0)
        os.dup2(given["c2pwrite"], 1)
        os.environ.update(given["env"])
        os.setsid()
        like_new()
        sys.argv = ["worker"]
        runpy.run_module(given["args"][2], run_name="__main__")
