"""What holds for every metric, whatever it measures: on random tables, and at the limits of its input.

A new metric is tested here as soon as it is registered. Where its score is random, how far it may move is
stated below.
"""

import math
import re
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import dislab
from dislab.data.space import Circle
from dislab.metrics import content_style, dci, fov_regression
from dislab.registry import METRICS
from dislab.scoring.evaluate import Scores, score
from dislab.scoring.table import CodeTable

# The slow ones are left out, but for dci_fast: on tables of this size it is not slow.
ENTRIES = {entry.name: entry for entry in [*METRICS.default(), *METRICS.choose(["dci_fast"])]}
FUNCTIONS = sorted({entry.make.__name__ for entry in ENTRIES.values()})
SMALL = {"num_train": 200, "num_test": 100, "num_draws": 20, "num_samples": 200, "num_variance": 300}
NUM_ROWS = 300
FITS_NETWORKS = {"content_scores", "dci_fast", "fov_regression", "pose_error", "style_scores"}


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Networks and trees stop early: what is tested here does not depend on how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fov_regression, "UPDATES", 100)
        patch.setattr(dci, "ROUNDS", 20)
        patch.setattr(content_style, "MOST_DRAWS", 2_000)
        patch.setattr(content_style, "Classifier", partial(content_style.Classifier, max_epochs=30))
        yield


def holds_for_random_tables(function: str, *strategies):
    """A few examples, always the same; fewer for metrics that train something.

    They are not made smaller where a test fails: with such metrics that takes minutes.
    """
    few = settings(
        max_examples=2 if function in FITS_NETWORKS else 6,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
    )
    return lambda test: few(given(*strategies)(test))


# Tables --------------------------------------------------------------------------------------------


def make_table(codes: np.ndarray, factors: np.ndarray, **changes) -> CodeTable:
    """A table with everything that a metric may need: the first factor groups, the last one is circular."""
    names = tuple("abcdef"[: factors.shape[1]])
    noise = np.random.default_rng(0)
    given = {
        "logvar": noise.uniform(-4, -2, size=codes.shape),
        "reconstruction": noise.uniform(50, 60, size=100),
        "labels": factors[:, 0],
        "circle": Circle(names[-1], int(factors[:, -1].max()) + 1),
    }
    return CodeTable(codes, factors, names=names, **(given | changes))


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


def scores_of(function: str, table: CodeTable, **settings) -> Scores:
    """The scores of a metric's function, which must not fail and must lie in their registered ranges."""
    scores = score(table, [entry.name for entry in entries_of(function)], **(SMALL | settings))
    assert not scores.failed
    check_ranges(scores)
    return scores


def entries_of(function: str):
    return [entry for entry in ENTRIES.values() if entry.make.__name__ == function]


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


def check_clear(scores: Scores) -> None:
    """Where a metric has no score it says why, in words of its own and not in those of a traceback."""
    for name, cause in scores.failed.items():
        assert not re.match(r"\w+(Error|Exception|Warning|Interrupt|Iteration)\b", cause), f"{name}: {cause}"
    check_ranges(scores)


# What must not matter ------------------------------------------------------------------------------

# Scores of what is fitted from random weights, or drawn per dimension, move with the order of dimensions.
MOVED_BY_DIMENSIONS = {
    "betavae_score": 0.02,
    "explicitness": 0.01,
    "infoexplicitness": 0.01,
    "content_accuracy": 0.1,
    "content_entropy": math.inf,  # a bound that a network of few rows makes arbitrarily large
    "style_accuracy": 0.1,
    "style_entropy": 0.1,
    "dci_fast_completeness": 0.03,
    "dci_fast_disentanglement": 0.03,
    "dci_fast_informativeness": 0.05,
    "dcies_explicitness": 0.1,
    "fov_regression": 0.1,
    "pose_error": 0.4,
    "index_code_mi": 0.15,
    "total_correlation": 0.3,
}
# Another order of rows is another split into training and test rows, and other draws of points.
MOVED_BY_ROWS = MOVED_BY_DIMENSIONS | {
    "betavae_score": 0.25,
    "factorvae_score": 0.25,
    "explicitness": 0.1,
    "sap": 0.2,
    "content_accuracy": 0.2,
    "dci_fast_completeness": 0.2,
    "dci_fast_disentanglement": 0.2,
    "dci_fast_informativeness": 0.15,
    "infocompactness": 0.001,
    "pose_error": 0.8,  # the angles of one or two objects
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_order_and_sign_of_code_dimensions_do_not_matter(function):
    @holds_for_random_tables(function, WITHOUT_TIES, st.randoms())
    def holds(recipe, random):
        factors, codes = recipe.factors_and_codes()
        order = random.sample(range(codes.shape[1]), codes.shape[1])
        signs = random.choices([-1, 1], k=codes.shape[1])
        table = make_table(codes, factors)
        other = make_table((codes * signs)[:, order], factors, logvar=table.logvar[:, order])
        check_near(scores_of(function, table), scores_of(function, other), MOVED_BY_DIMENSIONS)

    holds()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_order_of_rows_does_not_matter(function):
    @holds_for_random_tables(function, WITHOUT_TIES, st.integers(0, 1000))
    def holds(recipe, seed):
        factors, codes = recipe.factors_and_codes()
        order = np.random.default_rng(seed).permutation(NUM_ROWS)
        table = make_table(codes, factors)
        other = make_table(codes[order], factors[order], logvar=table.logvar[order])
        scores = [scores_of(function, one, num_train=NUM_ROWS) for one in (table, other)]
        check_near(*scores, MOVED_BY_ROWS)

    holds()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_integer_codes_are_the_same_as_float_codes(function):
    factors = np.random.default_rng(0).integers(0, [3, 4, 5], size=(NUM_ROWS, 3))
    codes = np.column_stack([3 * factors[:, 0] - 7, factors[:, 1] + factors[:, 2], factors[:, 2] > 2])
    as_integers = scores_of(function, make_table(codes.astype(np.int16), factors))
    assert as_integers == scores_of(function, make_table(codes.astype(np.float64), factors))
    assert as_integers


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_factor_with_a_single_value_does_not_matter(function):
    @holds_for_random_tables(function, RECIPES, st.integers(0, 2), st.integers(0, 5))
    def holds(recipe, place, value):
        factors, codes = recipe.factors_and_codes()
        table = make_table(codes, factors)
        place = min(place, factors.shape[1])
        wider = np.insert(factors, place, value, axis=1)
        names = (*table.names[:place], "constant", *table.names[place:])
        other = CodeTable(
            codes,
            wider,
            names=names,
            logvar=table.logvar,
            labels=table.labels,
            circle=table.circle,
            reconstruction=table.reconstruction,
        )
        check_near(scores_of(function, table), scores_of(function, other), {})

    holds()


# What must not break a score -----------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_constant_and_copied_dimensions(function):
    values = st.sampled_from([0.0, 0.1, -3.7, 1234.567, 1e6])

    @holds_for_random_tables(function, RECIPES, values, st.booleans())
    def holds(recipe, value, copied):
        factors, codes = recipe.factors_and_codes()
        constant = np.full((NUM_ROWS, 2), value)
        wider = np.hstack([codes[:, :1], constant, codes[:, 1:], codes if copied else codes[:, :0]])
        assert scores_of(function, make_table(wider, factors))
        assert scores_of(function, make_table(constant, factors))

    holds()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_factor(function):
    @holds_for_random_tables(function, RECIPES)
    def holds(recipe):
        factors, codes = recipe.factors_and_codes()
        names = [entry.name for entry in entries_of(function)]
        scores = score(make_table(codes, factors[:, :1]), names, **SMALL)
        check_clear(scores)
        assert set(scores.failed) <= {"pose_error"}  # it needs a second object
        for name in set(names) - set(scores.failed) - set(scores):
            assert "two factors" in scores.left_out[name]

    holds()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_factor_varies(function):
    codes = np.random.default_rng(0).standard_normal((NUM_ROWS, 3))
    names = [entry.name for entry in entries_of(function)]
    scores = score(make_table(codes, np.full((NUM_ROWS, 2), 3)), names, **SMALL)
    check_clear(scores)
    assert set(names) <= {*scores, *scores.failed, *scores.left_out}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_fewer_rows_than_bins(function):
    @holds_for_random_tables(function, RECIPES, st.integers(1, 12))
    def holds(recipe, num_rows):
        factors, codes = (array[:num_rows] for array in recipe.factors_and_codes())
        names = [entry.name for entry in entries_of(function)]
        scores = score(make_table(codes, factors), names, **SMALL)
        check_clear(scores)
        assert set(names) <= {*scores, *scores.failed, *scores.left_out}

    holds()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(RECIPES, st.randoms(), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_codes_that_are_no_numbers_name_the_dimension(recipe, random, value, in_logvar):
    factors, codes = recipe.factors_and_codes()
    logvar = np.zeros_like(codes)
    dimension = random.randrange(codes.shape[1])
    (logvar if in_logvar else codes)[random.randrange(NUM_ROWS), dimension] = value
    with pytest.raises(dislab.DislabError, match=rf"dimension {dimension} is (nan|inf|-inf)"):
        dislab.evaluate(codes=codes, factors=factors, logvar=logvar)


# The ends of the scale -----------------------------------------------------------------------------

AT_THE_TOP = {  # lowest and highest value of a code with one dimension per factor, up to little noise
    "betavae_score": (1, 1),
    "content_accuracy": (0.99, 1),
    "dci_fast_completeness": (0.98, 1),
    "dci_fast_disentanglement": (0.98, 1),
    "dci_fast_informativeness": (0.98, 1),
    "dcies_size": (1, 1),
    "explicitness": (0.98, 1),
    "factorvae_score": (1, 1),
    "fov_regression": (0.98, 1),
    "gaussian_total_correlation": (0, 0.02),
    "gaussian_wasserstein_correlation": (0, 0.02),
    "gaussian_wasserstein_correlation_norm": (0, 0.01),
    "infocompactness": (0.97, 1),
    "infoexplicitness": (0.97, 1),
    "infomodularity": (0.97, 1),
    "irs": (0.97, 1),
    "mig": (0.95, 1),
    "mig_sampled": (0.97, 1),
    "modularity": (0.98, 1),
    "mutual_info_score": (0, 0.1),
    "pose_error": (0, 5),
    "sap": (0.2, 1),  # a penalised linear classifier cannot single out the values in the middle
    "style_accuracy": (0.1, 0.4),
    "style_entropy": (1.9, 2.3),
    "total_correlation": (0, 0.4),
}
AT_THE_BOTTOM = {  # the same of noise, for the scores that are near zero or near chance there
    "betavae_score": (0.2, 0.47),
    "content_accuracy": (0.1, 0.4),
    "dci_fast_completeness": (0, 0.05),
    "dci_fast_disentanglement": (0, 0.05),
    "dci_fast_informativeness": (0.1, 0.3),
    "explicitness": (0.4, 0.6),
    "factorvae_score": (0.2, 0.5),
    "fov_regression": (-0.3, 0.05),
    "infoexplicitness": (0, 0.06),
    "mig": (0, 0.03),
    "mig_sampled": (0, 0.03),
    "pose_error": (65, 115),
    "sap": (0, 0.08),
    "style_accuracy": (0.1, 0.4),
}


def grid_of_factors(sizes: tuple[int, ...], copies: int) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=-1).repeat(copies, axis=0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_perfect_code_is_at_the_top_and_noise_at_the_bottom(function):
    factors, rng = grid_of_factors((4, 5, 6), copies=5), np.random.default_rng(0)
    codes = factors / [3, 4, 5] * 4 - 2 + 0.01 * rng.standard_normal(factors.shape)
    blocks = {"content": slice(0, 1), "style": slice(1, None)}
    perfect = make_table(codes, factors, logvar=np.full(codes.shape, -8.0), blocks=blocks)
    noise = make_table(rng.standard_normal((len(factors), 5)), factors)
    for table, expected in ((perfect, AT_THE_TOP), (noise, AT_THE_BOTTOM)):
        scores = scores_of(function, table, num_train=400, num_test=200, num_draws=500)
        for name in expected.keys() & scores.keys():
            low, high = expected[name]
            assert low <= scores[name] <= high, name
