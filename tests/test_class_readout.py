"""How a class is read from codes: joined normals, draws of images, the classifier; against slow versions."""

import warnings
from math import log

import numpy as np
import pytest
from metric_tables import class_table
from scipy.special import softmax
from sklearn.neural_network import MLPClassifier

from dislab.scoring import class_readout
from dislab.scoring.class_readout import (
    Classifier,
    best_temperature,
    cross_entropy,
    draw_images,
    product_of_normals,
)
from dislab.scoring.readouts import Standardiser


def test_content_feature_is_the_mean_of_the_product_of_normals():
    rng = np.random.default_rng(0)
    mean, logvar = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    rows = np.array([[0, 3, 5], [1, 2, 4]])
    got = product_of_normals(mean, logvar, rows)
    z = np.linspace(-12, 12, 20_001)
    for b, chosen in enumerate(rows):
        for d in range(2):
            density = np.exp(-0.5 * sum((z - mean[n, d]) ** 2 / np.exp(logvar[n, d]) for n in chosen))
            assert got[b, d] == pytest.approx((z * density).sum() / density.sum(), abs=1e-8)
    np.testing.assert_allclose(product_of_normals(mean, None, rows), mean[rows].mean(axis=1))
    np.testing.assert_allclose(product_of_normals(mean, logvar, rows[:, :1]), mean[rows[:, 0]])
    assert np.isfinite(product_of_normals(mean, logvar * 1e4, rows)).all()


def test_draws_of_images():
    rng = np.random.default_rng(0)
    pool = np.arange(100, 123)
    for k in (1, 5, 23):
        draws = draw_images(rng, pool, k, 50)
        assert draws.shape == (50, k) and np.isin(draws, pool).all()
        assert all(len(set(draw)) == k for draw in draws)
    assert set(draw_images(rng, pool, 1, 23)[:, 0]) == set(pool)
    assert draw_images(rng, pool[:2], 5, 7).shape == (7, 5)


def test_temperature_and_cross_entropy():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, size=20_000)
    logits = 2 * np.eye(3)[classes] + rng.gumbel(size=(20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean([log(share[c]) for share, c in zip(shares, classes, strict=True)])
    assert cross_entropy(logits, classes) == pytest.approx(expected)
    best = best_temperature(logits, classes)
    assert best_temperature(logits * 7, classes) == pytest.approx(7 * best, rel=0.03)
    assert cross_entropy(logits / best, classes) <= cross_entropy(logits, classes) + 1e-6
    assert np.isfinite(cross_entropy(np.array([[0.0, 1e6]]), np.array([0])))


def test_a_draw_of_a_product_has_its_mean_and_variance():
    rng = np.random.default_rng(0)
    mean, logvar = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    rows = np.tile([0, 3, 5], (40_000, 1))
    drawn = product_of_normals(mean, logvar, rows, rng)
    precision = np.exp(-logvar[rows[0]])
    np.testing.assert_allclose(
        drawn.mean(0), (precision * mean[rows[0]]).sum(0) / precision.sum(0), atol=0.02
    )
    np.testing.assert_allclose(drawn.var(0), 1 / precision.sum(0), rtol=0.03)


def test_the_rows_of_300_classes_are_drawn_as_ever():
    """Nothing else is drawn, and nothing is said, if no class is small and there are no more than 300."""
    labels = np.random.default_rng(1).permutation(np.arange(300).repeat(np.resize([4, 5, 9], 300)))
    table = class_table(np.zeros((len(labels), 1)), labels)
    with warnings.catch_warnings(action="error"):
        train, test = class_readout.parted(table, labels, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for value, *parts in zip(range(300), train, test, strict=True):
        rows = rng.permutation(np.flatnonzero(labels == value))
        assert [list(part) for part in parts] == [list(rows[: len(rows) // 2]), list(rows[len(rows) // 2 :])]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_classifier_is_that_of_scikit_learn(num_classes):
    rng = np.random.default_rng(0)
    means = rng.standard_normal((num_classes, 3))
    train, aside, new = (
        (means[classes] + rng.standard_normal((len(classes), 3)), classes)
        for classes in (np.arange(num_classes).repeat(size) for size in (130, 30, 50))
    )
    standardise = Standardiser(train[0])
    inputs, unseen, last = (standardise(part[0]).astype(np.float32) for part in (train, aside, new))
    seed = int(np.random.default_rng(7).integers(2**31))
    slow = MLPClassifier((256,), alpha=0, batch_size=256, random_state=seed)
    losses, shares = [], []
    for _ in range(12):
        slow.partial_fit(inputs, train[1], classes=np.arange(num_classes))
        losses.append(-np.log(slow.predict_proba(unseen)[np.arange(len(unseen)), aside[1]]).mean())
        shares.append(slow.predict_proba(last))
    ours = Classifier(train, aside, np.random.default_rng(7), max_epochs=12)
    logits = ours.logits(new[0])
    assert logits.shape == (50 * num_classes, num_classes)
    np.testing.assert_allclose(softmax(logits, axis=1), shares[int(np.argmin(losses))], atol=1e-4)
