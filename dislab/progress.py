"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dislab.errors import DislabWarning, one_line

SECONDS_BETWEEN_LINES = 10
ROOM_FOR_TERMS = 32  # characters of a terminal's line


Listener = Callable[[str, float, int, str], None]
_listeners: list[Listener] = []
_open: list[Bar] = []  # bars within which the program is, the outermost first


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: 0:08:10."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def say(message: str, quiet: bool = False) -> None:
    """Print one line for the user, beside any output that a program reads.

    Training goes on if nobody can read it: standard error may be closed, or on a disk that is full.
    """
    if not quiet and sys.stderr is not None:
        with suppress(OSError):
            print(one_line(message), file=sys.stderr, flush=True)


@contextmanager
def remarks_in_one_line() -> Iterator[None]:
    """Show a DislabWarning as one line for the user, without the file and the line that it comes from."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def in_one_line(message, category, *position) -> None:
            if issubclass(category, DislabWarning):
                say(f"dislab: {message}")
            else:
                show(message, category, *position)

        warnings.showwarning = in_one_line
        yield


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Call a listener with (title, done, total, note) at every update of a bar, also of a quiet one."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Bar:
    """A progress bar over `total` units of work, as a context manager.

    A bar within another one stands for a unit of that one, which shows its progress; such as the bar of a
    metric in that of scoring.

    Parameters
    ----------
    title : what is being done.
    total : units of work in all.
    start : units that were done before, in a resumed run; they do not count towards the ETA.
    quiet : show nothing.
    """

    def __init__(self, title: str, total: int, start: int = 0, quiet: bool = False):
        self.title, self.total, self.start, self.quiet = title, total, start, quiet
        self._began = self._spoke = time.monotonic()
        self._done: float = start
        self._whole = start
        self._around = _open[-1] if _open else None
        is_live = not quiet and self._around is None and _has_terminal()
        self._live = _live_bar(title, total, start) if is_live else None

    def __enter__(self) -> Bar:
        _open.append(self)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error) -> None:
        _open.remove(self)
        if self._live:
            self._live.stop()

    def update(self, done: float, note: str = "", left: float | None = None) -> None:
        """Show that `done` units are done, and tell those that listen; see `show`."""
        for listener in _listeners:
            listener(self.title, done, self.total, note)
        self.show(done, note, left)

    def show(self, done: float, note: str = "", left: float | None = None, whole: int | None = None) -> None:
        """Show that `done` units are done.

        Parameters
        ----------
        note : a few words, such as loss terms or images per second. A terminal that is too narrow cuts it.
        left : seconds to go, if the caller knows better than the mean time of the units done.
        whole : number of units that are done as a whole, if `done` has parts of several units.
        """
        self._done, self._whole = done, int(done) if whole is None else whole
        self._show(done, note, left)

    def _show(self, done: float, note: str, left: float | None) -> None:
        if self.quiet:
            return
        now = time.monotonic()
        if left is None and done > self.start:
            left = (now - self._began) / (done - self.start) * (self.total - done)
        if self._around is not None:
            part = self._around._done + done / max(1, self.total)
            self._around._show(part, f"{self.title} {self._whole}/{self.total}  {note}", left)
        elif self._live:
            end = None if left is None else now + left
            self._live.update(self._live.task_ids[0], completed=done, whole=self._whole, note=note, end=end)
        elif now - self._spoke >= SECONDS_BETWEEN_LINES or done == self.total:
            self._spoke = now
            eta = "-:--:--" if left is None else clock(left)
            say(f"{self.title} {self._whole}/{self.total}  {note}  ETA {eta}")


def _has_terminal() -> bool:
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False) and sys.stderr.isatty()


def _live_bar(title: str, total: int, start: int):
    """Return a rich.progress.Progress with one task: as many terms of its `note` as fit into the line."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Terms:
        """Terms with two spaces between them; those that do not fit are left out, the first is cut."""

        def __init__(self, note: str):
            self.note = note

        def __rich_measure__(self, console, options) -> Measurement:
            return Measurement(0, len(self.note))

        def __rich_console__(self, console, options):
            shown = ""
            for term in self.note.split("  "):
                longer = f"{shown}  {term}" if shown else term
                if len(longer) > options.max_width and shown:
                    break
                shown = longer
            yield Text(shown, no_wrap=True, overflow="ellipsis")

    class Note(ProgressColumn):
        def render(self, task) -> Terms:
            return Terms(task.fields["note"])

    class Steps(ProgressColumn):
        def render(self, task) -> Text:
            part = task.completed / task.total if task.total else 1
            return Text(f"{100 * part:3.0f}% {task.fields['whole']}/{int(task.total)}")

    class TimeLeft(ProgressColumn):
        def render(self, task) -> Text:
            end = task.fields["end"]
            return Text("ETA " + ("-:--:--" if end is None else clock(end - time.monotonic())))

    # The column of the note is the only one that may shrink. The bar leaves it room for two terms, or is not
    # there at all.
    console = Console(stderr=True)
    room = console.width - len(f"{title} 100% {total}/{total} ETA 0:00:00 ") - ROOM_FOR_TERMS
    bar = [BarColumn(bar_width=min(10, room - 1), table_column=Column(no_wrap=True))] if room > 4 else []
    live = Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *bar,
        Steps(table_column=Column(no_wrap=True)),
        TimeLeft(table_column=Column(no_wrap=True)),
        Note(),
        console=console,
        refresh_per_second=4,
    )
    live.add_task(title, total=total, completed=start, whole=start, note="", end=None)
    return live
