"""What does not matter to any metric, whatever it measures: on random tables.

A new metric is tested here as soon as it is registered. Where its score is random, how far it may move is
stated below.
"""

import math

import numpy as np
import pytest
from every_metric import (
    FUNCTIONS,
    NUM_ROWS,
    RECIPES,
    USUAL,
    WITHOUT_TIES,
    check_between,
    check_near,
    every_metric,
    holds_for_random_tables,
    scores_of,
    short_training,  # noqa: F401 (a fixture)
)
from hypothesis import strategies as st
from metric_tables import full_table

# Scores of what is fitted from random weights, or drawn per dimension, move with the order of dimensions.
MOVED_BY_DIMENSIONS = {
    "betavae_score": 0.02,
    "explicitness": 0.01,
    "infoexplicitness": 0.01,
    "content_accuracy": 0.1,
    "content_entropy": math.inf,  # a bound that a network of few rows makes arbitrarily large
    "content_accuracy_few": 0.1,
    "style_accuracy": 0.1,
    "style_accuracy_few": 0.1,
    "style_entropy": 0.1,
    "dci_completeness": 0.03,  # trees break ties at random
    "dci_disentanglement": 0.03,
    "dci_informativeness": 0.05,
    "dci_fast_completeness": 0.03,
    "dci_fast_disentanglement": 0.03,
    "dci_fast_informativeness": 0.05,
    "dcies_explicitness": 0.1,
    "fov_regression": 0.1,
    "mig_continuous": 0.02,
    "nk": 0.2,
    "fov_regression_r2": 0.15,
    "pose_error": 0.4,
    "snc": 0.05,  # where a bin ends if the rows cannot be divided equally
    "unfairness": 0.05,
    "index_code_mi": 0.15,
    "total_correlation": 0.3,
    "wren_accuracy": 0.3,
}
# Another order of rows is another split into training and test rows, and other draws of points.
MOVED_BY_ROWS = MOVED_BY_DIMENSIONS | {
    "betavae_score": 0.25,
    "factorvae_score": 0.25,
    "explicitness": 0.1,
    "sap": 0.2,
    "content_accuracy": 0.2,
    "content_accuracy_few": 0.2,
    "style_accuracy": 0.2,
    "style_accuracy_few": 0.2,
    "dci_completeness": 0.2,
    "dci_disentanglement": 0.2,
    "dci_informativeness": 0.2,
    "dci_fast_completeness": 0.2,
    "dci_fast_disentanglement": 0.2,
    "dci_fast_informativeness": 0.2,
    "infocompactness": 0.001,
    "nk": 0.4,
    "omes": 0.2,  # the same rows in other pairs
    "pose_error": 0.8,  # the angles of one or two objects
    "snc": 0.15,
    "unfairness": 0.2,
}
DEPEND_ON_UNITS = {
    "active_units",
    "betavae_score",  # its classifier is penalised, and so is that of sap
    "sap",
    "factorvae_score",  # dimensions of a small standard deviation are pruned
    "omes",
    "gaussian_correlation",  # one of its scores has the units of the codes
    "elbo",
    "kl",
    "kl_decomposition",
}


@every_metric
def test_order_and_sign_of_code_dimensions_do_not_matter(function):
    @holds_for_random_tables(function, WITHOUT_TIES, st.randoms())
    def holds(recipe, random):
        factors, codes = recipe.factors_and_codes()
        order = random.sample(range(codes.shape[1]), codes.shape[1])
        signs = random.choices([-1, 1], k=codes.shape[1])
        table = full_table(codes, factors)
        other = full_table((codes * signs)[:, order], factors, logvar=table.logvar[:, order])
        check_near(scores_of(function, table), scores_of(function, other), MOVED_BY_DIMENSIONS)

    holds()


@pytest.mark.parametrize("function", sorted({*FUNCTIONS} - DEPEND_ON_UNITS))
def test_units_of_the_codes_do_not_matter(function):
    factors, codes = USUAL.factors_and_codes()
    table = full_table(codes, factors)
    other = full_table(8 * codes, factors, logvar=table.logvar + 2 * math.log(8))
    check_near(scores_of(function, table), scores_of(function, other), {})


@every_metric
def test_order_of_rows_does_not_matter(function):
    @holds_for_random_tables(function, WITHOUT_TIES, st.integers(0, 1000))
    def holds(recipe, seed):
        factors, codes = recipe.factors_and_codes()
        order = np.random.default_rng(seed).permutation(NUM_ROWS)
        table = full_table(codes, factors)
        other = full_table(codes[order], factors[order], logvar=table.logvar[order])
        scores = [scores_of(function, one, num_train=NUM_ROWS) for one in (table, other)]
        check_near(*scores, MOVED_BY_ROWS)

    holds()


@every_metric
def test_integer_codes_are_the_same_as_float_codes_and_a_seed_decides_every_digit(function):
    factors = np.random.default_rng(0).integers(0, [3, 4, 5], size=(NUM_ROWS, 3))
    codes = np.column_stack([3 * factors[:, 0] - 7, factors[:, 1] + factors[:, 2], factors[:, 2] > 2])
    as_integers = scores_of(function, full_table(codes.astype(np.int16), factors))
    assert as_integers == scores_of(function, full_table(codes.astype(np.float64), factors))
    assert as_integers


@every_metric
def test_a_factor_with_a_single_value_does_not_matter(function):
    @holds_for_random_tables(function, RECIPES, st.integers(0, 2), st.integers(0, 5))
    def holds(recipe, column, value):
        factors, codes = recipe.factors_and_codes()
        table = full_table(codes, factors)
        column = min(column, factors.shape[1])
        wider = np.insert(factors, column, value, axis=1)
        names = (*table.names[:column], "constant", *table.names[column:])
        more = {"labels": table.labels, "circle": table.circle, "logvar": table.logvar}
        scores = scores_of(function, full_table(codes, wider, names=names, **more))
        check_near(scores_of(function, table), scores, {})
        per_factor = [values for name, values in scores.details.items() if name.endswith("_per_factor")]
        assert all(values[column] is None and values.count(None) == 1 for values in per_factor)

    holds()


# A dimension that is constant is a dimension all the same in these, and changes the random draws of others.
MOVED_BY_A_CONSTANT = MOVED_BY_DIMENSIONS | {
    "dci_completeness": 0.3,
    "dci_fast_completeness": 0.3,
    "dcies_size": 1,
    "dimension_wise_kl": math.inf,
    "elbo": math.inf,
    "index_code_mi": math.inf,
    "kl": math.inf,
    "mig_sup": 0.5,
    "modularity": 0.5,
    "mutual_info_score": 1,
    "sap": 0.2,
    "style_accuracy": 0.25,
    "style_entropy": 0.5,
    "total_correlation": math.inf,
}


@every_metric
def test_a_constant_dimension_does_not_ruin_a_score(function):
    values = st.sampled_from([0.0, 0.1, -3.7, 1234.567, 1e30])

    @holds_for_random_tables(function, WITHOUT_TIES, values)
    def holds(recipe, value):
        factors, codes = recipe.factors_and_codes()
        logvar = np.full(codes.shape, -3.0)
        before = scores_of(function, full_table(codes, factors, logvar=logvar))
        if abs(value) > 1e6 and function in ("kl", "elbo", "kl_decomposition"):
            return  # it is infinitely far from the prior
        codes, logvar = (
            np.insert(array, 1, number, axis=1) for array, number in ((codes, value), (logvar, 0))
        )
        after = scores_of(function, full_table(codes, factors, logvar=logvar))
        check_near(before, after, MOVED_BY_A_CONSTANT)

    holds()


OF_COPIES = {"mig": (0, 0), "mig_sampled": (0, 1e-9), "sap": (0, 0), "sap_continuous": (0, 1e-12)}


@every_metric
def test_copied_dimensions(function):
    factors, codes = USUAL.factors_and_codes()
    one = full_table(codes, factors)
    two = full_table(np.hstack([codes, codes]), factors, logvar=np.hstack([one.logvar, one.logvar]))
    scores = scores_of(function, two)
    check_between(scores, OF_COPIES)
    before = scores_of(function, one)
    for name in {"modularity", "irs", "infomodularity", "dcimig", "mig_sup"} & scores.keys():
        assert scores[name] == pytest.approx(before[name], abs=1e-6)
