"""DCIMIG: how much of the factors is known to dimensions that know little of any other factor?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.binned import binned
from dislab.scoring.information import gaps
from dislab.scoring.table import CodeTable


@register_metric(
    "dcimig",
    title="DCIMIG (3CharM): information gap of each factor's best dimension (10 bins)",
    reference="Sepliarskaia et al. 2019; protocol of Carbonneau et al. 2022",
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
def dcimig(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 10
) -> dict:
    """Return Σ_k max_d R_dk / Σ_k H(f_k), with R_dk the gap of dimension d if factor k is its best, else 0.

    The gap of d is its largest less its second largest information on a factor, of z_d in equally wide bins.
    With a single factor the second largest is 0. Unlike in MIG, copies of a dimension cost nothing. Factors
    count by their entropies, and factors of real numbers are binned as the codes are.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).
    num_bins : bins per code dimension.

    Returns
    -------
    dcimig : in [0, 1].
    dcimig_per_factor : max_d R_dk / H(f_k), None for a factor with a single value.
    """
    information, _, entropies, sample = binned(table, rng, num_train, num_bins)
    best = np.zeros(len(entropies))
    np.maximum.at(best, information.argmax(axis=1), gaps(information.T))
    return {"dcimig": best.sum() / entropies.sum(), "dcimig_per_factor": sample.per_factor(best / entropies)}
