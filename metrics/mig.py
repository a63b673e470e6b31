"""Mutual information gap: does one code dimension know a factor much better than any other dimension does?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.information import entropy, gaps, histogram_bins, mutual_information
from dislab.scoring.settings import check_counts
from dislab.scoring.table import CodeTable


@register_metric(
    "mig",
    title="Mutual information gap (20 histogram bins)",
    reference="Chen et al. 2018, eq. 6; binned codes as in Locatello et al. 2019",
    low=0.0,
    high=1.0,
)
def mig(table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 20) -> dict:
    """Return MIG = 1/K Σ_k ( I_(1)k - I_(2)k ) / H(f_k), with the two largest informations on each factor.

    I_dk is the mutual information of code dimension d, put into equally wide bins, and factor k. Factors that
    take a single value are left out of the mean. With one code dimension the second largest is 0. A factor
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
    check_counts(num_train=num_train)
    check_counts(2, num_bins=num_bins)
    sample = table.draw(rng, num_train)
    information = mutual_information(histogram_bins(sample.codes, num_bins), sample.factors)
    gap = gaps(information) / entropy(sample.factors)
    return {"mig": gap.mean(), "mig_per_factor": sample.per_factor(gap)}
