"""OMES: its formula by loops, its pairs by inspection, and closed forms."""

import numpy as np
import pytest
from metric_tables import grid, mixture

from dislab.metrics.omes import correlations, overlap_and_multiple_encoding, pairs
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable


def test_overlap_and_multiple_encoding_by_loops():
    association = np.random.default_rng(0).random((4, 3))
    association[:, 1] = [0, 0.5, 0, 0]
    for k, (overlap, multiple) in enumerate(zip(*overlap_and_multiple_encoding(association), strict=True)):
        of_row, of_column, weights = [], [], association[:, k]
        for d in range(4):
            row = [abs((j == k) - association[d, j]) for j in range(3)]
            column = [abs((c == d) - association[c, k]) for c in range(4)]
            of_row.append((1 - np.mean(row)) * association[d, k])
            of_column.append((1 - np.mean(column)) * association[d, k])
        assert overlap == pytest.approx(np.average(of_row, weights=weights), abs=1e-12)
        assert multiple == pytest.approx(np.average(of_column, weights=weights), abs=1e-12)
    np.testing.assert_array_equal(overlap_and_multiple_encoding(np.eye(3)), np.ones((2, 3)))
    np.testing.assert_array_equal(overlap_and_multiple_encoding(np.zeros((0, 3))), np.zeros((2, 3)))


@pytest.mark.parametrize("k", [0, 1, 2])
def test_pairs_differ_in_one_factor_and_no_row_is_used_twice(k):
    rng = np.random.default_rng(0)
    factors = grid((4, 3, 5), copies=2)[rng.permutation(120)[:90]]
    one, other = pairs(factors, k, rng, 1000)
    assert len(one) > 10
    differ = factors[one] != factors[other]
    assert differ[:, k].all() and not np.delete(differ, k, axis=1).any()
    assert len({*one, *other}) == 2 * len(one)
    assert [len(half) for half in pairs(factors, k, rng, 7)] == [7, 7]


def test_pairs_of_factors_with_more_combinations_than_a_key_has_numbers():
    small = np.random.default_rng(0).integers(4, size=(400, 5))
    found = [pairs(small * scale, 4, np.random.default_rng(1), 1000) for scale in (1, 1_000_000)]
    np.testing.assert_array_equal(*found)
    assert len(found[0][0]) > 50


def test_correlations_equal_numpys():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 50, 3))
    other[:, 1] += one[:, 1]
    one[:, 2] = 1.0
    expected = [np.corrcoef(one[:, d], other[:, d])[0, 1] for d in (0, 1)]
    np.testing.assert_allclose(correlations(one, other), [*expected, 1])


def test_one_dimension_per_factor_in_closed_form():
    factors = grid((4, 5, 6), copies=40)
    scores = score(CodeTable(factors.astype(float), factors), ["omes"])
    # Pairs of different values correlate by -1 / (n - 1), so that S is 1 - 1 / (n - 1), and 0 elsewhere.
    own = 1 - 1 / (np.array([4, 5, 6]) - 1)
    expected = own * (1 - (1 - own) / 3)
    np.testing.assert_allclose(scores.details["omes_per_factor"], expected, atol=0.05)
    assert scores["omes_overlap"] == pytest.approx(scores["omes_multiple_encoding"], abs=1e-12)
    off_diagonal = np.array(scores.details["omes_association"])[~np.eye(3, dtype=bool)]
    np.testing.assert_allclose(off_diagonal.astype(float), 0, atol=1e-9)


def test_alpha_weighs_the_two_and_copies_are_multiple_encoding():
    factors = grid((5, 6), copies=20)
    codes = np.hstack([factors, factors]).astype(float)
    once = score(CodeTable(codes[:, :2], factors), ["omes"])
    twice, overlap, multiple = (score(CodeTable(codes, factors), ["omes"], alpha=a) for a in (0.5, 1.0, 0.0))
    assert overlap["omes"] == twice["omes_overlap"] == pytest.approx(once["omes_overlap"], abs=0.05)
    assert multiple["omes"] == twice["omes_multiple_encoding"] < once["omes_multiple_encoding"] - 0.1
    assert twice["omes"] == pytest.approx((overlap["omes"] + multiple["omes"]) / 2, abs=1e-12)


def test_two_values_are_never_seen_and_small_dimensions_take_no_part():
    factors = grid((2, 6), copies=20)
    scores = score(CodeTable(np.column_stack([factors, 0.01 * factors]), factors), ["omes"])
    assert scores.details["omes_per_factor"][0] == pytest.approx(0, abs=1e-9)
    assert scores["omes_active_dimensions"] == 2
    assert scores.details["omes_association"][2:] == [[None, None]] * 2


def test_without_pairs_it_says_so():
    factors = np.stack([np.arange(20), np.arange(20)], axis=1)
    scores = score(CodeTable(mixture(factors, 2, 0.1), factors, names=("hue", "size")), ["omes"])
    line = "it needs pairs of rows that differ in one factor only, and hue has 0"
    assert scores.failed["omes"] == line
