"""Single-neuron classification and neuron knockout: brute force and closed forms."""

from itertools import permutations

import numpy as np
import pytest
from metric_tables import grid, mixture

from dislab.metrics import single_neuron
from dislab.metrics.single_neuron import bin_values, equal_bins, own_dimensions
from dislab.scoring.information import mutual_information
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable


def test_bins_hold_equally_many_codes_and_stand_for_the_values_that_most_rows_have():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal(120)
    bins = equal_bins(codes, codes, 4)
    assert np.bincount(bins).tolist() == [30] * 4 and (np.diff(bins[np.argsort(codes)]) >= 0).all()
    np.testing.assert_array_equal(equal_bins(-codes, -codes, 4), 3 - bins)
    assert equal_bins(codes, np.array([-9.0, 9.0]), 4).tolist() == [0, 3]
    classes = rng.integers(0, 4, size=120)
    right = max((np.array(values)[bins] == classes).sum() for values in permutations(range(4)))
    assert (bin_values(bins, classes)[bins] == classes).sum() == right


def test_values_that_are_tied_fall_into_one_bin_though_they_are_not_quite_equally_frequent():
    values = np.repeat(np.arange(5), [21, 19, 20, 22, 18])
    np.testing.assert_array_equal(equal_bins(values, values, 5), values)


def test_every_factor_gets_a_dimension_of_its_own_by_brute_force():
    factors = grid((2, 3, 5), copies=8)
    codes = mixture(factors, 4, 2.0)
    sample = CodeTable(codes, factors, ordered=True).draw(np.random.default_rng(0), len(codes))
    information = np.empty((4, 3))
    for d, z in enumerate(codes.T):
        for k, size in enumerate((2, 3, 5)):
            rank = (2 * np.argsort(np.argsort(z)) + 1) * size // (2 * len(z))
            information[d, k] = mutual_information(rank[:, None], factors[:, k : k + 1])[0, 0]
    best = max(permutations(range(4), 3), key=lambda chosen: information[list(chosen), range(3)].sum())
    assert own_dimensions(sample).tolist() == list(best)


def snc(codes, factors, **settings):
    table = CodeTable(codes, factors, ordered=True)
    return score(table, ["snc"], num_train=len(codes) // 2, num_test=len(codes) // 2, **settings)


def test_exact_codes_are_read_without_an_error_and_others_as_often_as_by_chance():
    factors = np.tile(grid((2, 3, 5)), (10, 1))
    scores = snc(-(factors[:, [1, 2, 0]] ** 3), factors)
    assert scores["snc"] == 1
    assert scores.details["snc_dimensions"] == [2, 0, 1]
    constant = snc(np.zeros((300, 3)), factors)
    np.testing.assert_allclose(constant.details["snc_per_factor"], [1 / 2, 1 / 3, 1 / 5])
    alone = snc(factors[:, :1], factors)  # one factor has the only dimension
    assert alone.details["snc_dimensions"] == [0, None, None]
    np.testing.assert_allclose(alone.details["snc_per_factor"], [1, 1 / 3, 1 / 5])


def test_a_dimension_that_two_factors_share_reads_one_of_them():
    factors = np.tile(grid((3, 3)), (20, 1))
    shared = snc(np.column_stack([factors[:, 0] + 3 * factors[:, 1], np.zeros(180)]), factors)
    # In three bins of the nine codes the second factor is read exactly; the first is left a constant.
    np.testing.assert_allclose(shared.details["snc_per_factor"], [1 / 3, 1])


def test_knocking_a_dimension_out_loses_what_no_other_one_holds():
    factors = np.tile(grid((2, 4)), (50, 1))
    once = factors + 0.01 * np.random.default_rng(0).standard_normal(factors.shape)
    rows = {"num_train": 200, "num_test": 200}
    unique = score(CodeTable(once, factors, ordered=True), ["nk"], **rows)
    assert unique["nk_accuracy"] == 1
    np.testing.assert_allclose(unique.details["nk_per_factor"], [1 / 2, 3 / 4], atol=0.1)
    twice = score(CodeTable(np.hstack([once, once]), factors, ordered=True), ["nk"], **rows)
    assert twice["nk_accuracy"] == 1 and abs(twice["nk"]) < 0.02
    half = score(CodeTable(np.hstack([once, once[:, 1:]]), factors, ordered=True), ["nk"], **rows)
    np.testing.assert_allclose(half.details["nk_per_factor"], [1 / 2, 0], atol=0.1)


def test_a_constant_dimension_is_no_loss():
    factors = np.tile(grid((2, 4)), (10, 1))
    scores = score(CodeTable(np.zeros((80, 3)), factors), ["nk"], num_train=40, num_test=40)
    assert scores["nk"] == 0
    assert scores["nk_accuracy"] == pytest.approx(0.375, abs=0.2)


def test_a_factor_of_very_many_values_is_read_only_if_snc_is_named(monkeypatch):
    monkeypatch.setattr(single_neuron, "MOST_VALUES", 3)
    factors = np.tile(grid((2, 4)), (10, 1))
    assert "it takes" in score(CodeTable(factors, factors)).left_out["snc"]
    assert "snc" in score(CodeTable(factors, factors), ["snc"])
    rare = factors % 3 * [1, 2]  # values 0, 2 and 4: a size of 5, and three values
    assert not single_neuron.takes_gigabytes(CodeTable(rare, rare))
