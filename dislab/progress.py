"""Progress on standard error: a bar with an ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10

_listeners: list[Callable[[str, int, int], None]] = []


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds: 0:08:10."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def say(message: str, quiet: bool = False) -> None:
    """One line for the user, beside any output that a program reads."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


@contextmanager
def heard_by(listener: Callable[[str, int, int], None]):
    """Tell a listener of every update of a bar, also a quiet one: its title, units done and their total."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Bar:
    """A progress bar over `total` units of work, as a context manager.

    Parameters
    ----------
    title : what is being done.
    total : units of work in all.
    start : units that were done before (a resumed run); they do not count towards the ETA.
    quiet : show nothing.
    """

    def __init__(self, title: str, total: int, start: int = 0, quiet: bool = False):
        self.title, self.total, self.start, self.quiet = title, total, start, quiet
        self._bar = None
        self._began = self._spoke = time.monotonic()
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        class Remaining(TimeRemainingColumn):
            """The time left by the bar's speed, or counted down from what the caller says."""

            def render(self, task):
                end = task.fields["end"]
                return super().render(task) if end is None else clock(end - time.monotonic())

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("ETA"),
            Remaining(compact=True),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(title, total=total, completed=start, note="", end=None)

    def __enter__(self) -> Bar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str = "", left: float | None = None) -> None:
        """Show that `done` units are done, with a short note beside (loss terms, images/s).

        `left` is the seconds to go where the caller knows better than the mean of the units done.
        """
        for listener in _listeners:
            listener(self.title, done, self.total)
        if self._bar:
            end = None if left is None else time.monotonic() + left
            self._bar.update(self._task, completed=done, note=note, end=end)
        elif not self.quiet:
            now = time.monotonic()
            if now - self._spoke >= SECONDS_BETWEEN_LINES or done == self.total:
                self._spoke = now
                if left is None:
                    left = (now - self._began) / max(1, done - self.start) * (self.total - done)
                say(f"{self.title} {done}/{self.total}  {note}  ETA {int(left // 60)}:{int(left % 60):02d}")
