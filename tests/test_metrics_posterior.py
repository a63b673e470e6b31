"""The aggregate posterior and MIG of the posterior: against quadrature and brute force."""

import math
import tracemalloc

import numpy as np
import pytest
from metric_tables import DECOMPOSITION, grid, random_table
from scipy.special import logsumexp
from scipy.stats import norm

from dislab.scoring import aggregate_posterior
from dislab.scoring.aggregate_posterior import (
    Mixture,
    entropy_of_density,
    joint_log_density,
    log_density_at,
    posterior,
)
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

# The aggregate posterior ---------------------------------------------------------------------------


def pairwise_log_density(z, mean, variance):
    """ln q(z_d) of one dimension, summed over all rows one pair at a time."""
    exponents = -0.5 * ((z[:, None] - mean) ** 2 / variance + np.log(2 * math.pi * variance))
    return logsumexp(exponents, axis=1) - math.log(len(mean))


def entropy_by_quadrature(mean, variance):
    deviation = np.sqrt(variance)
    z = np.arange((mean - 10 * deviation).min(), (mean + 10 * deviation).max(), deviation.min() / 8)
    log_density = pairwise_log_density(z, mean, variance)
    return -(np.exp(log_density) * log_density).sum() * deviation.min() / 8


MIXTURES = {
    "one row": ([0.3], [0.04]),
    "two far apart": ([-50.0, 50.3], [0.01, 0.25]),
    "even means": (np.linspace(-1, 1, 40), np.full(40, 0.002)),
    "mixed": (np.random.default_rng(0).standard_normal(200), np.exp(np.linspace(-7, 1, 200))),
    "large offset": (1e4 + np.random.default_rng(1).standard_normal(60), np.full(60, 0.3)),
    "collapsed": (np.zeros(100), np.ones(100)),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_entropy_and_density_of_a_mixture(name):
    mean, variance = (np.asarray(values, dtype=np.float64) for values in MIXTURES[name])
    mixture = Mixture(mean, variance)
    points, density = mixture.points, mixture.density()
    assert entropy_of_density(points, density) == pytest.approx(
        entropy_by_quadrature(mean, variance), abs=5e-5
    )
    step = points[1] - points[0]
    assert density.sum() * step == pytest.approx(1, abs=1e-8)
    assert (density * points).sum() * step == pytest.approx(mean.mean(), rel=1e-9, abs=1e-6)
    assert (density * (points - mean.mean()) ** 2).sum() * step == pytest.approx(
        mean.var() + variance.mean(), rel=1e-6
    )
    rng = np.random.default_rng(2)
    rows = rng.integers(len(mean), size=300)
    z = mean[rows] + np.sqrt(variance[rows]) * rng.standard_normal(300)
    log_density = log_density_at(z, points, density)
    np.testing.assert_allclose(log_density, pairwise_log_density(z, mean, variance), atol=0.02)


def test_entropy_of_one_normal_wherever_it_lies_on_the_grid():
    for deviation in np.geomspace(1e-3, 1e3, 13):
        for offset in np.linspace(0, 0.5, 7):
            mean = np.array([0.0, offset * deviation])
            variance = np.full(2, deviation**2)
            expected = entropy_by_quadrature(mean, variance)
            mixture = Mixture(mean, variance)
            entropy = entropy_of_density(mixture.points, mixture.density())
            assert entropy == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("most_per_row", [0, 10_000])
def test_the_entropies_of_groups_on_grids_of_their_own_or_on_one(monkeypatch, most_per_row):
    monkeypatch.setattr(aggregate_posterior, "MOST_PER_ROW", most_per_row)
    mean, variance = (np.asarray(values) for values in MIXTURES["mixed"])
    group = np.random.default_rng(0).integers(7, size=200)
    group[group == 3] = 0
    group[11] = 3  # alone
    entropies = Mixture(mean, variance).entropies(group)
    expected = [entropy_by_quadrature(mean[group == one], variance[group == one]) for one in range(7)]
    np.testing.assert_allclose(entropies, expected, atol=5e-5)


@pytest.mark.parametrize("offset", [0.0, 5000.0])
def test_joint_density_sums_over_every_row(offset):
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((2 * 2048 + 5, 3)) * [1, 5, 0.1] + offset
    logvar = rng.uniform(-8, 1, size=mean.shape)
    normals = posterior(CodeTable(mean.astype(np.float32), np.zeros(len(mean), int), logvar=logvar))
    mean, variance = normals.normals()
    z = mean[:70] + np.sqrt(variance[:70]) * rng.standard_normal((70, 3))
    expected = [
        logsumexp(norm.logpdf(point, mean, np.sqrt(variance)).sum(axis=1)) - math.log(len(mean))
        for point in z
    ]
    np.testing.assert_allclose(joint_log_density(z, normals), expected, atol=1e-5)


def test_the_joint_density_far_from_the_first_rows(monkeypatch):
    """The largest term of a z rises by hundreds of nats from block to block."""
    monkeypatch.setattr(aggregate_posterior, "ROWS", 10)
    rng = np.random.default_rng(0)
    mean = np.linspace(0, 60, 45)[:, None] + 0.1 * rng.standard_normal((45, 3))
    table = CodeTable(mean.astype(np.float32), np.zeros(45, int), logvar=rng.uniform(-2, 0, (45, 3)))
    z = mean[[0, 7, 20, 44, 3]] + 0.3
    mean, variance = posterior(table).normals()
    expected = [logsumexp(norm.logpdf(one, mean, np.sqrt(variance)).sum(axis=1)) - math.log(45) for one in z]
    np.testing.assert_allclose(joint_log_density(z, posterior(table)), expected, atol=1e-6)


def test_rows_without_width_are_widened_and_counted():
    mean = np.linspace(-2, 2, 100)[:, None]
    logvar = np.full((100, 1), -2.0)
    assert posterior(CodeTable(mean, np.zeros(100, int), logvar=logvar)).widened == 0
    logvar[:25] = -1000
    found = posterior(CodeTable(mean, np.zeros(100, int), logvar=logvar))
    assert found.widened == 0.25
    assert np.sqrt(found.normals()[1].min()) == pytest.approx((4 + 16 * math.exp(-1)) / 8_192, rel=0.2)


def test_work_on_a_few_rows_at_a_time_changes_nothing(monkeypatch):
    table = random_table()
    names = ["mig_sampled", "kl", "elbo", "active_units", *DECOMPOSITION]
    table.reconstruction = np.ones(5)
    expected = score(table, names)
    monkeypatch.setattr(aggregate_posterior, "CHUNK", 7)
    monkeypatch.setattr(aggregate_posterior, "ROWS", 11)
    found = score(table, names)
    # Sums over rows are float32, relative to a term near the largest so far.
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8) and len(found) > len(names)
    everything = posterior(table).normals()
    np.testing.assert_allclose(everything[0], table.mean)
    np.testing.assert_allclose(everything[1], np.exp(table.logvar.astype(float)))
    for normals, parts in zip(everything, posterior(table).normals(slice(3, 9), 2), strict=True):
        np.testing.assert_array_equal(parts, normals[3:9, 2])


@pytest.mark.parametrize("metric", ["dimension_wise_kl", "mig_sampled", "kl", "active_units"])
def test_memory_of_many_rows(metric, monkeypatch):
    """No array of float64 is made of all rows and dimensions, only the metric's own copy of the table."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((40_000, 40), dtype=np.float32)
    table = CodeTable(codes, rng.integers(3, size=(40_000, 2)), logvar=0.1 * codes - 3)
    held = codes.nbytes + table.logvar.nbytes + table.factors.nbytes
    monkeypatch.setattr(aggregate_posterior, "CHUNK", 2_000)
    monkeypatch.setattr("dislab.metrics.active_units.CHUNK", 2_000)
    tracemalloc.start()
    scores = score(table, [metric], **({"num_samples": 100} if metric == "dimension_wise_kl" else {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metric in scores
    assert peak < held + 0.7 * 8 * codes.size


# MIG of the posterior ------------------------------------------------------------------------------


def binary_channel_information(deviation):
    """I(sign; z) for z ~ Normal(±1, deviation²), by quadrature."""
    z = np.linspace(-12, 12, 200_001)
    density = norm.pdf(z[:, None], [-1, 1], deviation)
    mixture = density.mean(axis=1)
    ratio = np.log(np.maximum(density, 1e-300) / np.maximum(mixture, 1e-300)[:, None])
    return 0.5 * (density * ratio).sum() * (z[1] - z[0])


def channels(num_copies=2000):
    """Two signs and nothing else: dimensions 0 and 1 carry the first, dimension 2 the second."""
    factors = grid((2, 2), copies=num_copies)
    mean = np.column_stack([2.0 * factors[:, 0] - 1, 1 - 2.0 * factors[:, 0], 2.0 * factors[:, 1] - 1])
    deviation = np.array([0.6, 2.0, 1.1])
    logvar = np.broadcast_to(2 * np.log(deviation), mean.shape)
    information = [binary_channel_information(one) / math.log(2) for one in deviation]
    return CodeTable(mean, factors, logvar=logvar), (information[0] - information[1], information[2])


def test_mig_sampled_of_known_channels():
    table, expected = channels()
    scores = score(table, ["mig_sampled"])
    # Some 0.5: averages of ln q over sampled rows only would give 0.001 here.
    assert 0.4 < np.mean(expected) < 0.6
    assert scores["mig_sampled"] == pytest.approx(np.mean(expected), abs=2e-4)
    assert scores.details["mig_sampled_per_factor"] == pytest.approx(expected, abs=2e-4)
    assert scores["mig_sampled_rows"] == 8000 and scores["mig_sampled_widened"] == 0


def test_mig_sampled_by_sampling_with_all_rows_in_the_inner_sum():
    table = random_table()
    rng = np.random.default_rng(1)
    mean, variance = table.mean.astype(float), np.exp(table.logvar.astype(float))
    rows = np.arange(400).repeat(15)
    log_ratio = {}
    for d in range(4):
        z = mean[rows, d] + np.sqrt(variance[rows, d]) * rng.standard_normal(len(rows))
        marginal = pairwise_log_density(z, mean[:, d], variance[:, d])
        for k in range(3):
            conditional = np.empty(len(rows))
            for value in range(table.sizes[k]):
                inside, those = table.factors[:, k] == value, table.factors[rows, k] == value
                conditional[those] = pairwise_log_density(z[those], mean[inside, d], variance[inside, d])
            log_ratio[d, k] = conditional - marginal
    gaps, errors = [], []
    for k in range(3):
        shares = np.bincount(table.factors[:, k]) / 400
        entropy = -(shares * np.log(shares)).sum()
        first, second = sorted((log_ratio[d, k] for d in range(4)), key=np.mean)[:-3:-1]
        gaps.append((first.mean() - second.mean()) / entropy)
        errors.append(math.hypot(first.std(), second.std()) / math.sqrt(len(rows)) / entropy)
    assert max(errors) < 0.02 and max(gaps) > 0.1
    found = score(table, ["mig_sampled"]).details["mig_sampled_per_factor"]
    for ours, theirs, error in zip(found, gaps, errors, strict=True):
        assert abs(ours - theirs) < 4 * error


def test_mig_sampled_does_not_depend_on_units_order_or_seed():
    table = random_table()
    expected = score(table, ["mig_sampled"])
    order = np.random.default_rng(3).permutation(400)
    scale = np.array([1e-3, 50.0, -7.0, 1.0])
    other = CodeTable(
        (table.mean * scale + 3)[order][:, [2, 0, 3, 1]],
        table.factors[order],
        logvar=(table.logvar + 2 * np.log(np.abs(scale)))[order][:, [2, 0, 3, 1]],
    )
    assert score(other, ["mig_sampled"], 7)["mig_sampled"] == pytest.approx(expected["mig_sampled"], abs=2e-4)


def test_mig_sampled_is_one_for_perfect_codes_and_zero_for_twins_and_nothing():
    factors = grid((4, 5), copies=20)
    codes = factors / [3, 4]

    def gap(codes, logvar):
        return score(CodeTable(codes, factors, logvar=np.full(codes.shape, logvar)), ["mig_sampled"])

    assert gap(codes, -10.0)["mig_sampled"] == pytest.approx(1, abs=2e-4)
    sure = gap(codes, -1000.0)
    assert sure["mig_sampled"] == pytest.approx(1, abs=2e-4) and sure["mig_sampled_widened"] == 1
    assert gap(np.hstack([codes, codes]), -10.0)["mig_sampled"] == pytest.approx(0, abs=1e-9)
    for logvar in (-1000.0, -10.0, 0.0, 50.0):
        for value in (0.0, 1234.567):
            assert gap(np.full((400, 3), value), logvar)["mig_sampled"] == pytest.approx(0, abs=1e-9)


def test_mig_sampled_of_one_dimension_and_of_a_factor_with_one_value():
    table, _ = channels(200)
    factors = np.insert(table.factors, 1, 3, axis=1)
    one = CodeTable(table.mean[:, :1], factors, logvar=table.logvar[:, :1])
    gaps = score(one, ["mig_sampled"]).details["mig_sampled_per_factor"]
    assert gaps[1] is None
    assert gaps[0] == pytest.approx(binary_channel_information(0.6) / math.log(2), abs=2e-4)
    assert gaps[2] == pytest.approx(0, abs=1e-9)
    alone = CodeTable(table.mean, table.factors[:, :1], logvar=table.logvar)
    assert "two factors" in score(alone, ["mig_sampled"]).left_out["mig_sampled"]


def test_metrics_of_the_posterior_are_left_out_without_one():
    names = ["mig_sampled", "kl", *DECOMPOSITION, "elbo"]
    factors = grid((3, 4), copies=5)
    scores = score(CodeTable(factors.astype(float), factors), names)
    assert not scores and not scores.failed and set(scores.left_out) == set(names)
