"""Unfairness: closed forms, and interventions on a full grid by loops."""

import numpy as np
import pytest
from metric_tables import grid

from dislab.metrics.unfairness import contingency, interventions, total_variations
from dislab.scoring import boosting
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

SIZES = (3, 4, 5)


def test_total_variations_in_closed_form():
    for number in (2, 3, 7):
        copies_the_sensitive_factor = 100 * np.eye(number, dtype=int)
        np.testing.assert_allclose(total_variations(copies_the_sensitive_factor), 1 - 1 / number)
    constant = np.array([[50, 200, 7], [0, 0, 0]])
    assert not total_variations(constant).any()
    # Of unequal numbers: the share of the first prediction is 3/4 and 1/3, and 5/10 of all.
    np.testing.assert_allclose(total_variations(np.array([[3, 2], [1, 4]])), [1 / 4, 1 / 6])


def test_contingency_counts_pairs_and_has_no_empty_column():
    predicted, values = np.array([0, 0, 2, 2, 2]), np.array([5, 5, 5, 9, 1])
    assert contingency(predicted, values).tolist() == [[0, 2, 0], [0, 0, 0], [1, 1, 1]]


def test_interventions_change_one_factor_and_nothing_else():
    rng = np.random.default_rng(0)
    factors = grid(SIZES)[rng.permutation(60)]
    table = CodeTable(np.zeros((60, 1)), factors, full_grid=True)
    vectors = rng.integers(60, size=7)
    rows, values = interventions(table, 1, vectors)
    assert len(rows) == 4 * 7
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        expected = factors[vectors[number % 7]].copy()
        assert value == number // 7
        expected[1] = value
        assert factors[row].tolist() == expected.tolist()


@pytest.fixture
def copied_prediction(monkeypatch):
    """A classifier that takes the code of dimension i - 1 for the value of factor i."""

    def learn(codes, factors, test_codes, rng, num_rounds):
        return boosting.Boosted(None, None, np.roll(test_codes, 1, axis=1).astype(int))

    monkeypatch.setattr(boosting, "joint_boosting", learn)


@pytest.mark.parametrize("full_grid", [True, False])
def test_the_metric_in_closed_form(copied_prediction, full_grid):
    factors = np.tile(grid(SIZES), (1 if full_grid else 20, 1))
    table = CodeTable(factors.astype(float), factors, full_grid=full_grid)
    scores = score(table, ["unfairness"], num_train=60)
    own = 1 - 1 / np.array([5, 3, 4])  # of target i with sensitive factor i - 1
    tolerance = 1e-12 if full_grid else 0.05
    assert scores["unfairness"] == pytest.approx(own.sum() / 6, abs=tolerance)
    assert scores["unfairness_worst"] == pytest.approx(own.mean(), abs=tolerance)
    assert scores["unfairness_max"] == pytest.approx(4 / 5, abs=tolerance)
    np.testing.assert_allclose(scores.details["unfairness_per_factor"], own / 2, atol=tolerance)
    pairs = scores.details["unfairness_pairs"]
    assert [pairs[k][k] for k in range(3)] == [None, None, None]
    assert pairs[1][0] == pytest.approx(2 / 3, abs=tolerance)
    assert pairs[1][2] == pytest.approx(0, abs=tolerance)


def test_exact_codes_are_fair_on_a_grid_and_half_of_a_factor_is_not():
    factors = grid((3, 3))
    known = {"num_rounds": 30, "num_train": 200}
    exact = CodeTable(factors.astype(float), factors, full_grid=True)
    assert score(exact, ["unfairness"], **known)["unfairness"] == 0
    one = CodeTable((factors[:, :1] + factors[:, 1:]).astype(float), factors, full_grid=True)
    assert score(one, ["unfairness"], **known)["unfairness"] > 0.15


def test_one_factor_that_varies_is_refused():
    table = CodeTable(
        np.zeros((20, 2)), np.column_stack([np.arange(20) % 2, np.arange(20) == 19]).astype(int)
    )
    table.ordered = True
    scores = score(table, ["unfairness"], num_train=10, num_test=10)
    assert scores.failed["unfairness"] == "it needs two factors that vary in the 10 rows used"
