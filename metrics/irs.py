"""Interventional robustness score: does a code dimension stay put when all factors but one change?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.information import histogram_bins
from dislab.scoring.table import CodeTable, rows_by_value, spread, varies


@register_metric(
    "irs",
    title="Interventional robustness score",
    reference="Suter et al. 2019; protocol of disentanglement_lib",
    high=1.0,
    needs=("factor",),
)
def irs(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_bins: int = 20,
    diff_quantile: float = 0.99,
) -> dict:
    """Return IRS = Σ_d M_d max_k ( 1 - V_dk / M_d ) / Σ_d M_d, over the dimensions that vary.

    M_d is the largest distance of a code from the dimension's mean. V_dk is the mean over the values of
    factor k of how far codes that share it lie from their own mean, as the `diff_quantile` of the distances.
    Codes that know nothing score well above 0, because no value's quantile reaches the largest distance.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).
    num_bins : values of a factor are put into so many equally wide bins.
    diff_quantile : 1 takes the largest distance within each value.

    Returns
    -------
    irs : at most 1, and in [0, 1] where codes that share a value are not further from their mean than all
        codes are from theirs; 0 if no dimension varies.
    irs_active_dimensions : number of dimensions that vary.
    irs_per_dimension : max_k ( 1 - V_dk / M_d ) of every dimension (None for one that does not vary).
    """
    if not 0 < diff_quantile <= 1:
        raise DislabError(f"diff_quantile is {diff_quantile}: it must be above 0 and at most 1")
    sample = table.draw(rng, num_train)
    codes, groups = sample.codes.astype(np.float64), histogram_bins(sample.factors, num_bins)
    largest = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    active = varies(sample.codes)
    scores = 1 - deviations(codes[:, active], groups, diff_quantile).min(axis=1) / largest[active]
    return {
        "irs": np.average(scores, weights=largest[active]) if active.any() else 0.0,
        "irs_active_dimensions": np.count_nonzero(active),
        "irs_per_dimension": spread(scores, active, len(active)),
    }


def deviations(codes: np.ndarray, groups: np.ndarray, quantile: float) -> np.ndarray:
    """Return V_dk, float64 [D, K]: the mean over groups of the quantile of |z_d - mean of the group|.

    All groups have the same weight.

    Parameters
    ----------
    codes : float64 [N, D].
    groups : int [N, K].
    """
    within = np.empty((codes.shape[1], groups.shape[1]))
    for k, column in enumerate(groups.T):
        together = [codes[rows] for rows in rows_by_value(column)]
        distances = [np.abs(group - group.mean(axis=0)) for group in together]
        within[:, k] = np.mean([np.quantile(distance, quantile, axis=0) for distance in distances], axis=0)
    return within
