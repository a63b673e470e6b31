"""JEMMIG: does one code dimension know a factor better than any other, and nothing else?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.binned import binned
from dislab.scoring.information import gaps
from dislab.scoring.table import CodeTable

AS_GOOD = 1e-9  # nats: informations that differ by less are equal but for rounding


@register_metric(
    "jemmig",
    title="JEMMIG: information gap with the joint entropy (normalised, 10 bins)",
    reference="Do & Tran 2020; as normalised and binned by Carbonneau et al. 2022",
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
def jemmig(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 10
) -> dict:
    """Return 1/K Σ_k ( 1 - ( H(z_d*, f_k) - I_(1)k + I_(2)k ) / ( H(f_k) + ln B ) ), higher is better.

    d* is the dimension with the largest information I_(1)k on factor k, of z_d in B equally wide bins. What
    is divided is JEMMIG itself, the lower the better. It is 0 if d* determines the factor, the factor
    determines d*, and no other dimension knows anything of the factor.

    A constant code does not score 0 but ln B / (H(f_k) + ln B), since it holds nothing else either. Factors
    of real numbers are binned as the codes are. Of dimensions that know equally much, the one with the least
    joint entropy is d*. With one code dimension I_(2)k is 0.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).
    num_bins : B.

    Returns
    -------
    jemmig : in [0, 1].
    jemmig_nats : mean over factors of JEMMIG itself, in nats; lower is better.
    jemmig_per_factor : of every factor, None for one with a single value.
    """
    information, of_codes, of_factors, sample = binned(table, rng, num_train, num_bins)
    joint = of_codes[:, None] + of_factors - information
    best = information >= information.max(axis=0) - AS_GOOD
    nats = np.where(best, joint, np.inf).min(axis=0) - gaps(information)
    scores = 1 - nats / (of_factors + np.log(num_bins))
    return {
        "jemmig": scores.mean(),
        "jemmig_nats": nats.mean(),
        "jemmig_per_factor": sample.per_factor(scores),
    }
