"""Moments between two changes of files: a command is stopped there, or made to wait."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime", "os.link")


class Changes:
    """Call a function before every change of a file below a folder, in this process and its children.

    Parameters
    ----------
    folder : absolute.
    then : called with the number of the change, which counts from 1 in every process, and the path.
    """

    def __init__(self, folder: Path, then: Callable[[int, str], None]):
        self.folder, self.then = str(folder), then
        self.process, self.number = os.getpid(), 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, bytes)):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(self.folder):  # noqa: PTH100 (it follows no link)
            return
        if os.getpid() != self.process:
            self.process, self.number = os.getpid(), 0
        self.number += 1
        self.then(self.number, os.fsdecode(path))
