"""What dislab gives for the model goldens: one function per golden, in a module per family of models.

A function is registered under the name of its golden and takes what the golden holds, `Given`. It returns
dislab's values by the golden's own names, computed by dislab's own code from what it reads:

    @golden("betavae", not_followed=("loss_of_a_wrong_code",))
    def betavae(given: Given) -> dict[str, object]:
        kl = kl_to_standard_normal(given["mean"], given["logvar"]).sum(1).mean()
        return {"kl": kl, "loss": given["nll"].mean() + given["beta"] * kl, "loss_of_a_wrong_code": …}

What it returns is compared. What it reads and does not return is an input. Everything else that the golden
holds counts as not compared. `dislab.benchmarks.model_goldens` prints the table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch


class Given(Mapping):
    """The arrays and scalars of a golden by name; it remembers which of them were read.

    Arrays are tensors of their own dtype, float64 for real numbers. Scalars are Python numbers or lists.

    Attributes
    ----------
    folder : where the golden lies, for one that names further files.
    """

    def __init__(self, values: dict[str, object], folder: Path):
        self.values, self.folder = values, folder
        self.read: set[str] = set()

    def __getitem__(self, name: str):
        value = self.values[name]
        self.read.add(name)
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


Function = Callable[[Given], dict[str, object]]
GOLDENS: dict[str, tuple[Function, frozenset[str]]] = {}  # functions, and the quantities not followed


def golden(name: str, not_followed: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Register the function of a golden.

    Parameters
    ----------
    name : of the golden.
    not_followed : quantities that published code or another reading of the paper gives, and dislab does not:
        the function returns what dislab has in their place, and the difference is shown, not judged.
    """

    def register(function: Function) -> Function:
        GOLDENS[name] = function, frozenset(not_followed)
        return function

    return register


def load() -> dict[str, tuple[Function, frozenset[str]]]:
    """Return GOLDENS after importing every module of this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return GOLDENS
