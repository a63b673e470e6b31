"""The decomposition of the KL: against quadrature and closed forms."""

import math

import numpy as np
import pytest
from metric_tables import DECOMPOSITION, grid, random_table
from scipy.stats import norm

from dislab.metrics.kl_decomposition import regression_mean
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable


def decomposition_by_quadrature(mean, variance):
    """The three terms for two code dimensions, by integrals over the plane."""
    deviation = np.sqrt(variance)
    axes = [
        np.arange((m - 8 * s).min(), (m + 8 * s).max(), s.min() / 3)
        for m, s in zip(mean.T, deviation.T, strict=True)
    ]
    densities = [norm.pdf(axes[d][:, None], mean[:, d], deviation[:, d]) for d in range(2)]
    joint = densities[0] @ densities[1].T / len(mean)
    steps = [axis[1] - axis[0] for axis in axes]

    def entropy(density, cell):
        return -(density * np.log(np.maximum(density, 1e-300))).sum() * cell

    marginals = [entropy(one.mean(axis=1), step) for one, step in zip(densities, steps, strict=True)]
    joint_entropy = entropy(joint, steps[0] * steps[1])
    rows = np.mean([norm.entropy(scale=s).sum() for s in deviation])
    cross_entropy = 0.5 * (math.log(2 * math.pi) + mean**2 + variance).sum(axis=1).mean()
    return joint_entropy - rows, sum(marginals) - joint_entropy, cross_entropy - sum(marginals)


def plane_table(correlated: bool):
    rng = np.random.default_rng(5)
    mean = rng.standard_normal((50, 2)) * [1.0, 0.7] + [0.2, -0.1]
    if correlated:
        mean[:, 1] = mean[:, 0] + 0.1 * mean[:, 1]
    return CodeTable(mean, np.arange(50) % 5, logvar=rng.uniform(-4, 0, size=(50, 2)))


@pytest.mark.parametrize("correlated", [False, True])
def test_decomposition_by_quadrature(correlated):
    table = plane_table(correlated)
    expected = decomposition_by_quadrature(table.mean.astype(float), np.exp(table.logvar.astype(float)))
    assert expected[1] > (0.5 if correlated else 0.03)
    scores = score(table, DECOMPOSITION)
    error = scores["total_correlation_standard_error"]
    assert 1e-4 < error == scores["index_code_mi_standard_error"] < 0.02
    assert scores["index_code_mi"] == pytest.approx(expected[0], abs=4 * error)
    assert scores["total_correlation"] == pytest.approx(expected[1], abs=4 * error)
    assert scores["dimension_wise_kl"] == pytest.approx(expected[2], abs=1e-4)
    assert scores["index_code_mi_rows"] == 50 and scores["index_code_mi_samples"] == 2000


def test_the_three_terms_add_up_to_the_mean_kl():
    for table in (random_table(), plane_table(True)):
        scores = score(table, [*DECOMPOSITION, "kl"])
        mean, variance = table.mean.astype(float), np.exp(table.logvar.astype(float))
        expected = 0.5 * (mean**2 + variance - 1 - np.log(variance))
        assert scores["kl"] == pytest.approx(expected.sum(axis=1).mean(), rel=1e-9)
        assert scores.details["kl_per_dimension"] == pytest.approx(expected.mean(axis=0), abs=1e-9)
        assert sum(scores[name] for name in DECOMPOSITION) == pytest.approx(scores["kl"], abs=1e-4)
        per_dimension = scores.details["dimension_wise_kl_per_dimension"]
        assert sum(per_dimension) == pytest.approx(scores["dimension_wise_kl"])


def test_many_rows_that_do_not_overlap():
    # ln N, above ln of the number of samples: a sum over sampled rows cannot get there. On a diagonal the
    # total correlation is (D - 1) ln N; wrong weights of the rows turn it negative.
    num_rows = 900
    line = np.linspace(-300, 300, num_rows)
    table = CodeTable(np.column_stack([line] * 3), np.arange(num_rows), logvar=np.full((num_rows, 3), -5.0))
    scores = score(table, DECOMPOSITION, num_samples=300)
    assert scores["index_code_mi_samples"] == 300 and scores["index_code_mi_widened"] == 0
    assert scores["index_code_mi"] == pytest.approx(math.log(num_rows), abs=1e-3)
    assert scores["total_correlation"] == pytest.approx(2 * math.log(num_rows), abs=1e-3)


def test_independent_dimensions_have_no_total_correlation():
    factors = grid((8, 9, 10))
    rng = np.random.default_rng(0)
    columns = [
        (rng.standard_normal(n)[column], rng.uniform(-4, 0, n)[column])
        for n, column in zip((8, 9, 10), factors.T, strict=True)
    ]
    mean, logvar = (np.column_stack(values) for values in zip(*columns, strict=True))
    scores = score(CodeTable(mean, factors, logvar=logvar), DECOMPOSITION)
    assert scores["total_correlation"] == pytest.approx(0, abs=2e-3)
    assert scores["index_code_mi"] > 0.5
    one = score(CodeTable(mean[:, :1], factors, logvar=logvar[:, :1]), DECOMPOSITION)
    assert one["total_correlation"] == pytest.approx(0, abs=2e-3)


def test_a_posterior_that_is_the_prior_has_no_kl_of_any_kind():
    table = CodeTable(np.zeros((500, 4)), np.arange(500) % 5, logvar=np.zeros((500, 4)))
    for name, value in score(table, [*DECOMPOSITION, "kl"]).items():
        if not name.endswith(("rows", "samples")):
            assert value == pytest.approx(0, abs=1e-4)


def test_standard_error_is_the_spread_over_seeds():
    runs = [score(plane_table(False), DECOMPOSITION, seed) for seed in range(20)]
    spread = np.std([run["total_correlation"] for run in runs], ddof=1)
    assert spread == pytest.approx(runs[0]["total_correlation_standard_error"], rel=0.5)
    assert len({run["dimension_wise_kl"] for run in runs}) == 1


def test_mean_by_regression_on_control_variates():
    rng = np.random.default_rng(0)
    controls = rng.standard_normal((1000, 2))
    values = 3 + controls @ [5.0, -2.0] + 0.01 * rng.standard_normal(1000)
    mean, error = regression_mean(values, controls)
    assert mean == pytest.approx(3, abs=4 * error) and error == pytest.approx(0.01 / math.sqrt(1000), rel=0.1)
    assert regression_mean(values, np.zeros((1000, 2)))[0] == pytest.approx(values.mean())


@pytest.mark.parametrize("logvar", [-1e30, -60.0, 60.0])
def test_extreme_variances_are_finite(logvar):
    table = random_table()
    wild = table.logvar.copy()
    wild[:100, 1] = logvar
    names = ["mig_sampled", "kl", *DECOMPOSITION, "active_units"]
    scores = score(CodeTable(table.mean, table.factors, logvar=wild), names)
    assert not scores.failed and np.isfinite(list(scores.values())).all()
    assert 0 <= scores["mig_sampled"] <= 1 and scores["total_correlation"] >= 0


def test_a_log_variance_that_is_no_width_names_its_dimension():
    table = random_table()
    wild = table.logvar.copy()
    wild[7, 2] = 1e4
    scores = score(CodeTable(table.mean, table.factors, logvar=wild), ["mig_sampled", "kl", *DECOMPOSITION])
    assert len(scores.failed) == 5 and all("dimension 2" in cause for cause in scores.failed.values())
