"""Which rows of a table are the best: against scipy's own test of Welch."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from dislab.report.best import best_of

NAN = float("nan")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_tied_rows_are_those_that_scipy_does_not_separate(direction):
    rng = np.random.default_rng(0)
    means = np.linspace(0, 1, 12)[:, None]
    values = pd.DataFrame(means + 0.2 * rng.standard_normal((12, 5)), index=[*"abcdefghijkl"])
    found = best_of(values, direction)
    order = values.mean(axis=1).sort_values(ascending=direction == "down").index
    first = values.loc[order[0]]
    expected = {row for row in order[1:] if ttest_ind(first, values.loc[row], equal_var=False).pvalue >= 0.05}
    assert found.pop(order[0]) == "best"
    assert found == dict.fromkeys(expected, "tied") and 0 < len(expected) < 10


def test_rows_may_have_other_seeds():
    values = pd.DataFrame({0: [0.1, NAN], 1: [0.2, NAN], 2: [NAN, 0.9], 3: [NAN, 0.8]}, index=[*"ab"])
    assert best_of(values, "up") == {"b": "best"}
    values.loc["a", 1] = 1.5
    assert best_of(values, "up") == {"b": "best", "a": "tied"}


def test_one_seed_is_untested():
    values = pd.DataFrame({0: [0.1, 0.2, 0.2, NAN]}, index=[*"abcd"])
    assert best_of(values, "up") == {"b": "untested", "c": "untested"}
    alone = pd.DataFrame({0: [0.1, 0.9], 1: [0.2, NAN]}, index=[*"ab"])
    assert best_of(alone, "up") == {"b": "untested"}


def test_no_spread_at_all():
    values = pd.DataFrame({0: [0.0, 0.0, 1.0], 1: [0.0, 0.0, 1.0]}, index=[*"abc"])
    assert best_of(values, "down") == {"a": "best", "b": "tied"}


@pytest.mark.parametrize(("direction", "rows"), [("", 3), ("sideways", 3), ("up", 1), ("up", 0)])
def test_nothing_is_claimed_of_an_unknown_direction_or_a_single_row(direction, rows):
    values = pd.DataFrame({0: range(rows), 1: range(rows)}, index=range(rows))
    assert best_of(values, direction) == {}
