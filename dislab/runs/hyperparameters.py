"""A model's hyper-parameters, its constructor's keyword arguments: what they are, and checks of a user's."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping

from dislab.errors import DislabError
from dislab.registry import Entry, unknown_name
from dislab.training.model import constructor_parameters


def defaults(model: type) -> dict[str, object]:
    """Return the default of every hyper-parameter by name."""
    parameters = constructor_parameters(model).values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def complete(entry: Entry, values: Mapping[str, object]) -> dict[str, object]:
    """Return all hyper-parameters of a model: its defaults with the user's values, checked and converted.

    Values may be texts from a command line ("8", "true"), which are read as the default's type.

    Raises
    ------
    DislabError : a name is not the model's (the nearest is offered), or a value has the wrong type or is not
        allowed.
    """
    completed = defaults(entry.make)
    choices = _choices(entry.make)
    for name, value in values.items():
        if name not in completed:
            raise unknown_name(f"hyper-parameter of {entry.name}", name, completed)
        completed[name] = _convert(f"{entry.name}: {name}", value, completed[name], choices.get(name))
    return completed


def _choices(model: type) -> dict[str, tuple[str, ...]]:
    """Return the values that arguments annotated as Literal[...] may take."""
    choices: dict[str, tuple[str, ...]] = {}
    for home in reversed(model.__mro__):
        if "__init__" in vars(home) and home is not object:
            try:
                hints = typing.get_type_hints(home.__init__)
            except (NameError, TypeError):  # annotations that only a type checker can read
                continue
            for name, hint in hints.items():
                if typing.get_origin(hint) is typing.Literal:
                    choices[name] = typing.get_args(hint)
    return choices


def _convert(what: str, value: object, default: object, choices: tuple[str, ...] | None) -> object:
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
    if kind not in (int, float):
        return value
    wanted = "a number" if kind is float else "a whole number"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number != kind(number):
        raise DislabError(f"{what} is {value!r}: it must be {wanted}")
    # Sizes and counts start at 1, weights at 0, unless the default itself is below.
    lowest = 1 if kind is int and default > 0 else 0
    if number < lowest <= default:
        raise DislabError(f"{what} is {value}: it must be {lowest} or more")
    return kind(number)
