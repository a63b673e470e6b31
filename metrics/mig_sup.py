"""MIG-sup: does one factor occupy a code dimension more than any other factor does?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.binned import binned
from dislab.scoring.information import gaps
from dislab.scoring.table import CodeTable, varies


@register_metric(
    "mig_sup",
    title="MIG-sup: information gap between factors of each code dimension (10 bins)",
    reference="Li et al. 2020; 10 bins as in Carbonneau et al. 2022",
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
def mig_sup(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 10
) -> dict:
    """Return the mean over code dimensions of the gap between the two largest I_dk / H(f_k) over factors.

    z_d is put into equally wide bins. With a single factor the second largest is 0. The mean is over all D
    dimensions, as in the code of Carbonneau et al., so that a constant one counts as 0; Li et al. take it
    over those that vary, which is `mig_sup_active`. That code divides by the entropy of the code in place of
    that of the factor; here it is the factor's, as Li et al. have it. Factors of real numbers are binned as
    the codes are.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).
    num_bins : bins per code dimension.

    Returns
    -------
    mig_sup : mean over all dimensions, in [0, 1].
    mig_sup_active : mean over those that vary; 0 where none does.
    mig_sup_per_dimension : of every dimension.
    """
    information, _, entropies, sample = binned(table, rng, num_train, num_bins)
    gap = gaps((information / entropies).T)
    active = varies(sample.codes)
    return {
        "mig_sup": gap.mean(),
        "mig_sup_active": gap[active].mean() if active.any() else 0.0,
        "mig_sup_per_dimension": gap,
    }
