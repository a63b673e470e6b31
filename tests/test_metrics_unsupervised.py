"""Scores that need no factors: those of a fitted Normal, active units and the ELBO."""

import math

import numpy as np
import pytest

import dislab
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

GAUSSIAN = (
    "gaussian_total_correlation",
    "gaussian_wasserstein_correlation",
    "gaussian_wasserstein_correlation_norm",
    "mutual_info_score",
)


# Scores of a fitted Normal -------------------------------------------------------------------------


def test_gaussian_correlation_of_two_correlated_dimensions():
    x = np.random.default_rng(0).standard_normal((10_000, 2))
    codes = np.column_stack([x[:, 0], 3 * (0.6 * x[:, 0] + 0.8 * x[:, 1])]).astype(np.float32)
    (a, c), (_, b) = np.cov(codes.astype(float), rowvar=False)
    scores = dislab.evaluate(codes=codes, factors=np.arange(10_000) % 5, metrics=GAUSSIAN, shuffle=False)
    assert scores["gaussian_total_correlation"] == pytest.approx(
        -0.5 * math.log(1 - c**2 / (a * b)), rel=1e-5
    )
    # The trace of the root of a 2 x 2 matrix M is (tr M + 2 det(M)^1/2)^1/2, here M = diag(C) C.
    root = math.sqrt(a**2 + b**2 + 2 * math.sqrt(a * b * (a * b - c**2)))
    wasserstein = 2 * (a + b) - 2 * root
    assert scores["gaussian_wasserstein_correlation"] == pytest.approx(wasserstein, rel=1e-5)
    assert scores["gaussian_wasserstein_correlation_norm"] == pytest.approx(wasserstein / (a + b), rel=1e-5)
    counts = np.histogram2d(*codes.T.astype(float), bins=20)[0] / 10_000
    apart = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0)
    information = (counts * np.log(np.where(counts > 0, counts, 1) / np.where(counts > 0, apart, 1))).sum()
    assert scores["mutual_info_score"] == pytest.approx(information, rel=0.01)
    wide = np.column_stack([codes, np.full(10_000, 0.1), np.full(10_000, 1e6), np.zeros(10_000)])
    dead = dislab.evaluate(codes=wide, factors=np.arange(10_000) % 5, metrics=GAUSSIAN, shuffle=False)
    for name in GAUSSIAN[:3]:
        assert dead[name] == pytest.approx(scores[name], rel=1e-9)
    assert dead["mutual_info_score"] == pytest.approx(scores["mutual_info_score"] / 10)
    assert dead["gaussian_total_correlation_constant_dimensions"] == 3


def test_gaussian_correlation_of_one_dimension_of_one_row_and_of_sums():
    rng = np.random.default_rng(0)
    factors = np.arange(500) % 5
    one = dislab.evaluate(codes=rng.standard_normal((500, 1)), factors=factors, metrics=GAUSSIAN)
    single = dislab.evaluate(codes=np.ones((1, 3)), factors=[[2]], metrics=GAUSSIAN)
    for name in GAUSSIAN:
        assert one[name] == pytest.approx(0, abs=1e-9) and single[name] == 0
    codes = rng.standard_normal((500, 3)).astype(np.float32)
    codes = np.column_stack([codes, codes.sum(axis=1)])
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=GAUSSIAN)
    assert scores["gaussian_total_correlation_dependent_dimensions"] == 1
    assert 16 < scores["gaussian_total_correlation"] < 18


# Active units and the ELBO -------------------------------------------------------------------------


def test_active_units_are_counted_not_listed():
    rng = np.random.default_rng(0)
    deviation = np.array([1.0, 0.5, 0.0, 0.09, 0.11, 0.0, 0.01])
    mean = rng.standard_normal((20_000, 7)) * deviation + 5
    logvar = np.zeros((20_000, 7))
    mean[:, [2, 5, 6]] -= 5
    logvar[:, 5] = -1  # says more than the prior, but the same of every image
    table = CodeTable(mean, np.arange(20_000) % 5, logvar=logvar)
    scores = score(table, ["active_units"])
    assert scores["active_units"] == 3
    assert scores["active_units_by_kl"] == 5
    assert scores.details["active_units_variance"] == pytest.approx(deviation**2, rel=0.05, abs=1e-6)
    bare = score(CodeTable(mean, table.factors), ["active_units"])
    assert bare["active_units"] == 3 and "active_units_by_kl" not in bare
    assert score(CodeTable(np.full((50, 4), 0.1), np.arange(50)), ["active_units"])["active_units"] == 0


def test_elbo_is_the_sum_of_both_terms():
    rng = np.random.default_rng(0)
    factors, mean = np.arange(400) % 5, rng.standard_normal((400, 4))
    table = CodeTable(mean, factors, logvar=rng.uniform(-5, -2, size=mean.shape))
    errors = np.array([90.0, 110.0, 130.0, 70.0])
    with_errors = CodeTable(table.mean, table.factors, logvar=table.logvar, reconstruction=errors)
    scores = score(with_errors, ["elbo", "kl"])
    assert scores["elbo_reconstruction"] == 100
    assert scores["elbo_kl"] == scores["kl"] > 1
    assert scores["elbo"] == pytest.approx(-100 - scores["kl"])
    assert scores["elbo_standard_error"] == pytest.approx(errors.std() / 2)
    errors[2] = np.nan
    broken = CodeTable(table.mean, table.factors, logvar=table.logvar, reconstruction=errors)
    assert "1 of 4" in score(broken, ["elbo"]).failed["elbo"]
    assert "reconstruction" in score(table, ["elbo"]).left_out["elbo"]
