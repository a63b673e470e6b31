"""The regression of factors of Soft TPR: R² by a loop, the rows that are used, and codes of known score."""

import numpy as np
import pytest
from metric_tables import grid

import dislab
from dislab.metrics import fov_regression_r2
from dislab.metrics.fov_regression_r2 import disjoint_rows, published_rows, r_squared, schedule
from dislab.scoring.protocols import metric_settings_of
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable


def test_r_squared_by_loops_over_rows_and_over_batches():
    rng = np.random.default_rng(0)
    wanted, predicted = rng.random((10, 2)), rng.random((10, 2))
    variance = np.array([0.1, 0.2])
    for k in range(2):
        errors = [(predicted[i, k] - wanted[i, k]) ** 2 for i in range(10)]
        assert r_squared(wanted, predicted, variance)[k] == pytest.approx(1 - sum(errors) / 10 / variance[k])
        parts = [sum(errors[i : i + 4]) / len(errors[i : i + 4]) for i in (0, 4, 8)]
        of_batches = sum(1 - part / variance[k] for part in parts) / 3
        assert r_squared(wanted, predicted, variance, 4)[k] == pytest.approx(of_batches)
    assert r_squared(wanted, predicted, variance, 5) == pytest.approx(r_squared(wanted, predicted, variance))


def test_the_default_rows_are_disjoint_and_small_sets_lie_in_large_ones():
    table = CodeTable(np.zeros((20_000, 1)), np.arange(20_000) % 7, full_grid=True)
    sizes, validation, test = disjoint_rows(table, np.random.default_rng(0), 5_000, 1_000, 50_000)
    assert {name: len(rows) for name, rows in sizes.items()} == {
        "100": 100, "250": 250, "500": 500, "1000": 1_000, "10000": 10_000, "all": 14_000,
    }  # fmt: skip
    together = np.concatenate([sizes["all"], validation, test])
    assert np.array_equal(np.sort(together), np.arange(20_000))
    assert all(set(rows) <= set(sizes["all"]) for rows in sizes.values())


def test_the_published_rows_train_on_test_rows():
    """Of Cars3D's 17,568 rows the small sets may overlap the test, of more they do not; "all" always does."""
    for num_rows, is_disjoint in ((17_568, False), (17_850, True)):
        sizes, validation, test = published_rows(num_rows, np.random.default_rng(0))
        assert [*map(len, sizes.values())] == [100, 250, 500, 1_000, 10_000, num_rows]
        small = np.concatenate([sizes[name] for name in ("100", "250", "500")])
        assert (not set(small) & set(test)) == is_disjoint
        assert not set(sizes["10000"]) & {*test, *validation, *sizes["1000"]}
        assert set(test) <= set(sizes["all"])
    with pytest.raises(dislab.DislabError, match="17,000 or more, not 480: leave as_published out"):
        published_rows(480, np.random.default_rng(0))


def test_epochs_and_patience():
    of = {100: (50, 11), 250: (50, 11), 500: (40, 11), 1_000: (30, 7), 10_000: (20, 5), 17_568: (10, 3)}
    assert {size: schedule(size) for size in of} == of
    assert schedule(30) == (50, 11) and schedule(9_999) == (30, 7)


def test_the_protocol_is_the_published_one():
    settings = metric_settings_of(dislab.registry.METRICS["fov_regression_r2"], "softtpr2024")
    assert settings.protocol == "softtpr2024"
    assert settings.arguments == {"num_networks": 10, "as_published": True}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(fov_regression_r2, "WIDTHS", ((32,), (32,), (32,)))
    monkeypatch.setattr(fov_regression_r2, "LEARNING_RATE", 3e-3)


def test_perfect_codes_constant_codes_and_noise(quick):
    factors, rng = grid((4, 5, 6), copies=6), np.random.default_rng(0)
    weights = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotated = (factors / [3, 4, 5]) @ weights
    for codes, low, high in (
        (rotated, 0.97, 1),
        (np.full((len(factors), 2), 0.3), -0.1, 0.01),
        (rng.standard_normal((len(factors), 4)), -1, 0.05),
    ):
        scores = score(CodeTable(codes, factors), ["fov_regression_r2"])
        assert low <= scores["fov_regression_r2"] <= high
        per_factor = scores.details["fov_regression_r2_per_factor"]
        assert scores["fov_regression_r2"] == pytest.approx(np.mean(per_factor))
        if low > 0:
            few = scores["fov_regression_r2_100"]
            assert scores["fov_regression_r2_efficiency_100"] == few / scores["fov_regression_r2"] < 1


def test_the_mean_over_networks(quick):
    factors = grid((4, 5), copies=15)
    table = CodeTable(factors + np.random.default_rng(0).standard_normal(factors.shape), factors)
    one, two = (score(table, ["fov_regression_r2"], num_networks=number) for number in (1, 2))
    assert one["fov_regression_r2"] != two["fov_regression_r2"]
    assert one["fov_regression_r2"] == pytest.approx(two["fov_regression_r2"], abs=0.2)
