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
import re
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from dislab import processes
from dislab.errors import RunFailed
from dislab.files import temporary
from dislab.progress import say

SECONDS_BETWEEN_SIGNS = 30  # between two touches of a claim by its owner
SECONDS_UNTIL_STALE = 300  # without a touch, after which an owner on another machine counts as dead
SECONDS_BETWEEN_TRIES = 0.0625
SECONDS_UNTIL_SAID = 5.0
CLAIM = re.compile(r".+\.claim-\d+$")

_held: set[Path] = set()
_holding = threading.Lock()  # while a claim's file is there and not yet in `_held`
_beating = threading.Lock()


class Claim:
    """A claim on a path, which need not exist; its parent folder must."""

    def __init__(self, path: Path):
        self.path = Path(path).absolute()
        self.number = 0  # of the file that this object created; 0 where it holds no claim

    def _file(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.claim-{number}")

    def _others(self) -> list[int]:
        """Return the numbers of the claim's other files, in ascending order."""
        beginning = f"{self.path.name}.claim-"
        names = [path.name for path in self.path.parent.iterdir()]
        endings = [name.removeprefix(beginning) for name in names if name.startswith(beginning)]
        return sorted({int(ending) for ending in endings if ending.isdecimal()} - {self.number})

    def is_free(self) -> bool:
        """Return whether no other living owner holds the claim."""
        return all(_is_dead(self._file(number)) for number in self._others())

    def take(self) -> bool:
        """Take the claim; return False where a living owner holds it.

        What the claim is for may have been done between the last look and this call: look again after it.

        Raises
        ------
        RunFailed : the claim cannot be written.
        """
        try:
            if not self.is_free():
                return False
            self.number = max(self._others(), default=0) + 1
            self._create(self._file(self.number))
            # While an owner of several files removed them, two processes may each have created one.
            if self.is_free():
                _beat()
                return True
            self.release()
        except FileExistsError:
            self.number = 0
        except OSError as error:
            self._forget()
            raise RunFailed(f"cannot claim '{self.path}': {error.strerror}") from None
        except BaseException:  # Ctrl-C: a file of this process that it does not hold counts as dead
            self._forget()
            raise
        return False

    def _create(self, file: Path) -> None:
        """Create the claim's file, with its owner in it from the first moment on."""
        with temporary(file) as beside:
            beside.write_text(json.dumps(processes.this_process()))
            with _holding:
                try:
                    os.link(beside, file)
                except FileExistsError:  # another process was faster
                    raise
                except OSError:
                    # A file system without links. A process that is killed here leaves an empty file, which
                    # looks like a living owner's until it is old.
                    with file.open("x") as stream:
                        stream.write(beside.read_text())
                _held.add(file)

    def _forget(self) -> None:
        _held.discard(self._file(self.number))
        self.number = 0

    def is_lost(self) -> bool:
        """Return whether another process has taken the claim over, as after a long suspension."""
        return not self._file(self.number).exists() or not self.is_free()

    def release(self) -> None:
        """Give the claim back, with what dead owners left; nothing where it is not held."""
        if not self.number:
            return
        dead = [number for number in self._others() if _is_dead(self._file(number))]
        for number in [self.number, *reversed(dead)]:
            with suppress(OSError):
                self._file(number).unlink()
        self._forget()


@contextmanager
def claimed(path: Path):
    """Hold a claim for a short piece of work; wait until it is free.

    Raises
    ------
    RunFailed : the claim cannot be written.
    """
    claim, tries = Claim(path), 0
    try:
        while not claim.take():
            time.sleep(SECONDS_BETWEEN_TRIES)
            tries += 1
            if tries * SECONDS_BETWEEN_TRIES == SECONDS_UNTIL_SAID:
                say(f"waiting for another process that has claimed '{path}'")
        yield
    finally:
        claim.release()


def sweep_claims(folder: Path) -> None:
    """Delete the claims in a folder whose owners have ended; those of others stay."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if CLAIM.match(entry.name) and _is_dead(Path(entry.path)):
                Path(entry.path).unlink(missing_ok=True)


def _is_dead(file: Path) -> bool:
    """Return whether the owner of a claim's file no longer lives; True where the file is gone."""
    try:
        owner = json.loads(file.read_text())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        owner = {}  # its owner is writing it, or died while it did
    me = processes.this_process()
    if not isinstance(owner, dict) or not me.keys() <= owner.keys():
        owner = {}
    if owner == me:
        with _holding:
            return file not in _held
    if owner and isinstance(owner["process"], int):
        is_dead = processes.is_dead(owner)
        if is_dead is not None:
            return is_dead
    return _seconds_since_touch(file) > SECONDS_UNTIL_STALE


def _seconds_since_touch(file: Path) -> float:
    """Return the age of a file's last change, by the clock of the file system that it lies on."""
    with temporary(file) as probe:
        try:
            probe.touch()
            return probe.stat().st_mtime - file.stat().st_mtime
        except FileNotFoundError:
            return float("inf")


def _beat() -> None:
    """Start the thread that touches the claims of this process, if it does not run yet."""
    if _beating.acquire(blocking=False):
        threading.Thread(target=_touch_claims, daemon=True).start()


def _touch_claims() -> None:
    while True:
        time.sleep(SECONDS_BETWEEN_SIGNS)
        for file in list(_held):
            with suppress(OSError):
                os.utime(file)
