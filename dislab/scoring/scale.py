"""Remarks on scores that depend on the scale or the offset of the codes."""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabWarning
from dislab.scoring.table import varies

REMEDY = "dislab.evaluate(…, scale='unit') standardises the codes first"
# If no dimension has a standard deviation below SMALL, or a mean above FAR of them, the BetaVAE score and SAP
# were measured to be those of standardised codes to 0.03 (docs/metrics.md).
SMALL, FAR = 0.5, 2.0
MINOR = 1 / 20  # of the largest standard deviation: a dimension below it is taken for a dead one


def small_dimensions(codes: np.ndarray, limit: float) -> np.ndarray:
    """Return which dimensions of codes [N, D] have a standard deviation below the limit, and are not dead."""
    deviation = codes.std(axis=0, dtype=np.float64) * varies(codes)
    return (deviation > 0) & (deviation < limit) & (deviation >= MINOR * deviation.max())


def has_usual_scale(codes: np.ndarray) -> bool:
    """Return whether no dimension of the codes [N, D] is small or far from 0, but for dead ones."""
    mean, deviation = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)
    far = small_dimensions(codes, np.inf) & (np.abs(mean) > FAR * deviation)
    return not (far | small_dimensions(codes, SMALL)).any()


def remark_on_scale(name: str, value: float, standardised: float, why: str) -> None:
    """Warn if a score differs from that of standardised codes by more than 0.02 and a tenth of the larger."""
    if abs(value - standardised) > max(0.02, 0.1 * value, 0.1 * standardised):
        text = (
            f"{name} is {value:.3f} and would be {standardised:.3f} for standardised codes: {why}; {REMEDY}"
        )
        warnings.warn(text, DislabWarning, stacklevel=3)
