"""The errors and the warning that dislab shows to its user as one line, without a traceback."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress


class DislabError(Exception):
    """Something in the user's input is wrong; the message says what, and what would be right."""

    exit_code = 2


class RunFailed(DislabError):
    """The input was fine, but a run or a metric failed (a loss that turned NaN, a disk that filled up)."""

    exit_code = 1


class DislabWarning(UserWarning):
    """A remark on a result; it stops nothing."""


MOST_SAID = 500  # characters of another program's error

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


def in_words(error: BaseException, make: Callable) -> str:
    """Return what a function or class of a user's file raised, in one line, with the file and its line.

    A DislabError has words of its own, which name what is wrong.
    """
    if isinstance(error, DislabError):
        return one_line(error)
    position = defined_in(make)
    with suppress(TypeError, OSError):  # it was typed in, or is compiled
        file = inspect.getfile(inspect.unwrap(make))
        line = line_within(error, file)
        position = f" ({file}, line {line})" if line else position
    return one_line(error, with_type=True) + position


def one_line(error: BaseException, with_type: bool = False) -> str:
    """Return what an error says as a line that a terminal can show; other programs' end after MOST_SAID."""
    try:
        text = str(error)
    except Exception:  # its class is a user's, too
        text = ""
    text = " ".join(text.split())
    if with_type:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = "".join(one if one.isprintable() else "?" for one in text)
    is_long = len(text) > MOST_SAID and not isinstance(error, DislabError)
    return text[:MOST_SAID] + " …" if is_long else text


def defined_in(make: Callable) -> str:
    """Return the file and the line where a function or class begins, as " (FILE, line N)", else ""."""
    make = inspect.unwrap(make)
    with suppress(TypeError, OSError):
        return f" ({inspect.getfile(make)}, line {inspect.getsourcelines(make)[1]})"
    return ""
