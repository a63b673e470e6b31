"""The signals that end a program: Ctrl-C, and what schedulers and closing terminals send.

A signal that is ignored when the program starts stays ignored: nohup does so with SIGHUP.

A signal raises `Interruption` in the main thread. Some code cannot have it, and the signal then comes again a
moment later: torch's import would abort the process (`_is_importing`), a library may catch and drop the error
(`Interruption.__del__`), and Python drops errors of callbacks and prints those of C code (the two hooks).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIG_IGN, SIGINT

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SECONDS_UNTIL_REPEATED = 0.01

received: list[int] = []  # by this program, while `raised` is in force
_is_repeated = False  # whether the next signal is the last one once more


class Interruption(KeyboardInterrupt):
    """A signal that ends the program. If somebody catches it and drops it, the signal comes again.

    Libraries turn a KeyboardInterrupt into another error, and Python drops those of callbacks.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def __del__(self):
        if received:
            _repeat(self.number)


@contextmanager
def raised(to_the_end: bool) -> Iterator[None]:
    """Let each of the signals raise an Interruption in the main thread.

    An import is finished before. Once the program is ending, only Ctrl-C interrupts it again: a terminal that
    closes sends SIGHUP twice.

    Parameters
    ----------
    to_the_end : ignore them after the block, for the program ends then; else they do what they did before.
    """
    received.clear()
    before, hooks = _set(_raise), (sys.unraisablehook, sys.excepthook)
    sys.unraisablehook, sys.excepthook = _unraisable(hooks[0]), _uncaught(hooks[1])
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # see `blocked`
        yield
    finally:
        ignored()
        sys.unraisablehook, sys.excepthook = hooks
        if not to_the_end:
            _restore(before)


@contextmanager
def blocked() -> Iterator[None]:
    """Keep the signals from a program that is started within the block until it can answer them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignored() -> int:
    """Ignore the signals from now on; return the first that was received, or 0."""
    _set(SIG_IGN)
    first = received[0] if received else 0
    received.clear()
    return first


@contextmanager
def held_back() -> Iterator[list[int]]:
    """Hold the signals back within the block, and send them again after it.

    Yield a list that is no longer empty once one has come. What they do is for their handlers to decide,
    which may be a user's own. Only the main thread is told of signals: in others the list stays empty.
    """
    held: list[int] = []
    before = _set(lambda number, frame: held.append(number))
    try:
        yield held
    finally:
        _restore(before)
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


def _set(handler) -> dict[int, object]:
    """Set what the signals do, of those that are not ignored; return what they did before."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            now = signal.getsignal(number)
            if now not in (SIG_IGN, None):  # None: it was set outside of Python, which cannot set it again
                before[number] = now
                signal.signal(number, handler)
    return before


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _raise(number: int, frame) -> None:
    global _is_repeated
    is_new = _is_repeated or not received
    _is_repeated = False
    received.append(number)
    if is_new and _is_importing(frame):
        _repeat(number)
    elif is_new or number == SIGINT:
        raise Interruption(number)


def _is_importing(frame) -> bool:
    """Return whether a frame is part of an import. torch aborts the process if its own is interrupted."""
    while frame is not None and frame.f_code.co_name != "_find_and_load":
        frame = frame.f_back
    return frame is not None


def _repeat(number: int) -> None:
    """Send a signal to this program a moment later, when the code that cannot have it now may be left."""
    global _is_repeated
    _is_repeated = True

    def send() -> None:
        if received:
            signal.pthread_kill(threading.main_thread().ident, number)

    timer = threading.Timer(SECONDS_UNTIL_REPEATED, send)
    timer.daemon = True
    timer.start()


def _unraisable(show: Callable) -> Callable:
    def hook(unraisable) -> None:
        if not issubclass(unraisable.exc_type, Interruption):  # it comes again
            show(unraisable)

    return hook


def _uncaught(show: Callable) -> Callable:
    def hook(kind, error, trace) -> None:
        if issubclass(kind, Interruption):  # C code prints an error so, and Python keeps it
            _repeat(error.number)
        else:
            show(kind, error, trace)

    return hook
