"""The golden of the regression of factors."""

from __future__ import annotations

import numpy as np

from dislab.benchmarks.goldens import Given, golden
from dislab.metrics.fov_regression_r2 import BATCH, r_squared


@golden("fov_r2")
def fov_r2(given: Given) -> dict[str, object]:
    """R² by the variance of the whole grid, in batches and of all rows, and by that of the test rows."""
    targets, predictions = given["targets"].numpy(), given["predictions"].numpy()
    variance = np.array([(np.arange(size) / (size - 1)).var() for size in given["sizes"].tolist()])
    in_batches = r_squared(targets, predictions, variance, BATCH)
    standard = r_squared(targets, predictions, targets.var(axis=0))
    return {
        "grid_variance": variance,
        "r2_softtpr": in_batches,
        "r2_pooled": r_squared(targets, predictions, variance),
        "r2_standard": standard,
        "softtpr": in_batches.mean(),
        "standard": standard.mean(),
    }
