"""InfoMEC: against scikit-learn, slow versions and closed forms."""

import warnings

import numpy as np
import pytest
from metric_tables import grid, standardised
from scipy.optimize import minimize
from scipy.special import digamma, softmax
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import dislab
from dislab.metrics.infomec import (
    active_dimensions,
    largest_share,
    log_loss_of_classifier,
    nearest_neighbor_information,
)
from dislab.scoring import logistic

INFOMEC = ["infomodularity", "infocompactness", "infoexplicitness"]


def information(values, classes, num_neighbors=10):
    order = np.argsort(values)
    return nearest_neighbor_information(values[order], classes[order], num_neighbors)


@pytest.mark.parametrize(
    ("num_points", "num_classes", "num_neighbors"),
    [(2000, 5, 10), (3000, 40, 3), (3000, 183, 1)],
)
def test_information_of_nearest_neighbors_is_that_of_scikit_learn(num_points, num_classes, num_neighbors):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, num_classes, size=num_points) ** 2 // num_classes  # of unequal sizes
    for values in (
        rng.standard_normal(num_points),
        classes + 3 * rng.standard_normal(num_points),
        np.exp(classes / num_classes + rng.standard_normal(num_points)),
    ):
        [expected] = mutual_info_classif(
            values[:, None], classes, discrete_features=False, n_neighbors=num_neighbors, random_state=0
        )
        assert information(values / values.std(), classes, num_neighbors) == pytest.approx(expected, abs=1e-5)


def test_information_by_counting_every_pair():
    rng = np.random.default_rng(1)
    classes = np.array([0] * 30 + [1] * 12 + [2] * 3 + [3])
    values = classes + rng.standard_normal(len(classes))
    terms, num_points = [], len(classes) - 1  # the last one is alone in its class
    for value, own in zip(values[:-1], classes[:-1], strict=True):
        same = np.sort(np.abs(values[classes == own] - value))[1:]
        k = min(5, len(same))
        nearer = np.count_nonzero(np.abs(values[:-1] - value) < same[k - 1])
        terms.append(digamma(k) - digamma(len(same) + 1) - digamma(nearer))
    assert information(values, classes, 5) == pytest.approx(digamma(num_points) + np.mean(terms), abs=1e-12)


def test_information_of_two_normals_and_of_a_function():
    rng = np.random.default_rng(0)
    classes = np.arange(20_000) % 2
    z = np.linspace(-10, 10, 20_001)
    densities = np.exp(-0.5 * (z[:, None] - [1, -1]) ** 2)
    shares = (densities / densities.sum(axis=1, keepdims=True)).clip(1e-300)
    bits_lost = -(shares * np.log(shares)).sum(axis=1) @ densities.sum(axis=1) / densities.sum()
    got = information(2.0 * classes - 1 + rng.standard_normal(20_000), classes)
    assert got == pytest.approx(np.log(2) - bits_lost, abs=0.01)
    known = rng.integers(0, 8, size=4000)
    assert information(known + 1e-10 * rng.standard_normal(4000), known) == pytest.approx(np.log(8), abs=0.01)


def naive_infomec(codes, factors):
    """The authors' definition, one scikit-learn call after the other."""
    z = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    shares = [np.unique(f, return_counts=True)[1] / len(f) for f in factors.T]
    nmi = np.array(
        [
            mutual_info_classif(z, f, discrete_features=False, n_neighbors=10, random_state=0)
            / -(share * np.log(share)).sum()
            for f, share in zip(factors.T, shares, strict=True)
        ]
    )
    ranges = codes.max(axis=0) - codes.min(axis=0)
    nmi = nmi[:, ranges > ranges.max() / 20]
    num_factors, num_active = nmi.shape
    modularity = np.mean([max(column) / sum(column) for column in nmi.T])
    compactness = np.mean([max(row) / sum(row) for row in nmi])
    explicit = []
    for f in factors.T:
        losses = []
        for inputs in (z, np.zeros_like(z)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                classifier = LogisticRegression(C=np.inf, class_weight="balanced").fit(inputs, f)
            losses.append(log_loss(f, classifier.predict_proba(inputs)))
        explicit.append(1 - losses[0] / losses[1])
    return {
        "infomodularity": (modularity - 1 / num_factors) / (1 - 1 / num_factors),
        "infocompactness": (compactness - 1 / num_active) / (1 - 1 / num_active),
        "infoexplicitness": np.mean(explicit),
        "infomodularity_active_dimensions": num_active,
    }


def test_infomec_is_what_the_definition_gives():
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.integers(0, n, size=1500) ** 2 // n for n in (4, 6, 9)])
    codes = np.tanh(standardised(factors) @ rng.standard_normal((3, 4)) / 2) + 0.2 * rng.standard_normal(
        (1500, 4)
    )
    codes = np.column_stack([codes, 0.01 * rng.standard_normal(1500)]).astype(np.float32)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=INFOMEC, shuffle=False)
    for name, expected in naive_infomec(codes.astype(np.float64), factors).items():
        assert scores[name] == pytest.approx(expected, abs=0.001)
    assert scores["infomodularity_active_dimensions"] == 4
    assert scores.details["infomodularity_per_dimension"][4] is None


def test_the_classifier_of_infoexplicitness_is_at_the_optimum():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 5], [200, 60, 40])
    codes = standardised(np.column_stack([classes, classes == 1]) + 1.5 * rng.standard_normal((300, 2)))
    hot = (classes[:, None] == [0, 1, 5]).astype(float)
    weight = (300 / 3 / hot.sum(axis=0))[hot.argmax(axis=1)]

    def log_shares(parameters):
        logits = np.column_stack([codes, np.ones(300)]) @ parameters.reshape(3, 3)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def weighted_loss(parameters):
        return -(weight[:, None] * hot * log_shares(parameters)).sum() / 300

    best = minimize(weighted_loss, np.zeros(9), tol=1e-10).x
    expected = -(hot * log_shares(best)).sum() / 300 / np.log(3)
    assert log_loss_of_classifier(codes, classes) == pytest.approx(expected, abs=1e-4)
    assert log_loss_of_classifier(np.zeros((300, 2)), classes) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("num_classes", [2, 7])
def test_the_classifier_of_infoexplicitness_stops_where_that_of_scikit_learn_does(num_classes, monkeypatch):
    rng = np.random.default_rng(0)
    classes = 3 * (num_classes * rng.random(400) ** 2).astype(int)
    codes = standardised(classes[:, None] * [1.0, -2, 0.5] + rng.standard_normal((400, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LogisticRegression(C=np.inf, class_weight="balanced").fit(codes, classes)
    expected = log_loss(classes, theirs.predict_proba(codes)) / np.log(num_classes)
    assert log_loss_of_classifier(codes, classes) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(logistic, "CELLS", 300)
    monkeypatch.setattr(logistic, "LEAST_ROWS", 1)
    assert log_loss_of_classifier(codes, classes) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_penalised_regression_is_that_of_scikit_learn(num_classes, dtype, tolerance, monkeypatch):
    rng = np.random.default_rng(1)
    classes = rng.integers(num_classes, size=400)
    codes = standardised(classes[:, None] * [1.0, -2, 0.5] + 3 * rng.standard_normal((400, 3))).astype(dtype)
    theirs = LogisticRegression(C=1 / 5).fit(codes, classes)
    expected = theirs.predict_proba(codes)
    monkeypatch.setattr(logistic, "CELLS", 900)
    monkeypatch.setattr(logistic, "LEAST_ROWS", 1)
    weights = logistic.logistic_regression(codes, classes, penalty=5.0)
    logits = logistic.class_logits(codes, weights)
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=tolerance)
    losses = logistic.log_losses(codes, classes, weights)
    np.testing.assert_allclose(losses, -np.log(expected[np.arange(400), classes]), atol=30 * tolerance)
    assert np.ptp(expected) > 0.3


def test_largest_share_and_active_dimensions():
    rows = np.array([[1.0, 1, 1, 1], [0, 2, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(largest_share(rows), [0, 1, 2 / 3, 0])
    np.testing.assert_allclose(largest_share(np.array([[0.5], [0.0]])), [1, 0])
    assert largest_share(np.zeros((2, 0))).tolist() == [0, 0]
    codes = np.array([[0, 0, 7, -1], [20, 1, 7, 0.01]])
    np.testing.assert_array_equal(active_dimensions(codes), [0, 3])
    assert not len(active_dimensions(np.full((5, 2), 0.1)))


def test_infomec_at_its_limits():
    factors = grid((5, 6, 7), copies=10)
    perfect = dislab.evaluate(codes=standardised(factors), factors=factors, metrics=INFOMEC)
    assert perfect["infomodularity"] > 0.97 and perfect["infocompactness"] > 0.97
    twice = dislab.evaluate(
        codes=np.hstack([standardised(factors), -factors]), factors=factors, metrics=INFOMEC
    )
    assert twice["infomodularity"] > 0.97
    assert twice["infocompactness"] == pytest.approx((1 / 2 - 1 / 6) / (1 - 1 / 6), abs=0.02)
    one_hot = np.hstack([np.eye(n)[f] for n, f in zip((5, 6, 7), factors.T, strict=True)])
    assert dislab.evaluate(codes=one_hot, factors=factors, metrics=INFOMEC)["infoexplicitness"] > 0.98
    noise = np.random.default_rng(0).standard_normal(factors.shape)
    noise = dislab.evaluate(codes=noise, factors=factors, metrics=INFOMEC)
    assert abs(noise["infoexplicitness"]) < 0.02
