"""InfoMEC, DCI-ES, the regression of factors and the pose error: against slow versions and closed forms."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import dislab
from dislab.data.space import Circle
from dislab.metrics import dcies, fov_regression
from dislab.metrics.dcies import explicitness, probe_losses
from dislab.metrics.fov_regression import distinct_rows, relative_losses, ridge, small_network
from dislab.metrics.infomec import (
    active_dimensions,
    largest_share,
    log_loss_of_classifier,
    nearest_neighbor_information,
)
from dislab.metrics.pose_error import angular_difference, split_by_instance
from dislab.scoring.evaluate import score
from dislab.scoring.table import CodeTable

INFOMEC = ["infomodularity", "infocompactness", "infoexplicitness"]
NAMES = [*INFOMEC, "dcies_explicitness", "dcies_size", "fov_regression"]


@pytest.fixture
def short_training(monkeypatch):
    """A smaller network with fewer steps, for tests that are not about how good it is."""
    monkeypatch.setattr(fov_regression, "HIDDEN", (32,))
    monkeypatch.setattr(fov_regression, "UPDATES", 150)
    monkeypatch.setattr(fov_regression, "PATIENCE", 50)
    monkeypatch.setattr(dcies, "FEATURES", (0, 16, 32, 64))


def grid(sizes, copies=1):
    rows = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=-1)
    return np.tile(rows, (copies, 1))


def scaled(factors):
    return (factors - factors.mean(axis=0)) / factors.std(axis=0)


# InfoMEC -------------------------------------------------------------------------------------------


def information(values, classes, num_neighbors=10):
    order = np.argsort(values)
    return nearest_neighbor_information(values[order], classes[order], num_neighbors)


@pytest.mark.parametrize(
    ("num_points", "num_classes", "num_neighbors"),
    [(2000, 5, 10), (3000, 40, 3), (3000, 183, 1)],
)
def test_information_of_nearest_neighbors_is_that_of_scikit_learn(num_points, num_classes, num_neighbors):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, num_classes, size=num_points) ** 2 // num_classes  # of unequal sizes
    for values in (
        rng.standard_normal(num_points),
        classes + 3 * rng.standard_normal(num_points),
        np.exp(classes / num_classes + rng.standard_normal(num_points)),
    ):
        [expected] = mutual_info_classif(
            values[:, None], classes, discrete_features=False, n_neighbors=num_neighbors, random_state=0
        )
        assert information(values / values.std(), classes, num_neighbors) == pytest.approx(expected, abs=1e-5)


def test_information_by_counting_every_pair():
    rng = np.random.default_rng(1)
    classes = np.array([0] * 30 + [1] * 12 + [2] * 3 + [3])
    values = classes + rng.standard_normal(len(classes))
    terms, num_points = [], len(classes) - 1  # the last one is alone in its class
    for value, own in zip(values[:-1], classes[:-1], strict=True):
        same = np.sort(np.abs(values[classes == own] - value))[1:]
        k = min(5, len(same))
        nearer = np.count_nonzero(np.abs(values[:-1] - value) < same[k - 1])
        terms.append(digamma(k) - digamma(len(same) + 1) - digamma(nearer))
    assert information(values, classes, 5) == pytest.approx(digamma(num_points) + np.mean(terms), abs=1e-12)


def test_information_of_two_normals_and_of_a_function():
    rng = np.random.default_rng(0)
    classes = np.arange(20_000) % 2
    z = np.linspace(-10, 10, 20_001)
    densities = np.exp(-0.5 * (z[:, None] - [1, -1]) ** 2)
    shares = (densities / densities.sum(axis=1, keepdims=True)).clip(1e-300)
    bits_lost = -(shares * np.log(shares)).sum(axis=1) @ densities.sum(axis=1) / densities.sum()
    got = information(2.0 * classes - 1 + rng.standard_normal(20_000), classes)
    assert got == pytest.approx(np.log(2) - bits_lost, abs=0.01)
    known = rng.integers(0, 8, size=4000)
    assert information(known + 1e-10 * rng.standard_normal(4000), known) == pytest.approx(np.log(8), abs=0.01)


def naive_infomec(codes, factors):
    """The authors' definition, one scikit-learn call after the other."""
    z = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    shares = [np.unique(f, return_counts=True)[1] / len(f) for f in factors.T]
    nmi = np.array(
        [
            mutual_info_classif(z, f, discrete_features=False, n_neighbors=10, random_state=0)
            / -(share * np.log(share)).sum()
            for f, share in zip(factors.T, shares, strict=True)
        ]
    )
    ranges = codes.max(axis=0) - codes.min(axis=0)
    nmi = nmi[:, ranges > ranges.max() / 20]
    num_factors, num_active = nmi.shape
    modularity = np.mean([max(column) / sum(column) for column in nmi.T])
    compactness = np.mean([max(row) / sum(row) for row in nmi])
    explicit = []
    for f in factors.T:
        losses = []
        for inputs in (z, np.zeros_like(z)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                classifier = LogisticRegression(C=np.inf, class_weight="balanced").fit(inputs, f)
            losses.append(log_loss(f, classifier.predict_proba(inputs)))
        explicit.append(1 - losses[0] / losses[1])
    return {
        "infomodularity": (modularity - 1 / num_factors) / (1 - 1 / num_factors),
        "infocompactness": (compactness - 1 / num_active) / (1 - 1 / num_active),
        "infoexplicitness": np.mean(explicit),
        "infomodularity_active_dimensions": num_active,
    }


def test_infomec_is_what_the_definition_gives():
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.integers(0, n, size=1500) ** 2 // n for n in (4, 6, 9)])
    codes = np.tanh(scaled(factors) @ rng.standard_normal((3, 4)) / 2) + 0.2 * rng.standard_normal((1500, 4))
    codes = np.column_stack([codes, 0.01 * rng.standard_normal(1500)]).astype(np.float32)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=INFOMEC, shuffle=False)
    for name, expected in naive_infomec(codes.astype(np.float64), factors).items():
        assert scores[name] == pytest.approx(expected, abs=0.001)
    assert scores["infomodularity_active_dimensions"] == 4
    assert scores.details["infomodularity_per_dimension"][4] is None


def test_the_classifier_of_infoexplicitness_is_at_the_optimum():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 5], [200, 60, 40])
    codes = scaled(np.column_stack([classes, classes == 1]) + 1.5 * rng.standard_normal((300, 2)))
    hot = (classes[:, None] == [0, 1, 5]).astype(float)
    weight = (300 / 3 / hot.sum(axis=0))[hot.argmax(axis=1)]

    def log_shares(parameters):
        logits = np.column_stack([codes, np.ones(300)]) @ parameters.reshape(3, 3)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def weighted_loss(parameters):
        return -(weight[:, None] * hot * log_shares(parameters)).sum() / 300

    best = minimize(weighted_loss, np.zeros(9), tol=1e-10).x
    expected = -(hot * log_shares(best)).sum() / 300 / np.log(3)
    assert log_loss_of_classifier(codes, classes) == pytest.approx(expected, abs=1e-4)
    assert log_loss_of_classifier(np.zeros((300, 2)), classes) == pytest.approx(1, abs=1e-9)


def test_largest_share_and_active_dimensions():
    rows = np.array([[1.0, 1, 1, 1], [0, 2, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(largest_share(rows), [0, 1, 2 / 3, 0])
    np.testing.assert_allclose(largest_share(np.array([[0.5], [0.0]])), [1, 0])
    assert largest_share(np.zeros((2, 0))).tolist() == [0, 0]
    codes = np.array([[0, 0, 7, -1], [20, 1, 7, 0.01]])
    np.testing.assert_array_equal(active_dimensions(codes), [0, 3])
    assert not len(active_dimensions(np.full((5, 2), 0.1)))


def test_infomec_at_its_limits():
    factors = grid((5, 6, 7), copies=10)
    perfect = dislab.evaluate(codes=scaled(factors), factors=factors, metrics=INFOMEC)
    assert perfect["infomodularity"] > 0.97 and perfect["infocompactness"] > 0.97
    twice = dislab.evaluate(codes=np.hstack([scaled(factors), -factors]), factors=factors, metrics=INFOMEC)
    assert twice["infomodularity"] > 0.97
    assert twice["infocompactness"] == pytest.approx((1 / 2 - 1 / 6) / (1 - 1 / 6), abs=0.02)
    one_hot = np.hstack([np.eye(n)[f] for n, f in zip((5, 6, 7), factors.T, strict=True)])
    assert dislab.evaluate(codes=one_hot, factors=factors, metrics=INFOMEC)["infoexplicitness"] > 0.98
    noise = np.random.default_rng(0).standard_normal(factors.shape)
    noise = dislab.evaluate(codes=noise, factors=factors, metrics=INFOMEC)
    assert abs(noise["infoexplicitness"]) < 0.02


# The readouts --------------------------------------------------------------------------------------


def test_ridge_is_least_squares_with_rows_for_the_penalty():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((80, 5)) * [1, 10, 0.1, 1, 0] + 3
    targets = codes[:, :2] @ rng.standard_normal((2, 3)) + rng.standard_normal((80, 3))
    varying = scaled(codes[:, :4])
    stacked = np.vstack([np.column_stack([varying, np.ones(80)]), 2.0 * np.eye(5)[:4]])
    weights = np.linalg.lstsq(stacked, np.vstack([targets, np.zeros((4, 3))]), rcond=None)[0]
    new = rng.standard_normal((20, 5)) + 3
    inputs = (new[:, :4] - codes[:, :4].mean(axis=0)) / codes[:, :4].std(axis=0)
    expected = np.column_stack([inputs, np.ones(20)]) @ weights
    np.testing.assert_allclose(ridge(codes, targets, penalty=4.0)(new), expected, atol=1e-9)


def test_the_network_reads_what_a_linear_readout_cannot():
    rng = np.random.default_rng(0)
    codes = rng.uniform(-1, 1, size=(6000, 2)).astype(np.float32)
    product = 50 * codes.prod(axis=1, keepdims=True).astype(np.float64) + 7
    losses = [
        relative_losses(readout(codes[5000:]), {0: product[5000:]})[0]
        for readout in (
            small_network(codes[:5000], product[:5000], rng),
            ridge(codes[:5000], product[:5000]),
        )
    ]
    assert losses[0] < 0.01
    assert losses[1] > 0.98


def test_distinct_rows():
    rng = np.random.default_rng(0)
    factors = grid((10, 20))
    for table in (CodeTable(factors, factors, full_grid=True), CodeTable(factors, factors)):
        train, test = distinct_rows(table, rng, 120, 80)
        assert sorted([*train, *test]) == list(range(200))
        train, test = distinct_rows(table, rng, 600, 200)
        assert (len(train), len(test)) == (150, 50) and not {*train} & {*test}
    train, test = distinct_rows(CodeTable(factors, factors, ordered=True), rng, 3, 2)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3, 4])


def test_regression_of_factors():
    factors = grid((5, 6, 8), copies=15)
    mixed = scaled(factors) @ np.random.default_rng(1).standard_normal((3, 4))
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
        fov_regression.fov_regression(CodeTable(factors[:5], factors[:5]), np.random.default_rng(0))


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
    train, test = distinct_rows(CodeTable(codes, factors), np.random.default_rng(0), 3000, 1500)
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
    s, rng = scaled(factors), np.random.default_rng(0)
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


# All of them ---------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_the_order_and_sign_of_dimensions(short_training):
    factors = grid((4, 5, 6), copies=10)
    rng = np.random.default_rng(0)
    codes = np.tanh(scaled(factors) @ rng.standard_normal((3, 5)) / 2) + 0.1 * rng.standard_normal((1200, 5))
    one = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    other = dislab.evaluate(
        codes=7 * codes[:, [3, 1, 0, 4, 2]] * [1, -1, 1, -1, -1] + 3, factors=factors, metrics=NAMES
    )
    for name in NAMES:
        assert one[name] == pytest.approx(other[name], abs=0.02)
    for name in (*INFOMEC, "fov_regression_linear_all"):
        assert one[name] == pytest.approx(other[name], abs=1e-3)


def test_same_seed_same_digits(short_training):
    factors = grid((5, 6, 7))
    circle = Circle("factor_1", 6, instance="factor_0")
    codes = factors @ np.random.default_rng(0).standard_normal((3, 4))
    table = CodeTable(codes, factors, circle=circle)
    names = [*NAMES, "pose_error"]
    assert score(table, names, seed=3) == score(table, names, seed=3)
    assert score(table, ["pose_error"], seed=4) != score(table, ["pose_error"], seed=3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
def test_constant_codes_know_nothing(value, short_training):
    factors, _, circle = posed()
    scores = score(
        CodeTable(np.full((len(factors), 3), value), factors, circle=circle), [*NAMES, "pose_error"]
    )
    assert not scores.failed
    assert scores["infomodularity"] == scores["infocompactness"] == 0
    assert scores["infomodularity_active_dimensions"] == 0
    assert scores["infoexplicitness"] == pytest.approx(0, abs=1e-6)
    assert scores["fov_regression_linear_all"] == pytest.approx(0, abs=0.01)
    assert scores["fov_regression"] == pytest.approx(0, abs=0.05)
    assert scores["dcies_explicitness_informativeness"] == pytest.approx(0, abs=0.01)
    assert scores["pose_error_linear"] == pytest.approx(90, abs=15)
    assert np.isfinite([*scores.values()]).all()


def test_dead_and_outlying_dimensions_do_no_harm(short_training):
    factors = grid((4, 5, 6), copies=8)
    dead = np.column_stack([factors, np.full(len(factors), 1234.567), np.zeros(len(factors))])
    with_dead = dislab.evaluate(codes=dead, factors=factors, metrics=NAMES)
    without = dislab.evaluate(codes=factors, factors=factors, metrics=NAMES)
    for name in (*INFOMEC, "fov_regression_linear_all"):
        assert with_dead[name] == pytest.approx(without[name], abs=0.01)
    assert with_dead["infomodularity_active_dimensions"] == 3
    spike = dead.copy()
    spike[::97, 4] = 1e30
    circle = Circle("factor_2", 6, instance="factor_1")
    scores = score(CodeTable(spike, factors, circle=circle), [*NAMES, "pose_error"])
    assert not scores.failed and np.isfinite([*scores.values()]).all()
    assert scores.details["fov_regression_linear_all_per_factor"][0] > 0.99


def test_factors_with_one_value_are_left_out(short_training):
    varying = grid((4, 5), copies=20)
    factors = np.column_stack([varying[:, 0], np.full(len(varying), 2), varying[:, 1]])
    scores = dislab.evaluate(codes=varying, factors=factors, metrics=NAMES)
    assert scores["infomodularity"] > 0.9 and scores["fov_regression_linear_all"] > 0.99
    assert scores["dcies_size"] == 1
    for name in ("infocompactness", "infoexplicitness", "fov_regression", "dcies_explicitness"):
        assert [value is None for value in scores.details[name + "_per_factor"]] == [False, True, False]
    scores = score(CodeTable(varying, np.ones_like(varying)), NAMES)
    assert "two factors" in scores.left_out["infomodularity"]
    assert set(scores.failed) == {*NAMES} - {"infomodularity"}
    assert all("factor that varies" in cause for cause in scores.failed.values())


def test_one_dimension_and_one_factor(short_training):
    factors = np.arange(400) % 5
    scores = score(CodeTable(factors[:, None], factors), NAMES)
    assert not scores.failed and [*scores.left_out] == ["infomodularity"]
    assert scores["infocompactness"] == 1 and scores["infoexplicitness"] > 0.5
    assert scores["fov_regression_linear_all"] > 0.99 and scores["dcies_size"] == 1
    assert np.isfinite([*scores.values()]).all()


def test_few_rows_and_many_values(short_training):
    factors = grid((2, 3))
    scores = score(CodeTable(factors, factors, circle=Circle("factor_1", 3)), [*NAMES, "pose_error"])
    assert not scores.failed and np.isfinite([*scores.values()]).all()
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.integers(0, 183, size=1500), rng.integers(0, 40, size=1500)])
    codes = scaled(factors) + 0.1 * rng.standard_normal((1500, 2))
    circle = Circle("factor_1", 40, instance="factor_0")
    scores = score(CodeTable(codes, factors, circle=circle), [*NAMES, "pose_error"])
    assert not scores.failed and np.isfinite([*scores.values()]).all()
    assert scores["infomodularity"] > 0.8
    assert scores.details["fov_regression_linear_all_per_factor"][0] > 0.95
    assert 0.2 < scores["infoexplicitness"] < 1
