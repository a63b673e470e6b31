"""Mutual information gap: is each factor known to one code dimension much better than to any other?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.information import entropy, histogram_bins, mutual_information
from dislab.scoring.table import CodeTable


@register_metric(
    "mig",
    title="Mutual information gap (20 histogram bins)",
    reference="Chen et al. 2018, eq. 6; binned codes as in Locatello et al. 2019",
    low=0.0,
    high=1.0,
)
def mig(table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 20) -> dict:
    """MIG = 1/K Σ_k ( I_(1)k - I_(2)k ) / H(f_k), with the two largest mutual informations of each factor.

    I_dk is the mutual information of code dimension d, put into equally wide bins, and factor k. Factors that
    take a single value are left out of the mean; with one code dimension the second largest is 0. A factor
    with more values than bins cannot reach a gap of 1.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K].
    num_train : number of rows that are used (there is no test set).
    num_bins : bins per code dimension.

    Returns
    -------
    mig : in [0, 1].
    mig_per_factor : the gap of every factor (None for one with a single value).
    """
    rows, _ = table.split(rng, num_train)
    factors = table.factors[rows]
    entropies = entropy(factors)
    varying = entropies > 0
    if not varying.any():
        raise DislabError(
            f"mig needs a factor that varies, but all are constant in the {len(rows)} rows used"
        )
    information = mutual_information(histogram_bins(table.mean[rows], num_bins), factors[:, varying])
    largest = np.sort(np.vstack([np.zeros_like(information[:1]), information]), axis=0)
    gaps = (largest[-1] - largest[-2]) / entropies[varying]
    per_factor = np.full(len(varying), None)
    per_factor[varying] = gaps
    return {"mig": gaps.mean(), "mig_per_factor": per_factor}
