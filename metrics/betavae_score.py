"""BetaVAE score: can a linear classifier tell which factor pairs of images share, from their codes?"""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.logistic import class_logits, logistic_regression
from dislab.scoring.readouts import Standardiser
from dislab.scoring.scale import has_usual_scale, remark_on_scale
from dislab.scoring.table import CodeTable

CHUNK = 4_000_000  # code values per gather: 16 MB in float32, whatever the number of points


@register_metric(
    "betavae_score",
    title="BetaVAE score (accuracy on fresh points)",
    reference="Higgins et al. 2017, section 3; protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
    needs=("two factors",),
)
def betavae_score(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch_size: int = 64,
    penalised: bool = True,
) -> dict:
    """Return the accuracy of a logistic regression that names the factor that a point's pairs share.

    A point has a factor k and `batch_size` pairs of rows that agree in factor k; its feature is the mean of
    |z - z'| over the pairs, its label is k. The first row of a pair is uniform over the table, the second
    uniform over the rows with the same value of factor k. Every factor is shared equally often, while the
    reference draws k uniformly: the same score in expectation, with less noise. Factors that take a single
    value are not used.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K].
    num_train, num_test : points that the classifier is fitted to and tested on.
    batch_size : pairs per point.
    penalised : whether the regression has its penalty ½‖W‖².

    Returns
    -------
    betavae_score, betavae_score_train : accuracy on the test and on the training points, in [0, 1]; chance is
        1 / K.
    """
    train = draw_points(table, rng, num_train, batch_size)
    test = draw_points(table, rng, num_test, batch_size)
    train_accuracy, accuracy = accuracies(*train, *test, penalised=penalised)
    codes = table.mean[table.split(rng, num_train)[0]]
    if penalised and not has_usual_scale(codes):
        scale = Standardiser(codes).scale
        standardised = accuracies(train[0] / scale, train[1], test[0] / scale, test[1])
        why = "its classifier is penalised, and small codes need large weights"
        remark_on_scale("betavae_score", accuracy, standardised[1], why)
    return {"betavae_score": accuracy, "betavae_score_train": train_accuracy}


def draw_points(table: CodeTable, rng, num_points: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features float64 [num_points, D] and labels int64 [num_points]."""
    labels = np.resize(np.flatnonzero(np.ptp(table.factors, axis=0)), num_points)
    features = np.empty((num_points, table.mean.shape[1]))
    for k in np.unique(labels):
        points = np.flatnonzero(labels == k)
        for chunk in np.array_split(points, 1 + len(points) * batch_size * features.shape[1] // CHUNK):
            first = rng.integers(len(table), size=(len(chunk), batch_size))
            second = table.sharing(rng, k, first)
            # Halved, which is exact, so that huge codes do not overflow.
            distance = np.abs(0.5 * table.mean[first] - 0.5 * table.mean[second])
            features[chunk] = 2 * distance.mean(axis=1, dtype=np.float64)
    return features, labels


def accuracies(
    train_features, train_labels, test_features, test_labels, penalised: bool = True
) -> tuple[float, float]:
    """Return training and test accuracy of a multinomial logistic regression: ½‖W‖² + Σ_i log-loss_i."""
    names, classes = np.unique(train_labels, return_inverse=True)
    if len(names) < 2:
        raise DislabError(f"its {len(train_labels)} training points hold only one of the factors")
    train_features, test_features = (np.asarray(part, np.float64) for part in (train_features, test_features))
    if penalised:
        weights = logistic_regression(train_features, classes)
    else:
        weights = unpenalised_regression(train_features, classes)
    return tuple(
        (names[class_logits(features, weights).argmax(axis=1)] == labels).mean()
        for features, labels in ((train_features, train_labels), (test_features, test_labels))
    )


def unpenalised_regression(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the weights [D + 1, C] of `logistic_regression` without a penalty, by Newton's method."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bound on the iterations is meant
        fitted = LogisticRegression(C=np.inf, solver="newton-cg").fit(features, classes)
    weights = np.vstack([fitted.coef_.T, fitted.intercept_])
    return np.pad(weights, ((0, 0), (1, 0))) if len(fitted.classes_) == 2 else weights
