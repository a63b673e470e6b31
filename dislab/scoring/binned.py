"""Mutual information of binned codes and factors, which may be real numbers: what scores of gaps share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dislab.scoring.information import entropy, histogram_bins, mutual_information
from dislab.scoring.table import CodeTable, Sample


class Binned(NamedTuple):
    """Estimates by counting, in nats."""

    information: np.ndarray  # float64 [D, V], of every code dimension and every factor that varies
    of_codes: np.ndarray  # float64 [D], entropies
    of_factors: np.ndarray  # float64 [V], entropies
    sample: Sample


def binned(table: CodeTable, rng: np.random.Generator, num_train: int, num_bins: int) -> Binned:
    """Return information and entropies of num_train rows, with codes in equally wide bins.

    So are the values of a factor that has other values than 0, 1, 2, ….
    """
    sample = table.draw(rng, num_train)
    bins, values = histogram_bins(sample.codes, num_bins), as_values(sample.factors, num_bins)
    return Binned(mutual_information(bins, values), entropy(bins), entropy(values), sample)


def as_values(factors: np.ndarray, num_bins: int) -> np.ndarray:
    """Return factors [N, K] as int64 [N, K]; columns of other numbers than 0, 1, 2, … are put into bins."""
    if factors.dtype.kind == "i":
        return factors
    whole = ((factors == np.floor(factors)) & (factors >= 0)).all(axis=0)
    return np.where(whole, factors, histogram_bins(factors, num_bins)).astype(np.int64)
