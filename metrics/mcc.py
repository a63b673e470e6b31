"""Mean correlation coefficient: do code dimensions and factors correlate, matched one to one?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.correlation import absolute_correlations
from dislab.scoring.table import CodeTable, spread, varies

REFERENCE = "Hyvärinen & Morioka 2016; protocol of Klindt et al. 2021 (SlowVAE)"


@register_metric(
    "mcc_pearson",
    title="MCC: mean correlation of factors with their own code dimension",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
@register_metric(
    "mcc_spearman",
    title="MCC: mean rank correlation of factors with their own code dimension",
    group="mcc",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("quantities",),
)
def mcc(table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000) -> dict:
    """Return MCC = 1/K max_π Σ_k |ρ(f_k, z_π(k))|, over matchings π that give no dimension to two factors.

    ρ is the correlation coefficient of Pearson, or that of Spearman, which is the former of ranks; tied
    values share their mean rank. A factor that is left without a dimension, because there are fewer
    dimensions than factors, counts as 0, and so does a constant dimension. Values of factors are taken as
    quantities, so that a factor whose values have no order, such as a shape, lowers the score of a perfect
    code.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).

    Returns
    -------
    mcc_pearson, mcc_spearman : in [0, 1].
    mcc_pearson_per_factor, mcc_spearman_per_factor : |ρ| of every factor with its dimension, None for one
        with a single value.
    mcc_pearson_assignment, mcc_spearman_assignment : the dimension of every factor, 0 .. D - 1, None for one
        without.
    """
    sample = table.draw(rng, num_train)
    codes, factors = np.where(varies(sample.codes), sample.codes, 0), sample.factors
    ranks = mean_ranks(codes), mean_ranks(factors)
    scores = {}
    for name, pair in (("mcc_pearson", (codes, factors)), ("mcc_spearman", ranks)):
        correlations = absolute_correlations(*pair)
        matched, dimensions = best_matching(correlations)
        own = np.zeros(len(sample.columns))
        own[matched] = correlations[dimensions, matched]
        scores[name] = own.mean()
        scores[f"{name}_per_factor"] = sample.per_factor(own)
        scores[f"{name}_assignment"] = sample.per_factor(spread(dimensions, matched, len(own)))
    return scores


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value within its column [N, n], float64; tied values share their mean rank.

    The same as scipy.stats.rankdata, without its import of two thirds of a second.
    """
    ranks = []
    for column in values.T:
        _, of_value, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[of_value])
    return np.column_stack(ranks)


def best_matching(correlations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the one-to-one matching with the largest sum of correlations [D, K].

    Returns
    -------
    factors, dimensions : int64 [min(D, K)], which are matched; factors ascend.
    """
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(correlations.T, maximize=True)
