"""JEMMIG, DCIMIG, MIG-sup and MIG without bins: slow versions, closed forms, and real factors."""

from math import log

import numpy as np
import pytest
from metric_tables import grid, mixture

import dislab
from dislab.scoring.binned import as_values
from dislab.scoring.information import histogram_bins
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

GAPS = ["jemmig", "dcimig", "mig_sup"]


def evaluate(codes, factors, metrics=GAPS, **settings):
    return dislab.evaluate(codes=codes, factors=factors, metrics=metrics, shuffle=False, **settings)


def surprise(*columns) -> float:
    """The entropy of the columns together, by counting their rows one after the other."""
    counts: dict[tuple, int] = {}
    for row in zip(*columns, strict=True):
        counts[row] = counts.get(row, 0) + 1
    return -sum(count / len(columns[0]) * log(count / len(columns[0])) for count in counts.values())


@pytest.mark.parametrize("num_bins", [10, 4])
def test_gaps_by_loops(num_bins):
    factors = grid((3, 4, 5), copies=3)
    codes = np.insert(mixture(factors, 4, 0.3), 4, 2.5, axis=1)
    codes[:, 0] = factors[:, 2]
    bins = []
    for z in codes.T.astype(float):
        width = np.ptp(z) / num_bins
        bins.append([min(int((value - z.min()) / width), num_bins - 1) if width else 0 for value in z])
    own = [surprise(column) for column in factors.T]
    joint = np.array([[surprise(z, column) for column in factors.T] for z in bins])
    information = np.array([surprise(z) for z in bins])[:, None] + own - joint
    jemmig, best = [], [0.0] * 3
    for k, column in enumerate(information.T):
        first, second = np.argsort(column)[::-1][:2]
        unlike = joint[first, k] - column[first] + column[second]
        jemmig.append(1 - unlike / (own[k] + log(num_bins)))
    sup = []
    for row in information:
        first, second = np.argsort(row)[::-1][:2]
        best[first] = max(best[first], row[first] - row[second])
        shares = sorted(row / own)
        sup.append(shares[-1] - shares[-2])
    table = CodeTable(codes, factors, ordered=True)
    scores = score(table, GAPS, num_bins=num_bins)
    assert scores["jemmig"] == pytest.approx(np.mean(jemmig), abs=1e-9)
    assert scores["dcimig"] == pytest.approx(sum(best) / sum(own), abs=1e-9)
    assert scores["mig_sup"] == pytest.approx(np.mean(sup), abs=1e-9)
    assert scores["mig_sup_active"] == pytest.approx(np.mean(sup[:4]), abs=1e-9)  # the last one is constant
    np.testing.assert_allclose(scores.details["jemmig_per_factor"], jemmig, atol=1e-9)


def test_exact_codes_and_constant_codes_in_closed_form():
    factors = grid((2, 5, 10), copies=2)
    exact = evaluate(factors, factors)
    assert [exact[name] for name in GAPS] == pytest.approx([1, 1, 1], abs=1e-12)
    assert exact["jemmig_nats"] == pytest.approx(0, abs=1e-12)
    constant = evaluate(np.zeros((len(factors), 2)), factors)
    expected = np.mean([log(10) / (log(size) + log(10)) for size in (2, 5, 10)])
    assert constant["jemmig"] == pytest.approx(expected, abs=1e-12)
    assert constant["dcimig"] == constant["mig_sup"] == 0


def test_what_each_gap_minds():
    factors = grid((3, 3, 5), copies=2)
    twice = evaluate(np.hstack([factors, factors]), factors, [*GAPS, "mig"])
    assert twice["mig"] == pytest.approx(0, abs=1e-12) and twice["jemmig"] < 0.7  # JEMMIG minds copies
    assert twice["dcimig"] == twice["mig_sup"] == pytest.approx(1)  # and these do not
    both = np.column_stack([factors[:, 0] + 3 * factors[:, 1], factors[:, 2]])  # a dimension of two factors
    shared = evaluate(both, factors, [*GAPS, "mig"])
    assert shared["mig"] == pytest.approx(1)  # MIG does not mind
    assert shared["mig_sup"] == pytest.approx(1 / 2)  # 0 of the first, 1 of the second dimension
    assert shared["dcimig"] == pytest.approx(log(5) / (2 * log(3) + log(5)))
    # Of the first dimension H(z, f) = 2 ln 3 and I = ln 3; the second knows nothing of these two factors.
    expected = [1 - log(3) / (log(3) + log(10))] * 2 + [1]
    np.testing.assert_allclose(shared.details["jemmig_per_factor"], expected, atol=1e-12)


def test_real_factors_are_binned_as_codes_are():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((300, 2)) * [1e-5, 30] - [0, 1e4]
    whole = rng.integers(0, 25, size=300)
    codes = np.column_stack([real, whole]) + 0.1 * rng.standard_normal((300, 3)) * [1e-5, 30, 1]
    as_numbers = evaluate(codes, np.column_stack([real, whole]))
    as_bins = evaluate(codes, np.column_stack([histogram_bins(real, 10), whole]))
    assert as_numbers == as_bins
    assert len(np.unique(as_values(np.column_stack([real, whole]), 10)[:, 2])) == 25
    assert as_values(-np.arange(30.0)[:, None], 10)[:, 0].max() == 9  # -1, -2, … are no numbers of values


def test_mig_continuous_of_normal_variables_is_the_gap_of_squared_correlations():
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((1500, 2))
    codes = factors @ [[2, 0], [1, 3]] + rng.standard_normal((1500, 2))
    shares = np.sort([[4 / 6, 1 / 6], [0, 9 / 10]], axis=0)  # ρ² of each dimension (rows) with both factors
    expected = shares[1] - shares[0]
    table, settings = CodeTable(codes, factors, real_factors=True), {"num_neighbors": 20}
    scores = score(table, ["mig_continuous"], **settings)
    np.testing.assert_allclose(scores.details["mig_continuous_per_factor"], expected, atol=0.05)
    table.mean = np.exp(table.mean / 4)  # a one-to-one function keeps the information
    curved = score(table, ["mig_continuous"], **settings)
    assert curved["mig_continuous"] == pytest.approx(scores["mig_continuous"], abs=0.03)


def test_mig_continuous_of_whole_numbers():
    factors = grid((2, 3, 4), copies=25)
    codes = factors + 0.01 * np.random.default_rng(0).standard_normal(factors.shape)
    scores = evaluate(np.insert(codes, 1, 7.0, axis=1), factors, "mig_continuous")
    expected = [1 - 1 / size**2 for size in (2, 3, 4)]  # I = ln n
    np.testing.assert_allclose(scores.details["mig_continuous_per_factor"], expected, atol=0.05)
    assert scores["mig_continuous"] == np.mean(scores.details["mig_continuous_per_factor"])
