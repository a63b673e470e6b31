"""Modularity: does each code dimension know one factor only?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.information import histogram_bins, mutual_information
from dislab.scoring.table import CodeTable, varies

NO_INFORMATION = 1e-12  # nats: what is below is the rounding of a zero


@register_metric(
    "modularity",
    title="Modularity (20 histogram bins)",
    reference="Ridgeway & Mozer 2018; protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
    needs=("two factors",),
)
def modularity(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 20
) -> dict:
    """Return the mean over code dimensions of how far their information is about one factor alone.

    A constant dimension counts as 0, as in disentanglement_lib; `modularity_active` leaves it out. A
    dimension of noise scores well above 0: its estimated informations are biased, and the bias is larger for
    factors with many values.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of rows that are used (there is no test set).
    num_bins : bins per code dimension.

    Returns
    -------
    modularity : mean over all D dimensions, in [0, 1].
    modularity_active : mean over those that vary; 0 where none does.
    modularity_per_dimension : of every dimension.
    """
    sample = table.draw(rng, num_train)
    if len(sample.columns) < 2:
        raise DislabError(f"it needs two factors that vary in the {len(sample.codes)} rows used")
    information = mutual_information(histogram_bins(sample.codes, num_bins), sample.factors)
    scores = modularity_per_dimension(information)
    active = varies(sample.codes)
    return {
        "modularity": scores.mean(),
        "modularity_active": scores[active].mean() if active.any() else 0.0,
        "modularity_per_dimension": scores,
    }


def modularity_per_dimension(information: np.ndarray) -> np.ndarray:
    """Return 1 - δ_d, float64 [D], with δ_d = ( Σ_k m_dk² - θ_d² ) / ( θ_d² (K - 1) ) and θ_d = max_k m_dk.

    Parameters
    ----------
    information : m, the mutual information of code dimension and factor, float [D, K] with K >= 2; a row of
        zeros scores 0.
    """
    largest = information.max(axis=1, keepdims=True)
    informed = largest[:, 0] > NO_INFORMATION
    shares = (information[informed] / largest[informed]) ** 2
    scores = np.zeros(len(information))
    scores[informed] = 1 - (shares.sum(axis=1) - 1) / (information.shape[1] - 1)
    return scores
