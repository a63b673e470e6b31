"""Checks of the settings that metrics take as keyword arguments."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real

import numpy as np

from dislab.errors import DislabError


def check_counts(least: int = 1, **settings) -> None:
    """Raise DislabError if a setting is not a whole number of at least `least`."""
    _check(
        lambda value: _is(value, Integral) and value >= least, f"a whole number, {least} or more", settings
    )


def check_numbers(allowed: Callable[[float], bool], should: str, **settings) -> None:
    """Raise DislabError if a setting is no number or not allowed; `should` says what is."""
    _check(lambda value: _is(value, Real) and allowed(value), should, settings)


def check_flags(**settings) -> None:
    """Raise DislabError if a setting is neither True nor False."""
    _check(lambda value: isinstance(value, bool | np.bool), "True or False", settings)


def _is(value, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool)


def _check(allowed: Callable[[object], bool], should: str, settings: dict) -> None:
    for name, value in settings.items():
        if not allowed(value):
            raise DislabError(f"{name} is {value!r}: it must be {should}")
