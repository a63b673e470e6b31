"""dislab: a benchmarking suite for disentangled representation learning.

The public names are imported when they are first used, so that `dislab --help` does not wait for torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "evaluate": "dislab.evaluation",
    "Scores": "dislab.evaluation",
    "CodeTable": "dislab.codes",
    "FactorSpace": "dislab.factors",
    "Dataset": "dislab.datasets.base",
    "load_dataset": "dislab.datasets.base",
    "run": "dislab.runs",
    "load": "dislab.runs",
    "Run": "dislab.runs",
    "leaderboard": "dislab.leaderboard",
    "DislabError": "dislab.errors",
    "RunFailed": "dislab.errors",
    "register_metric": "dislab.registry",
    "register_model": "dislab.registry",
    "register_dataset": "dislab.registry",
    "load_plugin": "dislab.registry",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'dislab' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
