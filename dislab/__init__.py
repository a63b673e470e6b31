"""dislab: a benchmarking suite for disentangled representation learning.

The public names are imported when they are first used, so that `dislab --help` does not wait for torch. And
until this file is read the command line cannot answer Ctrl-C: it imports nothing that Python has not yet.
"""

import os
import sys

__version__ = "0.1.0"

# Threads that wait for one another spin for a fraction of a millisecond and then sleep. A training step takes
# 5 % longer where they sleep at once, which is what PASSIVE alone means to GNU's OpenMP, and was measured at
# 20 times the time on two shared cores where they spin on. It works where torch was not imported before, and
# a setting of the user's own stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# cuBLAS gives the same numbers every time only with a workspace of fixed size, and torch reads this once,
# when it first multiplies matrices on a GPU. Without it runs on CUDA raise an error, see
# `dislab.training.precision.arithmetic`.
if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        import warnings

        from dislab.errors import DislabWarning

        warnings.warn(
            "CUDA was in use before dislab was imported: runs on it may fail. Import dislab first, or set "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment",
            DislabWarning,
            stacklevel=2,
        )

# In a checkout the folders models/, metrics/ and benchmarks/ stand beside this one, not inside it: Python
# started there finds this folder first, whatever is installed, and must find them too.
_here = os.path.dirname(__file__)  # noqa: PTH120
if not os.path.isdir(os.path.join(_here, "models")):  # noqa: PTH112, PTH118
    __path__.append(os.path.dirname(_here))  # noqa: PTH120

_HOME = {
    "evaluate": "dislab.runs.evaluate",
    "Scores": "dislab.scoring.score",
    "CodeTable": "dislab.scoring.table",
    "FactorSpace": "dislab.data.space",
    "Circle": "dislab.data.space",
    "Dataset": "dislab.data.dataset",
    "load_dataset": "dislab.data.load",
    "from_arrays": "dislab.data.own",
    "from_folder": "dislab.data.folder",
    "hold_out": "dislab.data.hold_out",
    "run": "dislab.runs.run",
    "load": "dislab.runs.record",
    "runs_in": "dislab.runs.record",
    "Run": "dislab.runs.finished",
    "RunConfig": "dislab.runs.config",
    "leaderboard": "dislab.report.leaderboard",
    "published": "dislab.report.published",
    "DislabError": "dislab.errors",
    "DislabWarning": "dislab.errors",
    "RunFailed": "dislab.errors",
    "register_metric": "dislab.registry",
    "register_model": "dislab.registry",
    "register_network": "dislab.registry",
    "register_dataset": "dislab.registry",
    "load_plugin": "dislab.registry",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'dislab' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
