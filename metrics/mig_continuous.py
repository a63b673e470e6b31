"""Mutual information gap of factors that are quantities, from nearest neighbours and without bins."""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.information import gaps
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable


@register_metric(
    "mig_continuous",
    title="Mutual information gap without bins (nearest neighbours), as squared correlation",
    reference="Chen et al. 2018, eq. 6; Kraskov et al. 2004, Ross 2014 and Linfoot 1957",
    low=0.0,
    high=1.0,
    slow=True,
    needs=("quantities",),
)
def mig_continuous(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_neighbors: int = 3
) -> dict:
    """Return 1/K Σ_k ( R_(1)k - R_(2)k ) with R_dk = 1 - exp(-2 I_dk), the two largest ones of each factor.

    MIG divides information by the entropy of the factor, which a factor of real numbers does not have. R is
    in [0, 1] instead: it is ρ² of two Normal variables with correlation ρ (Linfoot 1957). The score is not
    that of `mig`, and no published number is comparable.

    I_dk is scikit-learn's estimate from the nearest neighbours of every row, `mutual_info_classif` for a
    factor of whole numbers and `mutual_info_regression` for another. With one code dimension the second
    largest is 0, and a constant one has I = 0.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of different rows that are used (there is no test set).
    num_neighbors : neighbours of the estimator.

    Returns
    -------
    mig_continuous : in [0, 1].
    mig_continuous_per_factor : the gap of every factor, None for one with a single value.
    """
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    sample = table.draw(rng, num_train, distinct=True)
    standardise = Standardiser(sample.codes)
    codes = standardise(sample.codes)[:, standardise.varies]
    information = np.zeros((sample.codes.shape[1], len(sample.columns)))
    settings = {"discrete_features": False, "n_neighbors": min(num_neighbors, len(codes) - 1)}
    for k, values in enumerate(sample.factors.T):
        are_classes = (values == np.floor(values)).all() and len(np.unique(values)) < len(values)
        estimate = mutual_info_classif if are_classes else mutual_info_regression
        if codes.size:
            seed = int(rng.integers(2**31))
            information[standardise.varies, k] = estimate(codes, values, **settings, random_state=seed)
    gap = gaps(1 - np.exp(-2 * information))
    return {"mig_continuous": gap.mean(), "mig_continuous_per_factor": sample.per_factor(gap)}
