"""Code tables for the tests of the metrics, and the reference library's numbers."""

import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dislab.benchmarks.reference import Goldens
from dislab.data.space import Circle
from dislab.scoring.table import CodeTable

GOLDENS = Goldens(Path(os.environ.get("DISLAB_DATA", "")).parent / "goldens")
CASES = GOLDENS.cases or ["none"]
needs_goldens = pytest.mark.skipif(not GOLDENS.found, reason="no folder of goldens beside $DISLAB_DATA")
DECOMPOSITION = ("index_code_mi", "total_correlation", "dimension_wise_kl")  # of the KL


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as in `score`, for a test file that imports this and calls what a metric is made of."""
    with threadpool_limits(limits=1):
        yield


def grid(sizes: tuple[int, ...], copies: int = 1) -> np.ndarray:
    """All combinations of factor values, each several times: int64 [N, K]."""
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=-1).repeat(copies, axis=0)


def mixture(factors: np.ndarray, num_codes: int, noise: float) -> np.ndarray:
    """Codes float32 [N, D]: random linear functions of the factors, with noise."""
    rng = np.random.default_rng(0)
    mixed = factors @ rng.standard_normal((factors.shape[1], num_codes))
    return (mixed + noise * rng.standard_normal(mixed.shape)).astype(np.float32)


def random_table(num_rows=400, num_dims=4, seed=0):
    """A table of random posteriors, of which the last dimension is nearly the prior."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, [2, 3, 5], size=(num_rows, 3))
    mean = np.tanh((factors - factors.mean(axis=0)) @ rng.standard_normal((3, num_dims)) / 2)
    mean[:, -1] = 0.01 * rng.standard_normal(num_rows)
    logvar = rng.uniform(-5, -2, size=mean.shape)
    logvar[:, -1] = -0.01
    return CodeTable(mean, factors, logvar=logvar)


def class_table(mean, labels, **more):
    """A table whose only factor is the class."""
    return CodeTable(mean, labels[:, None], labels=labels, **more)


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def full_table(codes: np.ndarray, factors: np.ndarray, **changes) -> CodeTable:
    """A table with all that a metric may need: the first factor groups, the last one is circular."""
    names = tuple("abcdef"[: factors.shape[1]])
    noise = np.random.default_rng(0)
    given = {
        "names": names,
        "logvar": noise.uniform(-4, -2, size=codes.shape),
        "reconstruction": noise.uniform(50, 60, size=100),
        "swaps": np.random.default_rng(1).integers([1, 3, 4, 4, 4], size=(200, 5)),
        "labels": factors[:, 0],
        "circle": Circle(names[-1], int(factors[:, -1].max()) + 1),
    }
    return CodeTable(codes, factors, **(given | changes))
