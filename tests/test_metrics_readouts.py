"""Readouts, regression of factors, pose error and DCI-ES: against slow versions and closed forms."""

import warnings

import numpy as np
import pytest
from metric_tables import (
    grid,
    one_thread,  # noqa: F401 (a fixture)
    standardised,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

import dislab
from dislab.data.space import Circle
from dislab.metrics import dcies
from dislab.metrics.dcies import explicitness, probe_losses
from dislab.metrics.pose_error import angular_difference, split_by_instance
from dislab.scoring import readouts
from dislab.scoring.readouts import Standardiser, relative_losses, ridge, small_network
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

INFOMEC = ["infomodularity", "infocompactness", "infoexplicitness"]


@pytest.fixture
def short_training(monkeypatch):
    """A smaller network with fewer steps, for tests that are not about how good it is."""
    monkeypatch.setattr(readouts, "HIDDEN", (32,))
    monkeypatch.setattr(readouts, "UPDATES", 150)
    monkeypatch.setattr(readouts, "PATIENCE", 50)
    monkeypatch.setattr(dcies, "FEATURES", (0, 16, 32, 64))


# The readouts --------------------------------------------------------------------------------------


def test_ridge_is_least_squares_with_rows_for_the_penalty():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((80, 5)) * [1, 10, 0.1, 1, 0] + 3
    targets = codes[:, :2] @ rng.standard_normal((2, 3)) + rng.standard_normal((80, 3))
    varying = standardised(codes[:, :4])
    stacked = np.vstack([np.column_stack([varying, np.ones(80)]), 2.0 * np.eye(5)[:4]])
    weights = np.linalg.lstsq(stacked, np.vstack([targets, np.zeros((4, 3))]), rcond=None)[0]
    new = rng.standard_normal((20, 5)) + 3
    inputs = (new[:, :4] - codes[:, :4].mean(axis=0)) / codes[:, :4].std(axis=0)
    expected = np.column_stack([inputs, np.ones(20)]) @ weights
    np.testing.assert_allclose(ridge(codes, targets, penalty=4.0)(new), expected, atol=1e-9)


def test_a_standardised_column_has_mean_0_and_deviation_1_or_is_0():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((200, 3)) * [1e-3, 50, 1] + [0, 7, 1e4]
    train[:, 2] = 1234.567
    standardise = Standardiser(train.astype(np.float32))
    ours = standardise(train.astype(np.float32))
    np.testing.assert_allclose(ours[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(ours[:, :2].std(axis=0), 1, atol=1e-6)
    assert standardise.varies.tolist() == [True, True, False] and (ours[:, 2] == 0).all()
    np.testing.assert_allclose(standardise.undo(ours), train, rtol=1e-4)
    assert standardise(np.array([[1.0, -1e30, 5.0]])).tolist() == [[100, -100, 0]]


def test_the_network_reads_what_a_linear_readout_cannot():
    rng = np.random.default_rng(0)
    codes = rng.uniform(-1, 1, size=(3000, 2)).astype(np.float32)
    product = 50 * codes.prod(axis=1, keepdims=True).astype(np.float64) + 7
    losses = [
        relative_losses(readout(codes[2500:]), {0: product[2500:]})[0]
        for readout in (
            small_network(codes[:2500], product[:2500], rng),
            ridge(codes[:2500], product[:2500]),
        )
    ]
    assert losses[0] < 0.01
    assert losses[1] > 0.98


@pytest.mark.parametrize(("num_rows", "num_targets"), [(60, 2), (60, 1), (330, 1), (700, 3)])
def test_the_network_is_that_of_scikit_learn(short_training, num_rows, num_targets):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((num_rows, 5)) * [1, 10, 0.1, 1, 0] + 3
    targets = np.sin(codes[:, :num_targets]) + 0.1 * rng.standard_normal((num_rows, num_targets))
    standardise, scale = Standardiser(codes), Standardiser(targets)
    early_stopping = num_rows >= 100
    steps = -(-num_rows * 9 // 2560) if early_stopping else 1
    slow = MLPRegressor(
        hidden_layer_sizes=readouts.HIDDEN,
        batch_size=min(256, num_rows),
        learning_rate_init=2e-3,
        max_iter=-(-readouts.UPDATES // steps),
        early_stopping=early_stopping,
        n_iter_no_change=max(5, readouts.PATIENCE // steps),
        random_state=int(np.random.default_rng(7).integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        slow.fit(standardise(codes).astype(np.float32), scale(targets).astype(np.float32).squeeze())
    new = rng.standard_normal((50, 5)) + 3
    expected = slow.predict(standardise(new).astype(np.float32)).reshape(50, num_targets)
    predicted = small_network(codes, targets, np.random.default_rng(7))(new)
    np.testing.assert_allclose(scale(predicted), expected, atol=1e-3)
    assert np.ptp(expected) > 1


def test_regression_of_factors():
    factors = grid((5, 6, 8), copies=15)
    mixed = standardised(factors) @ np.random.default_rng(1).standard_normal((3, 4))
    linear = dislab.evaluate(codes=mixed, factors=factors, metrics=["fov_regression"])
    for name in ("", "_linear_100", "_linear_1000", "_linear_all", "_mlp_1000"):
        assert linear["fov_regression" + name] > 0.99
    assert linear["fov_regression_linear_all"] > 0.99999
    assert 0.8 < linear["fov_regression_mlp_100"] < linear["fov_regression"]
    assert linear["fov_regression_training_rows"] == 2400


def test_regression_of_factors_from_noise_and_from_a_part(short_training):
    factors = grid((5, 6, 8), copies=15)
    noise = np.random.default_rng(0).standard_normal(factors.shape)
    noise = dislab.evaluate(codes=noise, factors=factors, metrics=["fov_regression"])
    assert abs(noise["fov_regression"]) < 0.03 and abs(noise["fov_regression_linear_all"]) < 0.01
    partly = np.column_stack([factors[:, 0], factors[:, 1] % 2])
    partly = dislab.evaluate(codes=partly, factors=factors, metrics=["fov_regression"])
    known, half, unknown = partly.details["fov_regression_per_factor"]
    assert known > 0.99 and abs(unknown) < 0.03
    assert half == pytest.approx(0.25 / (35 / 12), abs=0.03)  # between-group over total variance of 0 .. 5
    assert partly["fov_regression"] == pytest.approx((known + half + unknown) / 3)


def test_regression_of_a_circular_factor(short_training):
    factors = grid((12, 10), copies=10)
    angle = 2 * np.pi * factors[:, 0] / 12
    codes = np.column_stack([np.sin(angle + 1), np.cos(angle + 1), factors[:, 1]])
    as_value = score(CodeTable(codes, factors), ["fov_regression"])
    on_circle = score(CodeTable(codes, factors, circle=Circle("factor_0", 12)), ["fov_regression"])
    assert as_value.details["fov_regression_linear_all_per_factor"][0] < 0.7
    assert on_circle.details["fov_regression_linear_all_per_factor"][0] > 0.999


def test_numbers_of_training_rows(short_training):
    factors = grid((6, 7), copies=10)
    table = CodeTable(factors, factors, ordered=True)
    scores = score(table, ["fov_regression"])
    assert scores["fov_regression_training_rows"] == 280
    assert "fov_regression_linear_100" in scores and "fov_regression_linear_1000" not in scores
    assert score(table, ["fov_regression"], max_train=90)["fov_regression_training_rows"] == 90
    assert score(table, ["fov_regression"], num_train=200, num_test=50)["fov_regression_training_rows"] == 200
    with pytest.raises(dislab.DislabError, match="at least 6 rows"):
        dislab.evaluate(codes=factors[:5], factors=factors[:5], metrics=["fov_regression"])


# Pose error ----------------------------------------------------------------------------------------


def posed(copies=1):
    """Factors (car, azimuth, elevation), the angle of each row, and the circle."""
    factors = grid((25, 24, 4), copies)
    return factors, 2 * np.pi * factors[:, 1] / 24, Circle("factor_1", 24, instance="factor_0")


def test_angular_difference():
    degrees = np.array([[0, 350], [350, 0], [-170, 170], [90, 90], [0, 180], [725, 0]])
    got = angular_difference(*np.radians(degrees).T)
    np.testing.assert_allclose(got, [10, 10, 20, 0, 180, 5], atol=1e-9)


def test_pose_error_of_a_rotated_pair_of_squares_and_of_noise(short_training):
    factors, angle, circle = posed()
    pair = np.column_stack([np.cos(angle + 0.7), np.sin(angle + 0.7)])
    scores = score(CodeTable(pair, factors, circle=circle), ["pose_error"])
    assert scores["pose_error_linear"] < 0.5 and scores["pose_error"] < 5
    assert scores["pose_error_test_instances"] == 5
    # A code of period 180 degrees leaves two answers: half of the rows are 180 off, or all are 90 off.
    axis = np.column_stack([np.cos(2 * angle), np.sin(2 * angle)])
    scores = score(CodeTable(axis, factors, circle=circle), ["pose_error"])
    assert scores["pose_error_mean"] == pytest.approx(90, abs=3)
    noise = np.random.default_rng(0).standard_normal((len(factors), 3))
    scores = score(CodeTable(noise, factors, circle=circle), ["pose_error"])
    assert scores["pose_error"] == pytest.approx(90, abs=15)
    assert scores["pose_error_linear"] == pytest.approx(90, abs=15)


def test_the_full_network_reads_the_angle():
    factors, angle, circle = posed()
    codes = np.column_stack([np.cos(angle) * (1 + factors[:, 2]), np.sin(angle) ** 3, factors[:, 0]])
    scores = score(CodeTable(codes, factors, circle=circle), ["pose_error"])
    assert scores["pose_error"] < 3 < 8 < scores["pose_error_linear"]


def test_a_code_that_knows_the_pose_of_known_cars_only_is_at_chance():
    factors, angle, circle = posed(copies=2)
    codes = np.zeros((len(factors), 25, 2))  # two dimensions for every car, 0 for all other cars
    codes[np.arange(len(factors)), factors[:, 0]] = np.column_stack([np.cos(angle), np.sin(angle)])
    codes = codes.reshape(len(factors), 50)
    scores = score(CodeTable(codes, factors, circle=circle), ["pose_error"])
    assert scores["pose_error_linear"] == pytest.approx(90, abs=10)
    assert scores["pose_error"] == pytest.approx(90, abs=10)
    train, test = CodeTable(codes, factors).split(np.random.default_rng(0), 3000, 1500)
    targets = np.column_stack([np.sin(angle), np.cos(angle)])
    predicted = ridge(codes[train], targets[train])(codes[test])
    assert np.median(angular_difference(np.arctan2(*predicted.T), angle[test])) < 1


def test_instances_of_the_test_are_unseen():
    factors = grid((3, 4, 6, 5))
    table = CodeTable(factors, factors)
    circle = Circle("factor_2", 6, only=("factor_0", 2))
    train, test, num_test = split_by_instance(table, circle, np.random.default_rng(0))
    assert (factors[[*train, *test], 0] == 2).all() and len(train) + len(test) == 120
    others = [{tuple(row) for row in factors[rows][:, [0, 1, 3]]} for rows in (train, test)]
    assert not others[0] & others[1] and len(others[1]) == num_test == 4
    assert all(len({*factors[rows, 2]}) == 6 for rows in (train, test))
    circle = Circle("factor_2", 6, instance="factor_1")
    train, test, num_test = split_by_instance(table, circle, np.random.default_rng(0))
    assert not {*factors[train, 1]} & {*factors[test, 1]} and num_test == 1
    assert len(train) + len(test) == len(factors)


def test_a_last_value_that_repeats_the_first(short_training):
    factors = grid((10, 13, 5))  # values 0 and 12 are the same angle
    angle = 2 * np.pi * factors[:, 1] / 12
    codes = np.column_stack([np.cos(angle), np.sin(angle)])
    circle = Circle("factor_1", 12)
    scores = score(CodeTable(codes, factors, circle=circle), ["pose_error"])
    assert scores["pose_error_linear"] < 0.5


def test_pose_error_says_what_is_missing(short_training):
    factors, _, circle = posed()
    scores = score(CodeTable(factors, factors), ["pose_error"])
    assert "circular" in scores.left_out["pose_error"]
    one_car = factors[factors[:, 0] == 3]
    scores = score(CodeTable(one_car, one_car, circle=circle), ["pose_error"])
    assert "two instances" in scores.failed["pose_error"]
    one_angle = factors[factors[:, 1] == 3]
    scores = score(CodeTable(one_angle, one_angle, circle=circle), ["pose_error"])
    assert "constant" in scores.failed["pose_error"]


# DCI-ES --------------------------------------------------------------------------------------------


def test_explicitness_of_curves():
    capacities = np.array([1.0, 2, 3, 5])
    losses = np.array([[0.3, 1.0, 1.0, 1.0, 1.2], [0.3, 0.75, 1.0, 0.5, 1.0], [0.3, 0.5, 1.0, 0.7, 1.4]])
    losses = np.vstack([losses, [0.3, 0.0, 0.0, 0.9, 1.0]])
    explicit, lowest = explicitness(capacities, losses)
    # Flat; falling evenly from 1 to 0; only the last succeeds (the area is 2 + 2/2 of 4/2); falling, then
    # overfitting (0.5 is kept: the area is 0.5/2 of 2); flat at the loss of a constant.
    np.testing.assert_allclose(explicit, [1, 0, 1 - 3 / 2, 1 - 0.25 / 2, 1])
    np.testing.assert_allclose(lowest, [0.3, 0, 0, 0.5, 1])


def test_losses_of_probes_by_least_squares():
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.standard_normal((400, 2)), np.full(400, 3.0)])
    wanted = {0: codes[:, :1] ** 2, 4: codes[:, 1:2]}
    train, test = slice(0, 300), slice(300, 400)
    fitted, tested = ({k: v[part] for k, v in wanted.items()} for part in (train, test))
    weights, losses = probe_losses(codes[train], fitted, codes[test], tested, np.random.default_rng(5))
    np.testing.assert_array_equal(weights, 3 + np.array(dcies.FEATURES))
    draws = np.random.default_rng(5)
    frequencies = dcies.FREQUENCY * draws.standard_normal((3, 1024))
    phases = draws.uniform(0, 2 * np.pi, 1024)
    z = np.zeros((400, 3))
    z[:, :2] = (codes[:, :2] - codes[train, :2].mean(axis=0)) / codes[train, :2].std(axis=0)
    for probe, num_features in ((0, 0), (1, 16), (3, 64)):
        x = np.hstack([z, np.cos(z @ frequencies + phases)[:, :num_features]])
        penalised = np.vstack([np.column_stack([x[train], np.ones(300)]), np.eye(x.shape[1] + 1)[:-1]])
        for column, values in enumerate(wanted.values()):
            target = np.concatenate([values[train, 0], np.zeros(x.shape[1])])
            best = np.linalg.lstsq(penalised, target, rcond=None)[0]
            error = values[test, 0] - np.column_stack([x[test], np.ones(100)]) @ best
            expected = (error**2).sum() / ((values[test] - values[test].mean()) ** 2).sum()
            assert losses[probe, column] == pytest.approx(expected, rel=1e-6)


def test_explicitness_falls_as_the_code_is_harder_to_read():
    factors = grid((6, 7, 8), copies=9)
    s, rng = standardised(factors), np.random.default_rng(0)
    codes = {
        "linear": s @ rng.standard_normal((3, 5)),
        "bent": np.exp(s),
        "folded": np.hstack([np.sin(2 * s), np.cos(2 * s)]),
    }
    scores = {
        name: dislab.evaluate(codes=code, factors=factors, metrics=["dcies_explicitness", "dcies_size"])
        for name, code in codes.items()
    }
    assert scores["linear"]["dcies_explicitness"] == pytest.approx(1, abs=0.001)
    assert scores["linear"]["dcies_size"] == pytest.approx(3 / 5)
    explicit = [scores[name]["dcies_explicitness"] for name in codes]
    assert explicit[0] > explicit[1] + 0.05 and explicit[1] > explicit[2] + 0.05
    for name in codes:
        assert scores[name]["dcies_explicitness_informativeness"] > 0.95
    noise = rng.standard_normal(factors.shape)
    noise = dislab.evaluate(codes=noise, factors=factors, metrics=["dcies_explicitness"])
    assert noise["dcies_explicitness"] > 0.98 and noise["dcies_explicitness_informativeness"] < 0.02


# What is special ---------------------------------------------------------------------------------


def test_dead_and_outlying_dimensions_do_no_harm(short_training):
    factors = grid((4, 5, 6), copies=8)
    names = [*INFOMEC, "fov_regression"]
    dead = np.column_stack([factors, np.full(len(factors), 1234.567), np.zeros(len(factors))])
    with_dead = dislab.evaluate(codes=dead, factors=factors, metrics=names)
    without = dislab.evaluate(codes=factors, factors=factors, metrics=names)
    for name in (*INFOMEC, "fov_regression_linear_all"):
        assert with_dead[name] == pytest.approx(without[name], abs=0.01)
    assert with_dead["infomodularity_active_dimensions"] == 3
    dead[::97, 4] = 1e30
    spike = dislab.evaluate(codes=dead, factors=factors, metrics=["fov_regression"])
    assert spike.details["fov_regression_linear_all_per_factor"][0] > 0.99


def test_many_values(short_training):
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.integers(0, 183, size=1500), rng.integers(0, 40, size=1500)])
    codes = standardised(factors) + 0.1 * rng.standard_normal((1500, 2))
    circle = Circle("factor_1", 40, instance="factor_0")
    names = [*INFOMEC, "dcies_explicitness", "fov_regression", "pose_error"]
    scores = score(CodeTable(codes, factors, circle=circle), names)
    assert not scores.failed and np.isfinite([*scores.values()]).all()
    assert scores["infomodularity"] > 0.8
    assert scores.details["fov_regression_linear_all_per_factor"][0] > 0.95
    assert 0.2 < scores["infoexplicitness"] < 1
