"""DCI by boosted trees: is each code dimension tied to one factor, and can the factors be predicted?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dislab.progress import say
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable

PAPER = "Eastwood & Williams 2018, section 2"
REFERENCE = f"{PAPER}; protocol of Locatello et al. 2019"
FAST = f"{REFERENCE}, with its trees grown all at once"
SECONDS = {
    "dci": 4e-7,
    "dci_fast": 1e-8,
}  # per code and tree, on one core: measured with 10 to 1,000 dimensions
MOST_SECONDS = 60  # of a score that is computed by default


@register_metric(
    "dci_disentanglement",
    title="DCI disentanglement",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    slow=True,
    needs=("factor",),
)
@register_metric(
    "dci_completeness",
    title="DCI completeness",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    slow=True,
    needs=("factor",),
)
@register_metric(
    "dci_informativeness",
    title="DCI informativeness (accuracy on test rows)",
    group="dci",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    slow=True,
    needs=("factor",),
)
def dci(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    num_rounds: int = 100,
) -> dict:
    """Return DCI scores by scikit-learn's GradientBoostingClassifier, one per factor.

    So does disentanglement_lib. It takes minutes per table: 100 trees per factor value, every split sought
    among all codes. `dci_fast` is quicker. Factors that take a single value among the training rows are left
    out. Of dimensions that are copies of each other every split takes one at random.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K].
    num_train, num_test : rows that the classifiers are fitted to and tested on.
    num_rounds : boosting rounds; each has a tree for every value of every factor.

    Returns
    -------
    dci_disentanglement, dci_completeness : in [0, 1], see `importance_scores`.
    dci_informativeness, dci_informativeness_train : mean over factors of the accuracy on test and training
        rows.
    dci_disentanglement_per_code [D], dci_completeness_per_factor, dci_informativeness_per_factor [K] : None
        for a factor that was left out.
    dci_disentanglement_importance : [D, K], each column sums to 1 (or is 0: no split was found).
    """
    from dislab.scoring.boosting import gradient_boosting

    return _scores("dci", gradient_boosting, table, rng, num_train, num_test, num_rounds)


def takes_minutes(table: CodeTable) -> bool:
    """Return whether `dci_fast` takes more than a minute or so."""
    values = sum(min(size, len(table)) for size in table.sizes)
    codes = min(10_000, len(table)) * table.mean.shape[1]
    return SECONDS["dci_fast"] * 100 * values * codes > MOST_SECONDS


@register_metric(
    "dci_fast_disentanglement",
    title="DCI disentanglement (fast trees)",
    reference=FAST,
    low=0.0,
    high=1.0,
    slow=takes_minutes,
    needs=("factor",),
)
@register_metric(
    "dci_fast_completeness",
    title="DCI completeness (fast trees)",
    reference=FAST,
    low=0.0,
    high=1.0,
    slow=takes_minutes,
    needs=("factor",),
)
@register_metric(
    "dci_fast_informativeness",
    title="DCI informativeness (accuracy on test rows; fast trees)",
    group="dci_fast",
    reference=FAST,
    low=0.0,
    high=1.0,
    slow=takes_minutes,
    needs=("factor",),
)
def dci_fast(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    num_rounds: int = 100,
) -> dict:
    """Return DCI scores by the boosted trees of `dci`, grown all at once: in seconds instead of minutes.

    Trees, learning rate, leaves and importances are the same. A split is sought first between some 300 bins
    of the sorted codes, then among all codes of the bins around the best. Where all splits are weak, as in
    noise, it is sometimes not quite the best one. `benchmarks/dci_learners.py` compares the scores with those
    of `dci`.

    Parameters
    ----------
    table, num_train, num_test, num_rounds : as for `dci`.

    Returns
    -------
    The scores of `dci`, by names that begin with dci_fast.
    """
    from dislab.scoring.boosting import joint_boosting

    return _scores("dci_fast", joint_boosting, table, rng, num_train, num_test, num_rounds)


def _scores(
    prefix: str, learner: Callable, table: CodeTable, rng, num_train: int, num_test: int, num_rounds: int
) -> dict:
    sample = table.draw(rng, num_train, num_test)
    values = [len(np.unique(column)) for column in sample.factors.T]
    num_trees = num_rounds * sum(number if number > 2 else 1 for number in values)
    hours = SECONDS[prefix] * num_trees * sample.codes.size / 3600
    if hours > 0.5:
        say(
            f"{prefix} takes some {hours:.1f} hours: {num_trees:,} trees on {len(sample.codes):,} rows of "
            f"{sample.codes.shape[1]:,} dimensions; a smaller num_train or num_rounds takes less"
        )
    boosted = learner(sample.codes, sample.factors, sample.test_codes, rng, num_rounds)
    scores = importance_scores(boosted.importance)
    accuracy = (boosted.test == sample.test_factors).mean(axis=0)
    return {
        f"{prefix}_disentanglement": scores.disentanglement,
        f"{prefix}_disentanglement_per_code": scores.per_code,
        f"{prefix}_disentanglement_importance": sample.per_factor(boosted.importance),
        f"{prefix}_completeness": scores.completeness,
        f"{prefix}_completeness_per_factor": sample.per_factor(scores.per_factor),
        f"{prefix}_informativeness": accuracy.mean(),
        f"{prefix}_informativeness_train": (boosted.train == sample.factors).mean(),
        f"{prefix}_informativeness_per_factor": sample.per_factor(accuracy),
    }


# From importances to scores ------------------------------------------------------------------------


class ImportanceScores(NamedTuple):
    disentanglement: float
    completeness: float
    per_code: np.ndarray
    per_factor: np.ndarray


def importance_scores(importance: np.ndarray) -> ImportanceScores:
    """Return disentanglement and completeness (Eastwood & Williams 2018, section 2) of importances R.

    D_d = 1 - H_K(P_d.), the entropy to base K of row d of R over its sum, and D = Σ_d ρ_d D_d with ρ_d the
    share of row d in Σ R: a dimension that serves no factor does not count. Completeness C is the same for
    the columns, to base D. A row or column of zeros scores 0, and so does R = 0. With a single column (row),
    every row (column) that is not 0 scores 1.

    Parameters
    ----------
    importance : non-negative [D, K].

    Returns
    -------
    disentanglement, completeness, per_code float64 [D], per_factor float64 [K].
    """
    per_code, per_factor = concentration(importance), concentration(importance.T)
    return ImportanceScores(
        _weighted_mean(per_code, importance.sum(axis=1)),
        _weighted_mean(per_factor, importance.sum(axis=0)),
        per_code,
        per_factor,
    )


def concentration(importance: np.ndarray) -> np.ndarray:
    """Return 1 - entropy, to base B, of every row of a matrix [A, B], float64 [A]; 0 for a row of zeros."""
    padded = importance + 1e-11  # as in disentanglement_lib
    share = padded / padded.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(share)).sum(axis=1)
    base = importance.shape[1]
    return np.where(importance.any(axis=1), (1 - entropy / np.log(max(base, 2))).clip(0, 1), 0.0)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights if weights.any() else None))
