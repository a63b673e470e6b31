"""Claims: of several processes, on one machine or on several that share a folder, one does the work.

A claim on a path is a file PATH.claim-1, created so that only one process can create it. The claim of a
process that died is taken over by creating PATH.claim-2, and so on: the highest number holds. Nothing is
locked, so a network file system serves as well as a local disk.

A process is known to be dead on its own machine by its number and start time. On other machines it is known
by its silence: every owner touches its claims twice a minute.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from dislab.errors import RunFailed

SECONDS_BETWEEN_SIGNS = 30  # between two touches of a claim by its owner
SECONDS_UNTIL_STALE = 300  # without a touch, after which an owner on another machine counts as dead
SECONDS_BETWEEN_TRIES = 0.05

_held: set[Path] = set()
_beating = threading.Lock()


class Claim:
    """A claim on a path, which need not exist; its parent folder must."""

    def __init__(self, path: Path):
        self.path = path
        self.number = 0  # of the file that this object created; 0 where it holds no claim

    def _file(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.claim-{number}")

    def _numbers(self) -> list[int]:
        """Return the numbers of the claim's files, in ascending order."""
        beginning = f"{self.path.name}.claim-"
        names = [path.name for path in self.path.parent.iterdir()]
        endings = [name.removeprefix(beginning) for name in names if name.startswith(beginning)]
        return sorted(int(ending) for ending in endings if ending.isdecimal())

    def is_free(self) -> bool:
        """Return whether no living process holds the claim."""
        return all(_is_dead(self._file(number)) for number in self._numbers())

    def take(self) -> bool:
        """Take the claim; return False where a living process holds it.

        What the claim is for may have been done between the last look and this call: look again after it.

        Raises
        ------
        RunFailed : the claim cannot be written.
        """
        try:
            if not self.is_free():
                return False
            number = max(self._numbers(), default=0) + 1
            file = self._file(number)
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            with os.fdopen(handle, "w") as stream:
                json.dump(_this_process(), stream)
            # While an owner of several files removed them, two processes may each have created one.
            if not all(_is_dead(self._file(other)) for other in self._numbers() if other != number):
                file.unlink()
                return False
        except FileExistsError:
            return False
        except OSError as error:
            raise RunFailed(f"cannot claim '{self.path}': {error.strerror}") from None
        self.number = number
        _held.add(file)
        _beat()
        return True

    def is_lost(self) -> bool:
        """Return whether another process has taken the claim over, as after a long suspension."""
        return max(self._numbers(), default=0) != self.number

    def release(self) -> None:
        """Give the claim back, with what dead owners left; nothing where it is not held."""
        if not self.number:
            return
        _held.discard(self._file(self.number))
        for number in range(self.number, 0, -1):
            with suppress(OSError):
                self._file(number).unlink()
        self.number = 0


@contextmanager
def claimed(path: Path):
    """Hold a claim for a short piece of work; wait until it is free.

    Raises
    ------
    RunFailed : the claim cannot be written.
    """
    claim = Claim(path)
    while not claim.take():
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        claim.release()


def _is_dead(file: Path) -> bool:
    """Return whether the owner of a claim's file no longer lives; True where the file is gone."""
    try:
        owner = json.loads(file.read_text())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        owner = {}  # its owner is writing it, or died while it did
    me = _this_process()
    if owner.get("machine") == me["machine"]:
        started = _start_time(owner["process"])
        if started is not None or Path("/proc/self/stat").exists():
            return started != owner["started"]
        try:
            os.kill(owner["process"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return _seconds_since_touch(file) > SECONDS_UNTIL_STALE


def _seconds_since_touch(file: Path) -> float:
    """Return the age of a file's last change, by the clock of the file system that it lies on."""
    probe = file.with_name(f".clock-{os.getpid()}-{threading.get_ident()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    finally:
        probe.unlink(missing_ok=True)


def _this_process() -> dict:
    number = os.getpid()
    return {"machine": _machine(), "process": number, "started": _start_time(number)}


@cache
def _machine() -> str:
    """Return a name for the machine, or the container, whose process numbers this process sees."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        with suppress(OSError):
            parts.append(read())
    return " ".join(parts)


def _start_time(process: int) -> str | None:
    """Return when a process began, in the kernel's own units; None where there is none, or no /proc."""
    try:
        # The program's name comes first, in parentheses, and may hold spaces.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _beat() -> None:
    """Let a thread touch this process's claims for as long as it has any."""
    if _beating.acquire(blocking=False):
        threading.Thread(target=_touch_claims, daemon=True).start()


def _touch_claims() -> None:
    while True:
        time.sleep(SECONDS_BETWEEN_SIGNS)
        for file in list(_held):
            with suppress(OSError):
                os.utime(file)
