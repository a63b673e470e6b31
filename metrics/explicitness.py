"""Explicitness: can a linear classifier read every factor from the whole code?"""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable


@register_metric(
    "explicitness",
    title="Explicitness (ROC-AUC of a logistic regression, test rows)",
    reference="Ridgeway & Mozer 2018; protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
)
def explicitness(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_test: int = 5_000
) -> dict:
    """Area under the ROC curve, one value against the rest, of a logistic regression of each factor.

    The codes are standardised with the training rows' mean and standard deviation; dimensions that are
    constant there are dropped. The mean is over the values of a factor, then over the factors. Chance is ½:
    the area is not rescaled. A value without rows on both sides has no curve and is left out of the mean; so
    is a factor without any.

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
    train, test = table.split(rng, num_train, num_test)
    inputs, unseen, num_constant = standardised(table.mean[train], table.mean[test])
    per_factor = np.full(table.factors.shape[1], None)
    train_areas = []
    for k, (known, truth) in enumerate(zip(table.factors[train].T, table.factors[test].T, strict=True)):
        values, classes = np.unique(known, return_inverse=True)
        found = truth[:, None] == values
        if len(values) == 1 or not (found.any(axis=0) & ~found.all(axis=0)).any():
            continue
        train_shares, test_shares = class_shares(inputs, classes, inputs, unseen)
        per_factor[k] = area_under_curve(test_shares, found)
        train_areas.append(area_under_curve(train_shares, known[:, None] == values))
    if not train_areas:
        raise DislabError(
            f"explicitness needs a factor that varies, but all are constant in the {len(train)} training "
            f"rows or in the {len(test)} test rows"
        )
    return {
        "explicitness": np.mean([area for area in per_factor if area is not None]),
        "explicitness_train": np.mean(train_areas),
        "explicitness_constant_dimensions": num_constant,
        "explicitness_per_factor": per_factor,
    }


def standardised(train_codes: np.ndarray, test_codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Codes less the training mean, over the training standard deviation, without constant dimensions.

    Parameters
    ----------
    train_codes, test_codes : float32 [N, D].

    Returns
    -------
    train, test : float32 [N, D - number], or zeros [N, 1] where no dimension varies.
    number : of dimensions that are constant in the training rows.
    """
    varying = train_codes.min(axis=0) < train_codes.max(axis=0)
    if not varying.any():
        return np.zeros((len(train_codes), 1)), np.zeros((len(test_codes), 1)), len(varying)
    train_codes = train_codes[:, varying].astype(np.float64)
    mean, std = train_codes.mean(axis=0), train_codes.std(axis=0)
    # Clipped: a test row may lie far from all training rows in a dimension that hardly varied there.
    train, test = (((codes - mean) / std).clip(-1e6, 1e6) for codes in (train_codes, test_codes[:, varying]))
    return train.astype(np.float32), test.astype(np.float32), int((~varying).sum())


def class_shares(inputs: np.ndarray, classes: np.ndarray, *rows: np.ndarray) -> list[np.ndarray]:
    """Class probabilities [B, C] of the rows of each array, by logistic regression of classes on inputs.

    scikit-learn's defaults are the protocol: penalty ½‖W‖², at most 100 steps of L-BFGS, in float32.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = LogisticRegression().fit(inputs, classes)
    return [classifier.predict_proba(block) for block in rows]


def area_under_curve(shares: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the columns of the probability that a positive row has the larger share; ties count half.

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
