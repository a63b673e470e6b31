"""Every metric on small tables: what the tests of properties and of limits share."""

import math
import re
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dislab.metrics import content_style, dcies, fov_regression_r2, single_neuron, wren
from dislab.registry import METRICS
from dislab.scoring import readouts
from dislab.scoring.score import Scores, score
from dislab.scoring.table import CodeTable

ENTRIES = {entry.name: entry for entry in METRICS}
# What needs viewpoints in degrees is tested in a file of its own.
FUNCTIONS = sorted({entry.make.__name__ for entry in METRICS if "viewpoint" not in entry.needs})
SMALL = {"num_train": 200, "num_test": 100, "num_draws": 20, "num_samples": 200, "num_variance": 300}
SMALL |= {"num_rounds": 10, "num_validation": 50, "num_steps": 20, "num_choices": 2}
NUM_ROWS = 300
FITS_NETWORKS = {
    "content_few",
    "content_scores",
    "dci",
    "dci_fast",
    "fov_regression",
    "mig_continuous",
    "nk",
    "fov_regression_r2",
    "pose_error",
    "style_scores",
    "unfairness",
    "wren",
}
every_metric = pytest.mark.parametrize("function", FUNCTIONS)


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Networks stop early: what is tested here does not depend on how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readouts, "UPDATES", 100)
        patch.setattr(dcies, "FEATURES", (0, 16, 32, 64))
        patch.setattr(fov_regression_r2, "WIDTHS", ((32,), (32,), (32,)))
        patch.setattr(fov_regression_r2, "LEARNING_RATE", 3e-3)
        patch.setattr(content_style, "MOST_DRAWS", 1_000)
        for module in (content_style, single_neuron):
            patch.setattr(module, "Classifier", partial(module.Classifier, max_epochs=30))
        for name, value in {"EDGE": (16,), "GRAPH": (8,), "STEPS": 10}.items():
            patch.setattr(wren, name, value)
        yield


def holds_for_random_tables(function: str, *strategies):
    """A few examples, always the same; one for metrics that train something.

    They are not made smaller where a test fails: with such metrics that takes minutes.
    """
    few = settings(
        max_examples=1 if function in FITS_NETWORKS else 4,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
    )
    return lambda test: few(given(*strategies)(test))


class Recipe(NamedTuple):
    """What a table is made from; short enough to read where a test fails."""

    sizes: list[int]
    num_codes: int
    noise: float
    seed: int

    def factors_and_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors int64 [300, K], each with all of its values, and codes [300, D]: every other dimension
        knows one factor only, the rest are mixtures."""
        rng = np.random.default_rng(self.seed)
        factors = np.column_stack([rng.permutation(np.arange(NUM_ROWS) % size) for size in self.sizes])
        weights = rng.standard_normal((len(self.sizes), self.num_codes))
        weights[1:, ::2] = 0
        return factors, factors @ weights + self.noise * rng.standard_normal((NUM_ROWS, self.num_codes))


SIZES = st.lists(st.integers(2, 5), min_size=2, max_size=3)
RECIPES = st.builds(Recipe, SIZES, st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 1000))
WITHOUT_TIES = RECIPES.filter(lambda recipe: recipe.noise > 0)
USUAL = Recipe([4, 3, 5], 4, 0.1, 0)


def names_of(function: str) -> list[str]:
    return [entry.name for entry in METRICS if entry.make.__name__ == function]


def scores_of(function: str, table: CodeTable, **settings) -> Scores:
    """The scores of a metric's function, which must not fail and must lie in their registered ranges."""
    scores = score(table, names_of(function), **(SMALL | settings))
    assert not scores.failed
    check_ranges(scores)
    return scores


def check_ranges(scores: Scores) -> None:
    for name, value in scores.items():
        assert math.isfinite(value)
        if name in ENTRIES:
            low, high = ENTRIES[name].low, ENTRIES[name].high
            assert low is None or value >= low - 1e-9, name
            assert high is None or value <= high + 1e-9, name


def check_near(one: Scores, other: Scores, allowed: dict[str, float]) -> None:
    """Both have the same registered scores, and these agree as far as allowed (of 1, or of larger values)."""
    names = [name for name in one if name in ENTRIES]
    assert names == [name for name in other if name in ENTRIES]
    for name in names:
        tolerance = allowed.get(name, 1e-5) * max(1, abs(one[name]))
        assert abs(one[name] - other[name]) <= tolerance, name


def check_clear(function: str, table: CodeTable) -> Scores:
    """The scores, where every metric has one or says why not, in words of its own and not a traceback's."""
    scores = score(table, names_of(function), **SMALL)
    assert {*names_of(function)} <= {*scores, *scores.failed, *scores.left_out}
    for name, cause in scores.failed.items():
        assert not re.match(r"\w+(Error|Exception|Warning|Interrupt|Iteration)\b", cause), f"{name}: {cause}"
    check_ranges(scores)
    return scores


def check_between(scores: Scores, expected: dict[str, tuple[float, float]]) -> None:
    for name in expected.keys() & scores.keys():
        low, high = expected[name]
        assert low <= scores[name] <= high, (name, scores[name])
