"""Correlations of code dimensions and factors."""

from __future__ import annotations

import numpy as np

from dislab.scoring.table import varies


def absolute_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return |ρ| of every code dimension and factor, float64 [D, K]; 0 for a constant dimension.

    Parameters
    ----------
    codes : float32 [N, D].
    factors : int64 or float64 [N, K], every column varies.
    """
    codes, factors = (_unit(values, of) for values, of in ((codes, varies(codes)), (factors, True)))
    return np.abs(codes.T @ factors).clip(max=1)


def _unit(values: np.ndarray, kept) -> np.ndarray:
    """Return columns [N, n] shifted to mean 0 and scaled to length 1, float64; those not kept are 0."""
    # Divided by the range first: squares of numbers near 1e-300 or 1e300 have no place in a float64.
    span = np.where(kept, np.ptp(values.astype(np.float64), axis=0), np.inf)
    values = (values - values.mean(axis=0, dtype=np.float64)) / span
    length = np.sqrt((values**2).sum(axis=0))
    return values / np.where(length > 0, length, 1)
