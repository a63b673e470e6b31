"""Explicitness: can a linear classifier read every factor from the whole code?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.logistic import class_logits, logistic_regression
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable, no_factor_varies


@register_metric(
    "explicitness",
    title="Explicitness (ROC-AUC of a logistic regression, test rows)",
    reference="Ridgeway & Mozer 2018; protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
    needs=("factor",),
)
def explicitness(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_test: int = 5_000
) -> dict:
    """Return the area under the ROC curve, one value against the rest, of logistic regressions.

    The codes are standardised with the training rows' mean and standard deviation; dimensions that are
    constant there are dropped. Every factor has a regression. The mean is over the values of a factor, then
    over the factors. Chance is ½: the area is not rescaled. A value that all test rows have, or none, has no
    curve and is left out of the mean; so is a factor without any curve.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K].
    num_train, num_test : rows that the classifiers are fitted to and tested on.

    Returns
    -------
    explicitness, explicitness_train : mean area on the test and on the training rows, in [0, 1].
    explicitness_constant_dimensions : how many dimensions were dropped.
    explicitness_per_factor : the test area of every factor (None for one that is left out).
    """
    sample = table.draw(rng, num_train, num_test)
    standardise = Standardiser(sample.codes)
    kept = standardise.varies | ~standardise.varies.any()  # a classifier needs an input, be it constant
    inputs, unseen = (
        standardise(codes)[:, kept].astype(np.float32) for codes in (sample.codes, sample.test_codes)
    )
    areas, train_areas = np.full(len(sample.columns), None), []
    for k, (known, truth) in enumerate(zip(sample.factors.T, sample.test_factors.T, strict=True)):
        values, classes = np.unique(known, return_inverse=True)
        positive = truth[:, None] == values
        if not (positive.any(axis=0) & ~positive.all(axis=0)).any():
            continue
        train_shares, test_shares = class_shares(inputs, classes, inputs, unseen)
        areas[k] = area_under_curve(test_shares, positive)
        train_areas.append(area_under_curve(train_shares, known[:, None] == values))
    if not train_areas:
        raise no_factor_varies(f"{len(unseen)} test rows")
    return {
        "explicitness": np.mean([area for area in areas if area is not None]),
        "explicitness_train": np.mean(train_areas),
        "explicitness_constant_dimensions": np.count_nonzero(~standardise.varies),
        "explicitness_per_factor": sample.per_factor(areas),
    }


def class_shares(inputs: np.ndarray, classes: np.ndarray, *rows: np.ndarray) -> list[np.ndarray]:
    """Return class probabilities [B, C] of the rows of each array, by logistic regression on inputs.

    scikit-learn's defaults are the protocol: penalty ½‖W‖², at most 100 steps of L-BFGS, in float32.
    """
    from scipy.special import softmax

    weights = logistic_regression(inputs, classes)
    return [softmax(class_logits(block, weights), axis=1) for block in rows]


def area_under_curve(shares: np.ndarray, positive: np.ndarray) -> float:
    """Return the mean over columns of the probability that a positive row has the larger share.

    Ties count half.

    Mann and Whitney's statistic: (Σ ranks of the positive rows - P (P + 1) / 2) / (P (N - P)).

    Parameters
    ----------
    shares : float [N, C], what each row gives to each class.
    positive : bool [N, C], at least one column has rows of both kinds; the others are left out.
    """
    areas = []
    for share, chosen in zip(np.ascontiguousarray(shares.T), positive.T, strict=True):
        number, others = int(chosen.sum()), int((~chosen).sum())
        if number and others:
            ascending, own = np.sort(share), share[chosen]
            ranks = [np.searchsorted(ascending, own, side) + 0.5 for side in ("left", "right")]
            areas.append((np.mean(ranks, axis=0).sum() - number * (number + 1) / 2) / (number * others))
    return np.mean(areas)
