"""SAP of factors that are quantities: does one code dimension correlate with a factor by far the most?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.correlation import absolute_correlations
from dislab.scoring.information import gaps
from dislab.scoring.table import CodeTable


@register_metric(
    "sap_continuous",
    title="SAP score of quantities (squared correlation per code dimension)",
    reference="Kumar et al. 2018 (DIP-VAE), for continuous factors",
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
def sap_continuous(table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000) -> dict:
    """Return 1/K Σ_k ( S_(1)k - S_(2)k ) with S_dk = ρ(z_d, f_k)², the two largest ones of each factor.

    This is `sap` with `continuous_factors`, for factors of real numbers too. It does not depend on the scale
    of the codes. A constant dimension has S = 0; with one code dimension the second largest is 0.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).

    Returns
    -------
    sap_continuous : in [0, 1].
    sap_continuous_per_factor : the gap of every factor, None for one with a single value.
    """
    sample = table.draw(rng, num_train)
    gap = gaps(absolute_correlations(sample.codes, sample.factors) ** 2)
    return {"sap_continuous": gap.mean(), "sap_continuous_per_factor": sample.per_factor(gap)}
