"""The errors and the warning that dislab shows to its user as one line, without a traceback."""

from __future__ import annotations

import inspect
import itertools
import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress


class DislabError(Exception):
    """Something in the user's input is wrong; the message says what, and what would be right."""

    exit_code = 2


class RunFailed(DislabError):
    """The input was fine, but a run or a metric failed (a loss that turned NaN, a disk that filled up)."""

    exit_code = 1


class DislabWarning(UserWarning):
    """A remark on a result; it stops nothing."""


BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")  # between lines
MOST_CHARACTERS = 1000  # of a line for the user; a longer one is cut in its middle

# The exceptions that code of others may raise. Ctrl-C is none of them: it ends the program.
FAILURES = (Exception, SystemExit)


def line_within(error: BaseException, file_name: str) -> int | None:
    """Return the last line of a file in the error's traceback, or the line of a syntax error; else None."""
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def one_line(text: str) -> str:
    """Return a text as one line that a terminal can show: other signs than printable ones are escaped."""
    text = BREAKS.sub(" ", text.rstrip())
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS // 2]} … {text[-MOST_CHARACTERS // 2 :]}"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_of(names: Collection[object]) -> str:
    """Return the first three of some names, and how many there are if there are more."""
    text = ", ".join(f"'{name}'" for name in itertools.islice(names, 3))
    return text if len(names) <= 3 else f"{text}, … ({len(names):,} in all)"


def said_by(error: BaseException, with_type: bool = False) -> str:
    """Return what an error says as one line, after the name of its class if that is wanted."""
    try:
        text = str(error)
    except Exception:  # its class is a user's, too
        text = ""
    if with_type:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return one_line(text)


def in_one_line(error: BaseException) -> str:
    """Return what went wrong as one line; of an unexpected error also where."""
    text = said_by(error)
    if isinstance(error, DislabError):
        return text
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"'{os.fsdecode(error.filename)}': {error.strerror}")
    # torch has no class of its own for the memory of the CPU.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
        return one_line(f"not enough memory{': ' if text else ''}{text}")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""
    return said_by(error, with_type=True) + one_line(where)


def in_words(error: BaseException, make: Callable) -> str:
    """Return what a function or class of a user's file raised, in one line, with the file and its line.

    A DislabError has words of its own, which name what is wrong.
    """
    if isinstance(error, DislabError):
        return said_by(error)
    position = defined_in(make)
    with suppress(TypeError, OSError):  # it was typed in, or is compiled
        file = inspect.getfile(inspect.unwrap(make))
        line = line_within(error, file)
        position = f" ({file}, line {line})" if line else position
    return said_by(error, with_type=True) + position


def defined_in(make: Callable) -> str:
    """Return the file and the line where a function or class begins, as " (FILE, line N)", else ""."""
    make = inspect.unwrap(make)
    with suppress(TypeError, OSError):
        return f" ({inspect.getfile(make)}, line {inspect.getsourcelines(make)[1]})"
    return ""
