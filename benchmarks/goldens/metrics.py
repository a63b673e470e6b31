"""Goldens of scores that disentanglement_lib's main study lacks."""

from __future__ import annotations

import numpy as np

from dislab.benchmarks.goldens import Given, golden
from dislab.metrics.mcc import best_matching
from dislab.metrics.unfairness import over_pairs, total_variations
from dislab.scoring.correlation import absolute_correlations


@golden("fairness")
def fairness(given: Given) -> dict[str, object]:
    """The scores of counted predictions, counts_i_j of target factor i and sensitive factor j."""
    pairs = [tuple(map(int, name.split("_")[1:])) for name in given if name.startswith("counts_")]
    mean, largest = np.full((2, *np.max(pairs, axis=0) + 1), np.nan)
    for i, j in pairs:
        variations = total_variations(given[f"counts_{i}_{j}"].numpy())
        mean[i, j], largest[i, j] = variations.mean(), variations.max()
    scores = over_pairs(mean)
    return {
        "mean_tv": np.nan_to_num(mean),
        "max_tv": np.nan_to_num(largest),
        "unfairness": scores["unfairness"],
        "max_sens": scores["unfairness_worst"],
        "max_max": scores["unfairness_max"],
    }


@golden("mcc")
def mcc(given: Given) -> dict[str, object]:
    """Both correlations of factors and codes, and their best matchings."""
    from scipy.stats import rankdata

    codes, factors = given["codes"].numpy(), given["factors"].numpy()
    ranks = rankdata(codes, axis=0), rankdata(factors, axis=0)
    values: dict[str, object] = {}
    for name, pair in (("pearson", (codes, factors)), ("spearman", ranks)):
        correlations = absolute_correlations(*pair)
        matched, dimensions = best_matching(correlations)
        values[f"abs_{name}"] = correlations.T
        values[f"assignment_{name}"] = dimensions
        values[f"mcc_{name}"] = correlations[dimensions, matched].sum() / factors.shape[1]
    return values
