"""Values that a user sets by name: a model's hyper-parameters, a metric's settings."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from dislab.errors import DislabError

MOST_WHOLE = 2**31 - 1  # of what counts something: torch and numpy take larger numbers as sizes and fail


@cache
def keyword_defaults(function: Callable) -> dict[str, object]:
    """Return the default of every argument that has one by name."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


@cache
def choices_of(function: Callable) -> dict[str, tuple]:
    """Return the values that the arguments annotated as Literal[...] may take, by name."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker can read
        return {}
    return {
        name: typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is typing.Literal
    }


def converted(
    what: str, value: object, default: object, choices: tuple | None = None, lowest: int | None = None
) -> object:
    """Return a user's value as the type of the default; a text such as "8" or "true" is read.

    Sizes and counts start at 1 and weights at 0, unless the default itself is below or `lowest` says another.

    Raises
    ------
    DislabError : the value has another type, is none of the choices, or is below what is allowed; the message
        begins with `what`.
    """
    if choices:
        for choice in choices:
            if str(value) == str(choice):
                return choice
        raise DislabError(f"{what} is {value!r}: choose {', '.join(map(str, choices))}")
    kind = type(default)
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() not in words:
            raise DislabError(f"{what} is {value!r}: it must be true or false")
        return words[str(value).lower()]
    if default is None and isinstance(value, str):
        return _read(value)
    if kind not in (int, float):
        return value
    wanted = "a number" if kind is float else "a whole number"
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number != kind(number):
        raise DislabError(f"{what} is {value!r}: it must be {wanted}")
    if kind is int and abs(number) > MOST_WHOLE:
        raise DislabError(f"{what} is {value}: it must be {MOST_WHOLE:,} or less")
    if lowest is None:
        lowest = 1 if kind is int and default > 0 else 0
    if number < lowest <= default:
        raise DislabError(f"{what} is {value}: it must be {lowest} or more")
    return kind(number)


def _read(text: str) -> object:
    """Return the number that a text says, None for "None", else the text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return None if text == "None" else text
