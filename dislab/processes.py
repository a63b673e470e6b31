"""Processes, on this machine and on others that share a folder: which one wrote a file, and is it alive."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


def this_process() -> dict:
    """Return what identifies this process: its machine, its number, and when it began."""
    number = os.getpid()
    return {"machine": _machine(), "process": number, "started": start_time(number)}


def tag() -> str:
    """Return `this_process` as a short text for the names of files."""
    me = this_process()
    return f"{_short(me['machine'])}-{me['process']}-{me['started'] or 0}"


def is_dead(owner: dict) -> bool | None:
    """Return whether the process of `this_process` has ended; None if this machine cannot tell."""
    return None if owner["machine"] != _machine() else _has_ended(owner["process"], owner["started"])


def is_dead_tag(text: str) -> bool | None:
    """Return whether the process of a `tag` has ended; None if this machine cannot tell."""
    machine, number, started = text.split("-")
    return None if machine != _short(_machine()) else _has_ended(int(number), started.strip("0") and started)


def _has_ended(number: int, started: str | None) -> bool | None:
    now = start_time(number)
    if now is not None or Path("/proc/self/stat").exists():
        return now != started
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return None


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


def _short(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:8]


def start_time(process: int) -> str | None:
    """Return when a process began, in the kernel's own units; None where there is none, or no /proc."""
    try:
        # The program's name comes first, in parentheses, and may hold spaces.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
