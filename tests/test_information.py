"""Entropy and mutual information of binned codes."""

from collections import Counter
from math import log

import numpy as np
import pytest

from dislab.scoring import information
from dislab.scoring.information import entropy, histogram_bins, information_of_pairs, mutual_information


def information_by_counting(a, b) -> float:
    joint, first, second, n = Counter(zip(a, b, strict=True)), Counter(a), Counter(b), len(a)
    return sum(c / n * log(c * n / (first[x] * second[y])) for (x, y), c in joint.items())


def test_mutual_information_and_entropy_equal_a_count_by_hand():
    rng = np.random.default_rng(0)
    values = rng.integers(0, [2, 5, 9], size=(500, 3))
    bins = np.column_stack([values[:, 1], rng.integers(0, 20, 500), np.zeros(500, int), values[:, 2] // 2])
    got = mutual_information(bins, values)
    assert got.shape == (4, 3) and got.dtype == np.float64
    for d in range(4):
        for k in range(3):
            assert got[d, k] == pytest.approx(information_by_counting(bins[:, d], values[:, k]), abs=1e-12)
    for k in range(3):
        assert entropy(values)[k] == pytest.approx(
            information_by_counting(values[:, k], values[:, k]), abs=1e-12
        )
    assert got[0, 1] == pytest.approx(entropy(values)[1])
    assert np.all(got[2] == 0)


def test_information_of_pairs_in_pieces_and_whole(monkeypatch):
    bins = np.random.default_rng(0).integers(0, [2, 5, 9, 1], size=(300, 4))
    whole = mutual_information(bins, bins)
    monkeypatch.setattr(information, "CELLS", 500)
    np.testing.assert_array_equal(mutual_information(bins, bins), whole)
    np.testing.assert_allclose(np.sort(information_of_pairs(bins)), np.sort(whole[np.triu_indices(4, 1)]))
    assert information_of_pairs(bins[:, :1]).shape == (0,)


def test_information_does_not_depend_on_how_values_are_numbered():
    rng = np.random.default_rng(1)
    bins, values = rng.integers(0, 20, (300, 2)), rng.integers(0, 4, (300, 1))
    np.testing.assert_allclose(
        mutual_information(bins, values), mutual_information(bins, values * 10**12 + 7)
    )


def test_bins_are_those_of_numpy_histogram():
    rng = np.random.default_rng(2)
    codes = np.column_stack(
        [rng.standard_normal(3000), rng.integers(0, 41, 3000) / 40, rng.exponential(size=3000)]
    )
    for dtype in (np.float32, np.float64, np.int64):
        columns = (codes * 50).astype(dtype)
        bins = histogram_bins(columns, 20)
        assert bins.min() == 0 and bins.max() == 19
        for d in range(3):
            edges = np.histogram(columns[:, d], 20)[1]
            np.testing.assert_array_equal(bins[:, d], np.digitize(columns[:, d], edges[:-1]) - 1)


@pytest.mark.filterwarnings("error")
def test_bins_of_the_largest_numbers():
    codes = np.array([[-3.4e38], [-1e38], [0], [1e30], [3.4e38]], np.float32)
    np.testing.assert_array_equal(histogram_bins(codes), histogram_bins(codes.astype(np.float64)))


def test_bins_of_the_reference_unit_test():
    rows = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
    np.testing.assert_array_equal(histogram_bins(rows.T, 3).T + 1, [[1, 1, 2, 2, 3, 3], [3, 3, 2, 2, 1, 1]])


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e30])
def test_a_constant_dimension_falls_into_one_bin(value):
    assert np.all(histogram_bins(np.full((10, 1), value, dtype=np.float32)) == 0)


def test_a_range_too_small_for_the_bins_gives_fewer_bins():
    codes = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], dtype=np.float32)
    assert len(np.unique(histogram_bins(codes))) == 2
