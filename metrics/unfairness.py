"""Unfairness: do predictions of one factor from the code depend on another, sensitive one?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable, spread


@register_metric(
    "unfairness",
    title="Unfairness: predictions of a factor that depend on another factor",
    reference="Locatello et al. 2019 (On the Fairness of Disentangled Representations), section 4",
    low=0.0,
    high=1.0,
    direction="down",
    slow=True,
    needs=("two factors",),
)
def unfairness(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 20_000,
    num_vectors: int = 100,
    num_rounds: int = 100,
) -> dict:
    """Return the mean of `total_variations` over target factors i, sensitive factors j != i and values of j.

    Boosted trees predict every factor from the whole code (`dislab.scoring.boosting.joint_boosting`, which
    grows the trees of scikit-learn's GradientBoostingClassifier at once). On a full grid, factor j of
    `num_vectors` random factor vectors is set to each of its values in turn, and nothing else about them
    changes. Other tables hold no such rows: there, test rows are grouped by their value of j. Few predictions
    per value make the score too large: of 10 equally likely values, 100 draws have a total variation of 0.12
    from the truth, and 300 draws 0.07. A full grid and another table are therefore not comparable.

    A code that predicts nothing is fair, so read it beside `dci_informativeness`.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single training value are left out.
    num_train : rows that the trees are fitted to.
    num_test : rows that are predicted if the table is no full grid.
    num_vectors : factor vectors that are predicted for each value of a sensitive factor on a full grid.
    num_rounds : boosting rounds; each has a tree for every value of every factor.

    Returns
    -------
    unfairness : mean over pairs of factors of the mean over values of j, in [0, 1].
    unfairness_worst : mean over target factors of the largest of these over sensitive factors.
    unfairness_max : the largest of all.
    unfairness_per_factor : mean over sensitive factors, of every target factor.
    unfairness_pairs, unfairness_pairs_max : mean and maximum over the values of j, of every target (rows) and
        sensitive factor (columns); None on the diagonal.

    Raises
    ------
    DislabError : fewer than two factors vary in the training rows.
    """
    from dislab.scoring.boosting import joint_boosting

    train, test = table.split(rng, num_train, num_test)
    columns = np.flatnonzero(np.ptp(table.factors[train], axis=0))
    if len(columns) < 2:
        raise DislabError(f"it needs two factors that vary in the {len(train)} rows used")
    if not table.full_grid and not len(test):
        raise DislabError(f"it needs rows to test on, but all {len(train)} rows are used for training")
    if table.full_grid:
        groups = [interventions(table, j, rng.integers(len(table), size=num_vectors)) for j in columns]
    else:
        groups = [(test, table.factors[test, j]) for j in columns]
    rows, place = np.unique(np.concatenate([rows for rows, _ in groups]), return_inverse=True)
    factors = table.factors[train][:, columns]
    predicted = joint_boosting(table.mean[train], factors, table.mean[rows], rng, num_rounds).test[place]
    mean, largest = np.full((2, len(columns), len(columns)), np.nan)  # [target, sensitive]
    for j, (_, values) in enumerate(groups):
        own, predicted = np.split(predicted, [len(values)])
        for i in np.delete(np.arange(len(columns)), j):
            variations = total_variations(contingency(own[:, i], values))
            mean[i, j], largest[i, j] = variations.mean(), variations.max()
    num_factors = table.factors.shape[1]
    return {
        **over_pairs(mean),
        "unfairness_per_factor": spread(np.nanmean(mean, axis=1), columns, num_factors),
        "unfairness_pairs": of_pairs(mean, columns, num_factors),
        "unfairness_pairs_max": of_pairs(largest, columns, num_factors),
    }


def interventions(table: CodeTable, factor: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a full grid in which a factor has been set to each of its values, and the values.

    Parameters
    ----------
    factor : which of the K factors is set.
    vectors : int [V], the rows whose other factors are kept.

    Returns
    -------
    rows, values : int64 [n V] of n values.
    """
    index = np.ravel_multi_index(tuple(table.factors.T), table.sizes)
    position = np.empty(len(table), np.int64)
    position[index] = np.arange(len(table))
    values = np.arange(table.sizes[factor]).repeat(len(vectors))
    wanted = table.factors[np.tile(vectors, table.sizes[factor])]
    wanted[:, factor] = values
    return position[np.ravel_multi_index(tuple(wanted.T), table.sizes)], values


def contingency(predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how often each value (rows) is predicted with each sensitive value that occurs, int64 [n, S]."""
    _, value = np.unique(values, return_inverse=True)
    counts = np.zeros((predicted.max() + 1, value.max() + 1), np.int64)
    np.add.at(counts, (predicted, value), 1)
    return counts


def total_variations(counts: np.ndarray) -> np.ndarray:
    """Return ½ Σ_y |p(y | s) - p(y)| for every sensitive value s, float64 [S].

    Parameters
    ----------
    counts : int [n, S], the predictions y of each sensitive value; no column is empty.
    """
    overall = counts.sum(axis=1, keepdims=True) / counts.sum()
    return np.abs(counts / counts.sum(axis=0) - overall).sum(axis=0) / 2


def over_pairs(mean: np.ndarray) -> dict[str, float]:
    """Return the scores, of means by target (rows) and sensitive factor [V, V] with NaN on the diagonal."""
    return {
        "unfairness": np.nanmean(mean),
        "unfairness_worst": np.nanmax(mean, axis=1).mean(),
        "unfairness_max": np.nanmax(mean),
    }


def of_pairs(values: np.ndarray, columns: np.ndarray, num_factors: int) -> np.ndarray:
    """Return values of pairs [V, V] of the factors `columns` for all factors, object [K, K]; None for NaN."""
    known = np.where(np.isnan(values), None, values)
    return spread(spread(known, columns, num_factors).T, columns, num_factors).T
