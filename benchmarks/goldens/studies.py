"""The goldens of what is computed from several runs: UDR, and the analysis of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dislab.benchmarks.goldens import Given, golden
from dislab.report.analysis import (
    SAME_OR_OTHER,
    chance_to_beat,
    data_correlation,
    rank_correlation,
    variance_explained,
)
from dislab.scoring.udr import INFORMATIVE, LASSO_ALPHA, pairs, relations, udr


@golden("udr")
def udr_(given: Given) -> dict[str, object]:
    """Relations of dimensions, scores of pairs and of models, by both correlations and normalisers."""
    codes, kl = given["representations"].numpy(), given["kl"].numpy()
    ours = {"lasso_alpha": LASSO_ALPHA, "kl_threshold": INFORMATIVE}
    for name in ("lasso", "spearman"):
        related = relations(codes, kl, name)
        ours[f"{name}_correlations"] = related
        for normaliser, ending in (("reference", ""), ("paper", "_paper")):
            ours[f"{name}_pairwise{ending}"] = pairs(related, kl, normaliser)
            ours[f"{name}_scores{ending}"] = udr(codes, kl, name, normaliser)
    return ours


@golden("study")
def study(given: Given) -> dict[str, object]:
    """Correlations, variances and chances of scores [data, method, strength, seed, metric]."""
    scores = given["scores"].numpy()
    indices = np.indices(scores.shape[:-1]).reshape(4, -1)
    columns = {"data": indices[0], "method": indices[1], "seed": indices[3]}
    columns["configuration"] = indices[1] * scores.shape[2] + indices[2]
    models = pd.DataFrame(columns | dict(enumerate(scores.reshape(-1, scores.shape[-1]).T)))
    data, metrics = scores.shape[0], scores.shape[-1]
    ranks = rank_correlation(models).query("data != 'mean'")["spearman"].to_numpy()
    shares = variance_explained(models, resampled=1)
    chances = chance_to_beat(models).set_index("which")["chance"][SAME_OR_OTHER]
    return {
        "rank_correlation": ranks.reshape(data, metrics, metrics),
        "data_rank_correlation": data_correlation(models)["spearman"].to_numpy().reshape(metrics, data, data),
        "variance_by_method": shares.query("by == 'method'")["share"].to_numpy().reshape(data, metrics),
        "variance_by_method_and_strength": shares.query("by == 'configuration'")["share"]
        .to_numpy()
        .reshape(data, metrics),
        "same_data_same_metric": chances.iloc[0],
        "other_data_same_metric": chances.iloc[1],
        "same_data_other_metric": chances.iloc[2],
        "other_data_other_metric": chances.iloc[3],
    }
