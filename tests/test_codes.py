"""The factor space and the code table."""

import itertools

import numpy as np
import pytest
import torch
from conftest import NAMES, SIZES
from scipy.stats import chisquare

from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.scoring.table import CodeTable, spread
from dislab.scoring.table_file import table_file, table_in

GRID = np.array(list(itertools.product(*(range(size) for size in SIZES))))


def make_table(num_rows: int = 40, **given) -> CodeTable:
    rng = np.random.default_rng(0)
    factors = np.stack([np.arange(num_rows) % 4, np.arange(num_rows) % 5], axis=1)
    return CodeTable(rng.normal(size=(num_rows, 3)), factors, **given)


def assert_uniform(values: np.ndarray, among) -> None:
    found, counts = np.unique(values, return_counts=True)
    assert set(found) == set(among)
    # The seeds are fixed, so this does not fail by chance; a true bias gives far smaller p-values.
    assert len(counts) == 1 or chisquare(counts).pvalue > 1e-3


# FactorSpace


def test_rows_are_in_the_order_of_the_product():
    space = FactorSpace(NAMES, SIZES)
    assert len(space) == len(GRID) == 60
    assert space.is_grid
    assert (space.factors(np.arange(60)) == GRID).all()
    assert space.factors(np.arange(60)).dtype == np.int64
    assert (space.rows(GRID) == np.arange(60)).all()
    assert space.rows(GRID).dtype == np.int64
    mixed = np.random.default_rng(0).permutation(60)
    assert (space.rows(space.factors(mixed)) == mixed).all()
    assert repr(space) == "FactorSpace(shape 4, size 3, position 5)"


def test_labels_number_the_values_of_the_named_factors():
    space = FactorSpace(NAMES, SIZES)
    assert (space.labels(["size"]) == GRID[:, 1]).all()
    assert (space.labels(["shape", "position"]) == 5 * GRID[:, 0] + GRID[:, 2]).all()
    assert (space.labels(["position", "shape"]) == 4 * GRID[:, 2] + GRID[:, 0]).all()
    assert (space.labels(list(NAMES)) == np.arange(60)).all()
    both = space.labels_of([["size"], ["shape", "position"]])
    assert (both == np.stack([GRID[:, 1], 5 * GRID[:, 0] + GRID[:, 2]], axis=1)).all()
    assert (space.labels(["size"], np.array([59, 0, 7])) == GRID[[59, 0, 7], 1]).all()
    assert space.columns(["position", "shape"]) == [2, 0]


def test_a_space_of_listed_values():
    values = np.array([[3, 0], [1, 1], [3, 0]], dtype=np.uint8)
    space = FactorSpace(("digit", "hand"), (10, 2), values)
    assert len(space) == 3
    assert not space.is_grid
    assert (space.factors([2, 1]) == values[[2, 1]]).all()
    assert space.factors([0]).dtype == np.int64
    assert space.labels(["digit", "hand"]).tolist() == [6, 3, 6]
    with pytest.raises(ValueError, match="only a full grid"):
        space.rows(values)


def test_wrong_factor_spaces_are_errors():
    with pytest.raises(ValueError, match="2 factor names but 3 sizes"):
        FactorSpace(("a", "b"), (1, 2, 3))
    for values in (np.zeros((5, 3), int), np.zeros(5, int)):
        with pytest.raises(ValueError, match=r"values must be \[N, 2\]"):
            FactorSpace(("a", "b"), (2, 2), values)
    space = FactorSpace(NAMES, SIZES)
    with pytest.raises(DislabError, match="unknown factor 'positon': did you mean 'position'"):
        space.labels(["shape", "positon"])
    with pytest.raises(DislabError, match="known are shape, size, position"):
        space.columns(["zzz"])
    for row in ([4, 0, 0], [0, -1, 0]):
        with pytest.raises(ValueError, match="invalid"):
            space.rows([row])
    with pytest.raises((ValueError, IndexError)):
        space.factors([60])


# CodeTable.split


def test_listed_rows_are_split_without_replacement():
    table = make_table(40)
    train, test = table.split(np.random.default_rng(0), 20, 12)
    assert (len(train), len(test)) == (20, 12)
    assert len(set(train) | set(test)) == 32
    firsts = [table.split(np.random.default_rng(seed), 20, 12)[0] for seed in range(300)]
    assert_uniform(np.concatenate(firsts), range(40))
    assert not np.array_equal(firsts[0], firsts[1])
    assert (firsts[0] == train).all()


@pytest.mark.parametrize(
    ("num_train", "num_test", "expected"),
    [(100, 50, (26, 14)), (10_000, 5_000, (26, 14)), (40, 1, (39, 1)), (100, 0, (40, 0)), (1, 1000, (1, 39))],
)
def test_too_few_listed_rows_are_all_used_in_proportion(num_train, num_test, expected):
    train, test = make_table(40).split(np.random.default_rng(0), num_train, num_test)
    assert (len(train), len(test)) == expected
    assert sorted([*train, *test]) == list(range(40))


def test_a_full_grid_is_drawn_from_with_replacement():
    table = make_table(40, full_grid=True)
    train, test = table.split(np.random.default_rng(0), 3000, 2000)
    assert (len(train), len(test)) == (3000, 2000)
    assert_uniform(train, range(40))
    assert_uniform(test, range(40))
    assert not np.array_equal(train[:2000], test)
    small, none = table.split(np.random.default_rng(0), 30)
    assert len(set(small)) < 30
    assert len(none) == 0


@pytest.mark.parametrize("full_grid", [False, True])
def test_an_ordered_table_gives_its_first_rows(full_grid):
    table = make_table(40, ordered=True, full_grid=full_grid)
    train, test = table.split(np.random.default_rng(0), 20, 12)
    assert train.tolist() == list(range(20))
    assert test.tolist() == list(range(20, 32))
    train, test = table.split(np.random.default_rng(0), 60, 20)
    assert train.tolist() == list(range(30))
    assert test.tolist() == list(range(30, 40))


# CodeTable.draw


def test_distinct_rows_of_a_full_grid_are_drawn_without_replacement():
    table, rng = make_table(200, full_grid=True), np.random.default_rng(0)
    train, test = table.split(rng, 120, 80, distinct=True)
    assert sorted([*train, *test]) == list(range(200))
    train, test = table.split(rng, 600, 200, distinct=True)
    assert (len(train), len(test)) == (150, 50) and not {*train} & {*test}


@pytest.mark.parametrize("distinct", [False, True])
def test_a_sample_has_the_rows_of_a_split_and_the_factors_that_vary(distinct):
    factors = np.column_stack([np.arange(40) % 4, np.full(40, 7), np.arange(40) // 30, np.arange(40) % 5])
    table = CodeTable(np.random.default_rng(0).normal(size=(40, 3)), factors, ordered=True)
    sample = table.draw(np.random.default_rng(1), 30, 10, distinct=distinct)
    np.testing.assert_array_equal(sample.codes, table.mean[:30])
    np.testing.assert_array_equal(sample.test_codes, table.mean[30:])
    assert sample.columns.tolist() == [0, 3]  # the third factor varies in the test rows alone
    np.testing.assert_array_equal(sample.factors, factors[:30, [0, 3]])
    np.testing.assert_array_equal(sample.test_factors, factors[30:, [0, 3]])
    assert sample.per_factor([0.5, 2]).tolist() == [0.5, None, None, 2]
    assert sample.per_factor(np.ones((1, 2))).tolist() == [[1, None, None, 1]]
    table = make_table(300, full_grid=not distinct)
    sample = table.draw(np.random.default_rng(1), 30, 10, distinct=distinct)
    train, test = table.split(np.random.default_rng(1), 30, 10, distinct=distinct)
    np.testing.assert_array_equal(sample.codes, table.mean[train])
    np.testing.assert_array_equal(sample.test_factors, table.factors[test])


def test_a_sample_that_serves_no_metric_says_why():
    rng = np.random.default_rng(0)
    constant = CodeTable(np.zeros((9, 2)), np.ones((9, 2), int))
    with pytest.raises(DislabError, match="needs a factor that varies, but all are constant in the 6 rows"):
        constant.draw(rng, 6)
    with pytest.raises(DislabError, match="rows to test on, but all 40 rows"):
        make_table(40).draw(rng, 50, 0)
    assert len(make_table(40).draw(rng, 50).test_codes) == 0


def test_values_are_spread_over_positions():
    assert spread([1, 2], np.array([3, 0]), 4).tolist() == [2, None, None, 1]
    assert spread([1.5], np.array([False, True]), 2).tolist() == [None, 1.5]
    assert spread([], np.array([], int), 2).tolist() == [None, None]


# CodeTable.sharing


def test_sharing_draws_uniformly_from_the_rows_with_the_same_value():
    # Values are unevenly frequent and unsorted, and value 2 never occurs.
    factor = np.array([3, 0, 1, 3, 3, 1, 3, 0, 3, 4, 3, 1])
    table = CodeTable(np.zeros((12, 1)), np.stack([np.zeros(12, int), factor], axis=1), sizes=(1, 6))
    rng = np.random.default_rng(0)
    for value in (0, 1, 3, 4):
        members = np.flatnonzero(factor == value)
        for row in members[:2]:
            assert_uniform(table.sharing(rng, 1, np.full(1500, row)), members)
    assert_uniform(table.sharing(rng, 0, np.full(3000, 5)), range(12))


def test_sharing_takes_rows_of_any_shape():
    table = CodeTable(np.zeros((60, 1)), GRID, names=NAMES, sizes=SIZES)
    rng = np.random.default_rng(0)
    rows = rng.integers(60, size=(50, 4, 2))
    for factor in range(3):
        shared = table.sharing(rng, factor, rows)
        assert shared.shape == rows.shape
        assert (GRID[shared, factor] == GRID[rows, factor]).all()
        assert (shared != rows).any()


# What a CodeTable takes


def test_a_code_table_converts_and_names_its_arrays():
    table = CodeTable(np.arange(6).reshape(3, 2), [[0.0, 2.0], [1.0, 0.0], [1.0, 1.0]], labels=[0, 1, 1])
    assert table.mean.dtype == np.float32
    assert table.factors.dtype == table.labels.dtype == np.int64
    assert table.factors.tolist() == [[0, 2], [1, 0], [1, 1]]
    assert table.names == ("factor_0", "factor_1")
    assert table.sizes == (2, 3)
    assert len(table) == 3
    assert table.logvar is None
    assert repr(table) == "CodeTable(3 rows, 2 dimensions, factors factor_0, factor_1)"
    one = CodeTable(np.zeros((3, 1)), np.array([0, 1, 5], dtype=np.uint8))
    assert one.factors.shape == (3, 1)
    assert one.sizes == (6,)
    assert CodeTable(torch.zeros(3, 2), torch.tensor([[0], [1], [2]])).sizes == (3,)


def test_a_table_in_a_file_is_what_was_written():
    factors = np.stack([np.arange(12) % 3, np.arange(12) % 2], axis=1)
    for tested in (np.arange(12) % 2 == 0, None):
        table = CodeTable(np.eye(3)[factors[:, 0]], factors, labels=factors[:, 0], tested=tested)
        found = table_in(table_file(table, np.arange(12)))
        for name in ("mean", "factors", "labels", "tested"):
            np.testing.assert_array_equal(getattr(found, name), getattr(table, name))
        assert tested is None or found.tested.dtype == bool
