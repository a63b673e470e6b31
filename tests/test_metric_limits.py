"""Every metric at the limits of its input, and at both ends of its scale.

A new metric is tested here as soon as it is registered.
"""

import math

import numpy as np
import pytest
from every_metric import (
    NUM_ROWS,
    RECIPES,
    USUAL,
    check_between,
    check_clear,
    every_metric,
    holds_for_random_tables,
    scores_of,
    short_training,  # noqa: F401 (a fixture)
)
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_tables import full_table, grid

import dislab
from dislab.errors import DislabError
from dislab.scoring.score import score

# No metric lets numpy or scikit-learn warn: that would be a result that nobody has thought of.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::dislab.errors.DislabWarning"),
]

# Scores of a code that is the same for all rows, with four, three and five values of the factors.
OF_CONSTANT_CODES = {
    "active_units": (0, 0),
    "betavae_score": (0.32, 0.34),
    "content_accuracy": (0.25, 0.25),
    "content_accuracy_few": (0.25, 0.25),
    "dci_completeness": (0, 0),
    "dci_disentanglement": (0, 0),
    "dci_fast_completeness": (0, 0),
    "dci_fast_disentanglement": (0, 0),
    "dci_informativeness": (0.1, 0.35),
    "dci_fast_informativeness": (0.1, 0.35),
    "dcies_explicitness_informativeness": (-0.05, 0.01),
    "dcimig": (0, 0),
    "explicitness": (0.5, 0.5),
    "explicitness_train": (0.5, 0.5),
    "explicitness_constant_dimensions": (3, 3),
    "factorvae_score": (0, 0.34),
    "fov_regression": (-0.2, 0.01),
    "fov_regression_linear_all": (-0.1, 0.01),
    "fov_regression_r2": (-0.2, 0.1),
    "gaussian_total_correlation": (0, 0),
    "gaussian_wasserstein_correlation": (0, 0),
    "gaussian_wasserstein_correlation_norm": (0, 0),
    "infocompactness": (0, 0),
    "infoexplicitness": (-0.02, 1e-6),
    "infomodularity": (0, 0),
    "infomodularity_active_dimensions": (0, 0),
    "irs": (0, 0),
    "irs_active_dimensions": (0, 0),
    "jemmig": (0.6, 0.7),  # ln 10 / (H + ln 10)
    "mcc_pearson": (0, 0),
    "mcc_spearman": (0, 0),
    "mig": (0, 0),
    "mig_continuous": (0, 0),
    "mig_sampled": (0, 1e-9),
    "mig_sup": (0, 1e-12),
    "mig_sup_active": (0, 0),
    "modularity": (0, 0),
    "modularity_active": (0, 0),
    "mutual_info_score": (0, 0),
    "nk": (0, 0),
    "omes": (0, 0),
    "omes_active_dimensions": (0, 0),
    "pose_error_linear": (60, 120),
    "sap": (0, 0),
    "sap_continuous": (0, 0),
    "snc": (0.15, 0.35),
    "style_accuracy": (0.25, 0.25),
    "style_accuracy_few": (0.25, 0.25),
    "unfairness": (0, 0),
    "wren_accuracy": (0.05, 0.3),
}


@every_metric
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
def test_constant_codes_know_nothing(function, value):
    factors, _ = USUAL.factors_and_codes()
    table = full_table(np.full((NUM_ROWS, 3), value), factors, logvar=np.zeros((NUM_ROWS, 3)))
    check_between(scores_of(function, table), OF_CONSTANT_CODES)


@every_metric
def test_outliers_and_nearly_constant_dimensions(function):
    factors, codes = USUAL.factors_and_codes()
    codes[::37, 0] = 1e30
    codes[:, 1] *= 1e-38
    codes[:, 2] = 0
    codes[100, 2], codes[200, 2] = 1e-40, 3e38
    codes[:, 3] = 3.4e38 * np.sign(codes[:, 3])
    codes = np.column_stack([codes, np.full(NUM_ROWS, 1e38), 1e7 + 1e-6 * codes[:, 1]])
    for ordered in (False, True):
        check_clear(function, full_table(codes, factors, ordered=ordered))


@every_metric
@pytest.mark.parametrize("num_rows", [2, 20])
def test_values_that_are_seen_once(function, num_rows):
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.permutation(num_rows), np.arange(num_rows) % 2, np.arange(num_rows) // 5])
    codes = rng.standard_normal((num_rows, 2)) * [1e-30, 1e30]
    check_clear(function, full_table(np.hstack([codes, codes]), factors))


def test_factorvae_score_of_huge_codes_is_that_of_small_ones():
    """Their variance overflows in float32."""
    factors, codes = USUAL.factors_and_codes()
    small, huge = (scores_of("factorvae_score", full_table(codes * scale, factors)) for scale in (1, 2.0**80))
    assert small == huge
    assert small["factorvae_score"] > 0.9


@pytest.mark.parametrize("function", ["betavae_score", "factorvae_score"])
def test_no_points_to_test_on_is_one_line(function):
    factors, codes = USUAL.factors_and_codes()
    with pytest.raises(DislabError, match=f"{function}: num_test is 0: it must be 1 or more"):
        score(full_table(codes, factors), [function], num_test=0)


@every_metric
def test_one_factor(function):
    @holds_for_random_tables(function, RECIPES)
    def holds(recipe):
        factors, codes = recipe.factors_and_codes()
        scores = check_clear(function, full_table(codes, factors[:, :1]))
        assert set(scores.failed) <= {"pose_error"}  # it needs a second object
        assert all("two factors" in why or "three factors" in why for why in scores.left_out.values())

    holds()


@every_metric
def test_no_factor_varies(function):
    codes = np.random.default_rng(0).standard_normal((NUM_ROWS, 3))
    scores = check_clear(function, full_table(codes, np.full((NUM_ROWS, 2), 3)))
    for name, why in scores.failed.items():
        assert "factor that varies" in why or name == "pose_error"


@every_metric
def test_few_rows(function):
    @holds_for_random_tables(function, RECIPES, st.integers(1, 12))
    def holds(recipe, num_rows):
        factors, codes = (array[:num_rows] for array in recipe.factors_and_codes())
        check_clear(function, full_table(codes, factors))

    holds()


@every_metric
def test_one_code_dimension(function):
    factors, codes = USUAL.factors_and_codes()
    assert scores_of(function, full_table(codes[:, :1], factors))


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
    "content_accuracy_few": (0.99, 1),
    "dci_completeness": (0.98, 1),
    "dci_disentanglement": (0.98, 1),
    "dci_informativeness": (0.98, 1),
    "dci_fast_completeness": (0.98, 1),
    "dci_fast_disentanglement": (0.98, 1),
    "dci_fast_informativeness": (0.98, 1),
    "dcies_size": (1, 1),
    "dcimig": (0.97, 1),
    "explicitness": (0.98, 1),
    "factorvae_score": (1, 1),
    "fov_regression": (0.98, 1),
    "fov_regression_r2": (0.95, 1),
    "gaussian_total_correlation": (0, 0.02),
    "gaussian_wasserstein_correlation": (0, 0.02),
    "gaussian_wasserstein_correlation_norm": (0, 0.01),
    "infocompactness": (0.97, 1),
    "infoexplicitness": (0.97, 1),
    "infomodularity": (0.97, 1),
    "irs": (0.97, 1),
    "jemmig": (0.94, 1),
    "mcc_pearson": (0.99, 1),
    "mcc_spearman": (0.97, 1),  # noise orders the codes of one value
    "mig": (0.95, 1),
    "mig_continuous": (0.92, 1),  # 1 - 1/n²
    "mig_sampled": (0.97, 1),
    "mig_sup": (0.97, 1),
    "modularity": (0.98, 1),
    "mutual_info_score": (0, 0.1),
    "nk": (0.3, 0.9),
    "omes": (0.6, 0.7),  # of factors of few values
    "pose_error": (0, 5),
    "sap": (0.2, 1),  # a penalised linear classifier cannot single out the values in the middle
    "sap_continuous": (0.98, 1),
    "snc": (0.9, 1),
    "style_accuracy": (0.1, 0.4),
    "style_accuracy_few": (0.1, 0.4),
    "style_entropy": (1.9, 2.3),
    "total_correlation": (0, 0.4),
    "unfairness": (0, 0.2),
}
AT_THE_BOTTOM = {  # the same of noise, for the scores that are near zero or near chance there
    "betavae_score": (0.2, 0.47),
    "content_accuracy": (0.1, 0.4),
    "content_accuracy_few": (0.1, 0.4),
    "dci_completeness": (0, 0.1),
    "dci_disentanglement": (0, 0.1),
    "dci_informativeness": (0.1, 0.3),
    "dci_fast_completeness": (0, 0.1),
    "dci_fast_disentanglement": (0, 0.1),
    "dci_fast_informativeness": (0.1, 0.3),
    "dcimig": (0, 0.03),
    "explicitness": (0.4, 0.6),
    "factorvae_score": (0.2, 0.5),
    "fov_regression": (-0.3, 0.05),
    "fov_regression_r2": (-0.6, 0.05),
    "infoexplicitness": (0, 0.06),
    "irs": (0, 0.6),
    "jemmig": (0, 0.15),
    "mcc_pearson": (0, 0.2),
    "mcc_spearman": (0, 0.2),
    "mig": (0, 0.03),
    "mig_continuous": (0, 0.1),
    "mig_sampled": (0, 0.03),
    "mig_sup": (0, 0.03),
    "modularity": (0, 0.9),
    "nk": (-0.1, 0.1),
    "omes": (0.1, 0.4),
    "pose_error": (65, 115),
    "sap": (0, 0.08),
    "sap_continuous": (0, 0.05),
    "snc": (0.1, 0.35),
    "style_accuracy": (0.1, 0.4),
    "style_accuracy_few": (0.1, 0.4),
}


@every_metric
def test_a_perfect_code_is_at_the_top_and_noise_at_the_bottom(function):
    factors, rng = grid((4, 5, 6), copies=5), np.random.default_rng(0)
    codes = factors / [3, 4, 5] * 4 - 2 + 0.01 * rng.standard_normal(factors.shape)
    blocks = {"content": slice(0, 1), "style": slice(1, None)}
    perfect = full_table(codes, factors, logvar=np.full(codes.shape, -8.0), blocks=blocks)
    noise = full_table(rng.standard_normal((len(factors), 5)), factors)
    for table, expected in ((perfect, AT_THE_TOP), (noise, AT_THE_BOTTOM)):
        check_between(scores_of(function, table, num_train=400, num_test=200, num_draws=500), expected)
