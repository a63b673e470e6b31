"""Mutual information gap as first defined: of z drawn from q(z|x) in place of binned means."""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.aggregate_posterior import Mixture, entropy_of_density, posterior
from dislab.scoring.information import entropy, gaps
from dislab.scoring.table import CodeTable, spread


@register_metric(
    "mig_sampled",
    title="Mutual information gap of q(z|x), over all rows",
    reference="Chen et al. 2018, eq. 6 and appendix; the sums over samples are integrated numerically",
    low=0.0,
    high=1.0,
    needs=("variances", "two factors"),
)
def mig_sampled(table: CodeTable, rng: np.random.Generator) -> dict:
    """Return MIG = 1/K Σ_k ( I_(1)k - I_(2)k ) / H(v_k).

    I(z_d; v_k) = H(z_d) - Σ_v p(v) H(z_d | v_k = v) is the mutual information of dimension d and factor k.

    z_d is drawn from q(z_d|n) of a row n drawn uniformly: H(z_d) is the entropy of a mixture of all N
    Normals, H(z_d | v_k = v) that of the rows that have the value v. The original averages ln q over 10,000
    samples of z with all rows in the inner sum. Here the mixtures' densities are taken from all rows and
    -q ln q is integrated on a grid, to some 1e-4 nats, so that nothing is random. If only the sampled rows
    were in the inner sum, every z would lie near its own row and all gaps would be near 0.

    Factors that take a single value are left out of the mean; with one code dimension the second largest
    information is 0. Standard deviations below 1 / 8,192 of what their dimension spans are raised to that.

    Parameters
    ----------
    table : codes [N, D], log-variances [N, D] and factors [N, K].

    Returns
    -------
    mig_sampled : in [0, 1].
    mig_sampled_rows : the number of rows in the mixtures: all of them.
    mig_sampled_widened : the share of the N D Normals whose standard deviation was raised.
    mig_sampled_per_factor : the gap of every factor (None for one with a single value).
    """
    normals = posterior(table)
    entropies = entropy(table.factors)
    varying = entropies > 0
    values = [np.unique(factor, return_inverse=True)[1] for factor in table.factors.T[varying]]
    shares = [np.bincount(value) / len(table) for value in values]
    information = np.empty((table.mean.shape[1], len(values)))
    for d in range(len(information)):
        mixture = Mixture(*normals.normals(dimensions=d))
        information[d] = entropy_of_density(mixture.points, mixture.density())
        for k, (value, share) in enumerate(zip(values, shares, strict=True)):
            information[d, k] -= share @ mixture.entropies(value)
    gap = gaps(information.clip(min=0)) / entropies[varying]
    return {
        "mig_sampled": gap.mean(),
        "mig_sampled_rows": len(table),
        "mig_sampled_widened": normals.widened,
        "mig_sampled_per_factor": spread(gap, varying, len(varying)),
    }
