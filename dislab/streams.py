"""Standard output and standard error that may be closed, full, or a pipe that nobody reads any more."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Guarded(io.FileIO):
    """A standard stream that drops what cannot be written, from its first error on."""

    error: OSError | None = None

    def write(self, content) -> int:
        """Write as `io.FileIO` does; keep the first error in `error`, and raise none."""
        while self.error is None:
            try:
                written = super().write(content)
            except OSError as error:
                self.error = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # another program has made the stream one that does not wait
        return len(content)


def occupy() -> None:
    """Open /dev/null as each standard stream that is closed, so that no file of ours gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


@contextmanager
def guarded() -> Iterator[Callable[[], OSError | None]]:
    """Guard the standard streams within the block, unless a program has put others in their place.

    Yield a function that returns why standard output could not be written, or None. A reader that has closed
    the pipe, as `head` does, has read what it wants.
    """
    occupy()
    before, guards = {}, {}
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            before[name], guards[name] = stream, Guarded(number, "w", closefd=False)
            setattr(sys, name, _like(stream, guards[name]))

    def error_of_output() -> OSError | None:
        with suppress(ValueError):  # another program's stream, which a plug-in has closed
            sys.stdout.flush()
        error = guards["stdout"].error if "stdout" in guards else None
        return None if error is None or error.errno == errno.EPIPE else error

    try:
        yield error_of_output
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


class Text(io.TextIOWrapper):
    """A text stream that stays open, also where a plug-in closes it."""

    def close(self) -> None:
        """Write what is left; what is printed later goes the same way."""
        self.flush()


def _like(stream, guard: Guarded) -> Text:
    """Return a text stream with the settings of another one, which has a sign for every character."""
    buffer = io.BufferedWriter(guard)
    if stream is None:  # it was closed
        return Text(buffer, "utf-8", "replace")
    flush = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    return Text(buffer, stream.encoding, "replace", **flush)
