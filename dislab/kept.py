"""The settings of this process that code of others may change, and that are put back."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np


@contextmanager
def kept(threads: int | None = None) -> Iterator[None]:
    """Put back afterwards what a metric or a model of others changes for the rest of the process.

    These are the working folder, the environment, standard output and standard error, Python's limit on
    recursion, the global random states, numpy's handling of floating-point errors, and torch's default type,
    device, number of threads and recording of gradients.

    Parameters
    ----------
    threads : torch's number of threads outside of a `threadpool_limits` that this lies in. The limit does not
        reach torch's own libraries, which get this number back.
    """
    before = [(put, get()) for get, put in _settings(threads)]
    try:
        yield
    finally:
        for put, value in before:
            with suppress(OSError):  # the working folder was deleted
                put(value)


def _settings(threads: int | None) -> Iterator[tuple[Callable, Callable]]:
    """Yield a function that returns a setting, and one that sets it, for each setting."""
    with suppress(OSError):
        Path.cwd()
        yield Path.cwd, os.chdir
    yield partial(dict, os.environ), _set_environment
    for stream in ("stdout", "stderr"):
        yield partial(getattr, sys, stream), partial(setattr, sys, stream)
    yield sys.getrecursionlimit, sys.setrecursionlimit
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    yield np.geterr, lambda handling: np.seterr(**handling)
    torch = sys.modules.get("torch")  # not imported for this
    if torch is None:
        return
    yield torch.get_rng_state, torch.set_rng_state
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.is_grad_enabled, torch.set_grad_enabled

    # To set these two has effects of its own, even if the value is the same.
    def set_threads(number: int) -> None:
        if number != torch.get_num_threads():
            torch.set_num_threads(threads or number)

    def set_device(device) -> None:
        if device != torch.get_default_device():
            torch.set_default_device(device)

    yield torch.get_num_threads, set_threads
    yield torch.get_default_device, set_device


def torch_threads() -> int | None:
    """Return torch's number of threads; None if torch is not imported."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


def _set_environment(variables: dict[str, str]) -> None:
    if os.environ != variables:
        os.environ.clear()
        os.environ.update(variables)
