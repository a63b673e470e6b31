"""MCC and the SAP score of quantities: brute force, closed forms, and factors that are real numbers."""

from itertools import permutations

import numpy as np
import pytest
from metric_tables import grid, mixture
from scipy.stats import spearmanr

import dislab
from dislab.errors import DislabError
from dislab.scoring.correlation import absolute_correlations
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable


def real_factors(num_rows: int = 200) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_rows, 3)) * [1e-3, 1, 1e3] + [0, -5, 7]


def evaluate(codes, factors, metrics="mcc", **settings):
    return dislab.evaluate(codes=codes, factors=factors, metrics=metrics, shuffle=False, **settings)


def test_the_best_matching_by_brute_force():
    factors = grid((3, 4, 5), copies=2)
    codes = mixture(factors, 5, 1.0)
    scores = evaluate(codes, factors)
    pearson = np.abs(np.corrcoef(codes.T, factors.T)[:5, 5:])
    spearman = np.abs(spearmanr(codes, factors).statistic[:5, 5:])
    for name, correlations in (("mcc_pearson", pearson), ("mcc_spearman", spearman)):
        best = max(permutations(range(5), 3), key=lambda chosen: correlations[list(chosen), range(3)].sum())
        assert scores[name] == pytest.approx(correlations[list(best), range(3)].mean(), abs=1e-12)
        assert scores.details[f"{name}_assignment"] == list(best)
        np.testing.assert_allclose(scores.details[f"{name}_per_factor"], correlations[list(best), range(3)])


def test_codes_that_are_monotone_functions_of_real_factors():
    factors = real_factors()
    codes = np.column_stack([-factors[:, 2], np.exp(factors[:, 1] + 5), np.zeros(200), 7 * factors[:, 0] + 3])
    scores = evaluate(codes, factors)
    assert scores["mcc_spearman"] == pytest.approx(1, abs=1e-12)
    assert scores["mcc_pearson"] < 0.95
    assert scores.details["mcc_spearman_assignment"] == [3, 1, 0]


def test_a_factor_without_a_dimension_counts_as_0():
    factors = real_factors()
    scores = evaluate(factors[:, :2], factors)
    assert scores["mcc_pearson"] == pytest.approx(2 / 3, abs=1e-6)
    assert scores.details["mcc_pearson_per_factor"][2] == 0
    assert scores.details["mcc_pearson_assignment"] == [0, 1, None]


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1, 1e30, 1e300])
def test_correlations_equal_numpys_whatever_the_units(size):
    factors = real_factors()
    codes = (factors @ np.random.default_rng(1).standard_normal((3, 4))).astype(np.float32)
    expected = np.abs(np.corrcoef(codes.T, factors.T)[:4, 4:])
    np.testing.assert_allclose(absolute_correlations(codes, factors * size), expected, atol=1e-9)
    far = codes.copy()
    far[:, 1] = 1234.567
    assert not absolute_correlations(far, factors)[1].any()


def test_sap_continuous_is_sap_with_continuous_factors():
    factors = grid((3, 4, 5), copies=2)
    table = CodeTable(mixture(factors, 4, 1.0), factors, ordered=True)
    expected = score(table, ["sap"], num_train=80, num_test=40, continuous_factors=True)
    scores = score(table, ["sap_continuous"], num_train=80)
    assert scores["sap_continuous"] == pytest.approx(expected["sap"], abs=1e-9)
    gaps = scores.details["sap_continuous_per_factor"]
    np.testing.assert_allclose(gaps, expected.details["sap_per_factor"], atol=1e-9)


def test_sap_continuous_of_real_factors_by_hand():
    factors = real_factors()
    codes = factors @ [[1, 0, 0], [0, 1, 0.1], [0, 0, 1]]
    shares = np.corrcoef(codes.T, factors.T)[:3, 3:] ** 2
    ranked = np.sort(shares, axis=0)
    scores = evaluate(codes, factors, "sap_continuous")
    assert scores["sap_continuous"] == pytest.approx((ranked[-1] - ranked[-2]).mean(), abs=1e-6)


# Real numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metrics", [None, "mig", ["mcc", "mig"], "active_units"])
def test_real_factors_are_refused_where_a_score_does_not_take_them(metrics):
    line = r"factors must be whole numbers .* is in row 0, column 0: .* that take real numbers: .*mcc_pearson"
    with pytest.raises(DislabError, match=line) as error:
        evaluate(np.zeros((200, 2)), real_factors(), metrics)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_real_factors_must_be_finite(value):
    factors = real_factors()
    factors[4, 1] = value
    with pytest.raises(DislabError, match="factors must be whole numbers"):
        evaluate(np.zeros((200, 2)), factors)


def test_real_factors_of_a_dataset_are_refused(tiny_dataset):
    factors = tiny_dataset.space.factors(np.arange(10)) + 0.5
    with pytest.raises(DislabError, match="factors must be whole numbers"):
        dislab.evaluate(codes=np.zeros((10, 2)), factors=factors, dataset=tiny_dataset, metrics="mcc")


def test_whole_numbers_are_the_same_as_floats():
    factors = grid((3, 4), copies=5)
    codes = mixture(factors, 3, 0.5)
    assert evaluate(codes, factors, ["mcc", "jemmig"]) == evaluate(codes, factors * 1.0, ["mcc", "jemmig"])
