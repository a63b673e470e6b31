"""Active units: how many code dimensions does a model use at all?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.aggregate_posterior import CHUNK, kl_per_dimension
from dislab.scoring.table import CodeTable


@register_metric(
    "active_units",
    title="Active units: code dimensions whose mean varies",
    reference="Burda et al. 2016, section 5 (A_u)",
    low=0.0,
    direction="",
)
def active_units(table: CodeTable, rng: np.random.Generator, *, threshold: float = 0.01) -> dict:
    """Return the number of dimensions d with Var_n(mean_nd) > 0.01, over all rows.

    Parameters
    ----------
    table : codes [N, D], and log-variances [N, D] if it has them.
    threshold : for the variance of the means, in squared units of the codes, and for the KL, in nats.

    Returns
    -------
    active_units : a count, 0 .. D.
    active_units_by_kl : the number of dimensions with mean KL(q(z_d|n) || Normal(0, 1)) > 0.01, if there
        are log-variances.
    active_units_variance : Var_n(mean_nd), [D].
    """
    centre, squares = table.mean.mean(axis=0, dtype=np.float64), 0.0
    for start in range(0, len(table), CHUNK):
        squares += np.square(table.mean[start : start + CHUNK] - centre).sum(axis=0)
    variance = squares / len(table)
    counts = {"active_units": np.count_nonzero(variance > threshold), "active_units_variance": variance}
    if table.logvar is not None:
        counts["active_units_by_kl"] = np.count_nonzero(kl_per_dimension(table) > threshold)
    return counts
