"""FactorVAE score: does the code dimension that varies least tell which factor a set of images shares?"""

from __future__ import annotations

import copy
import warnings

import numpy as np

from dislab.errors import DislabError, DislabWarning
from dislab.registry import register_metric
from dislab.scoring.scale import REMEDY, remark_on_scale, small_dimensions
from dislab.scoring.table import CodeTable, varies

CHUNK = 4_000_000  # code values per gather: 32 MB in float64, whatever the number of votes


@register_metric(
    "factorvae_score",
    title="FactorVAE score (accuracy on fresh votes)",
    reference="Kim & Mnih 2018, section 4; protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
    needs=("two factors",),
)
def factorvae_score(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch_size: int = 64,
    num_variance: int = 10_000,
    prune_threshold: float = 0.05,
) -> dict:
    """Return the accuracy of a majority vote from the dimension that varies least to the fixed factor.

    A vote has a factor k, a row drawn uniformly with batch_size - 1 rows that share factor k, and the active
    dimension d with the least variance over these rows relative to its variance over all. The classifier
    answers d with the factor that has most training votes there. Every factor is fixed equally often, while
    the reference draws k uniformly: the same score in expectation, with less noise. Factors that take a
    single value are not used.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K].
    num_train, num_test : votes that the classifier is made from and tested on.
    batch_size : rows per vote.
    num_variance : rows for the variance over all.
    prune_threshold : dimensions with a smaller standard deviation are not active (absolute, in units of the
        codes).

    Returns
    -------
    factorvae_score, factorvae_score_train : accuracy on the test and on the training votes, in [0, 1]; 0 if
        no dimension is active.
    factorvae_score_active_dimensions : the number of active dimensions.
    """
    if min(batch_size, num_variance) < 2:
        raise DislabError(f"batch_size is {batch_size}, num_variance {num_variance}: both must be 2 or more")
    sample = table.mean[rng.integers(len(table), size=num_variance)]
    variance, active = active_dimensions(sample, prune_threshold)
    pruned = small_dimensions(sample, prune_threshold)
    if not len(active):
        if pruned.any():
            warnings.warn(
                f"no dimension has a standard deviation of {prune_threshold:g} or more, so that the score "
                f"is 0 by its protocol: {REMEDY}",
                DislabWarning,
                stacklevel=2,
            )
        names = ("factorvae_score", "factorvae_score_train", "factorvae_score_active_dimensions")
        return dict.fromkeys(names, 0.0)
    same_draws = copy.deepcopy(rng)
    accuracy, train_accuracy = accuracies(table, rng, num_train, num_test, batch_size, variance, active)
    if pruned.any():
        varying = np.flatnonzero(varies(sample) & (variance > 0))
        unpruned = accuracies(table, same_draws, num_train, num_test, batch_size, variance, varying)
        why = f"{np.count_nonzero(pruned)} dimensions have a standard deviation below {prune_threshold:g}"
        remark_on_scale("factorvae_score", accuracy, unpruned[0], f"{why} and take no part")
    return {
        "factorvae_score": accuracy,
        "factorvae_score_train": train_accuracy,
        "factorvae_score_active_dimensions": len(active),
    }


def active_dimensions(codes: np.ndarray, prune_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance [D] of the codes [N, D], and the indices of the dimensions that may win a vote."""
    # In float32, as in disentanglement_lib, rounding gives a large constant (1234.567) a variance above the
    # threshold. If all dimensions are constant, it takes every vote and the score is at chance, as in the
    # reference. Beside dimensions that vary it would ruin the score of a good code: there it is not active.
    with np.errstate(over="ignore", invalid="ignore"):
        variance = codes.var(axis=0, ddof=1)
    if not np.isfinite(variance).all():  # codes above 1e19
        variance = codes.var(axis=0, ddof=1, dtype=np.float64)
    active = (variance > 0) & (np.sqrt(variance) >= prune_threshold)
    live = active & varies(codes)
    return variance, np.flatnonzero(live if live.any() else active)


def accuracies(
    table: CodeTable, rng, num_train: int, num_test: int, batch_size: int, variance, active
) -> tuple[float, float]:
    """Return the accuracy of the majority vote on `num_test` and on the `num_train` votes it is made from."""
    train = count_votes(table, rng, num_train, batch_size, variance, active)
    test = count_votes(table, rng, num_test, batch_size, variance, active)
    answer, right = train.argmax(axis=0), np.arange(train.shape[1])  # the first factor wins ties
    return test[answer, right].sum() / test.sum(), train[answer, right].sum() / train.sum()


def count_votes(table: CodeTable, rng, num_votes: int, batch_size: int, variance, active) -> np.ndarray:
    """Return votes int64 [K, active dimensions]: how often each varied least while a factor was fixed."""
    num_factors = table.factors.shape[1]
    varying = np.flatnonzero(np.ptp(table.factors, axis=0))
    held = np.bincount(np.resize(varying, num_votes), minlength=num_factors)
    votes = np.zeros((num_factors, len(active)), dtype=np.int64)
    for k in np.flatnonzero(held):
        pieces = 1 + held[k] * batch_size * table.mean.shape[1] // CHUNK
        for piece in np.array_split(np.arange(held[k]), pieces):
            first = rng.integers(len(table), size=(len(piece), 1))
            others = table.sharing(rng, k, first.repeat(batch_size - 1, axis=1))
            codes = table.mean[np.hstack([first, others])][..., active].astype(np.float64)
            least = (codes.var(axis=1, ddof=1) / variance[active]).argmin(axis=1)
            votes[k] += np.bincount(least, minlength=len(active))
    return votes
