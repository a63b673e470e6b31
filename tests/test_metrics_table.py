"""SAP, modularity, explicitness and IRS: the reference library's numbers, slow versions, and their limits."""

import json
import os
from math import log
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

import dislab
from dislab.benchmarks.reference import Goldens
from dislab.metrics.explicitness import area_under_curve, standardised
from dislab.metrics.irs import deviations
from dislab.metrics.modularity import modularity_per_dimension
from dislab.metrics.sap import fit_svms, squared_correlations, svm_accuracies
from dislab.scoring.evaluate import score
from dislab.scoring.table import CodeTable

NAMES = ["sap", "modularity", "explicitness", "irs"]
GOLDENS = Goldens(Path(os.environ.get("DISLAB_DATA", "")).parent / "goldens")
needs_goldens = pytest.mark.skipif(not GOLDENS.found, reason="no folder of goldens beside $DISLAB_DATA")
CASES = GOLDENS.cases or ["none"]
EXPLICITNESS = [  # seconds a case: one of every kind that differs for a linear classifier
    "shapes3d__mix10",  # stopped before it has converged
    "mpi3d__noisy_identity",
    "shapes3d__pure_noise",
    "cars3d__missing_factor",
    "cars3d__raw_int",
    "mpi3d__rotation",
    "dsprites__duplicate",
    "dsprites__const_nonzero",  # constant, and the reference has a value
    "shapes3d__dead_dims",  # some dimensions are constant, and the reference has none
    "cars3d__zeros",
]


# The goldens ---------------------------------------------------------------------------------------


@needs_goldens
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_the_reference(case):
    file = GOLDENS.case(case)
    scores = dislab.evaluate(
        codes=file.codes,
        factors=file.factors,
        metrics=["sap", "modularity", "irs"],
        shuffle=False,
        num_train=10_000,
        num_test=5_000,
    )
    expected = {name: GOLDENS.records[case, name]["value"] for name in ("sap_discrete", "modularity", "irs")}
    assert scores["modularity"] == pytest.approx(expected["modularity"], abs=1e-6)
    assert scores["sap"] == pytest.approx(expected["sap_discrete"], abs=0.005)
    if expected["irs"] == "NaN":
        assert scores["irs"] == 0 and scores["irs_active_dimensions"] == 0
    else:
        assert scores["irs"] == pytest.approx(expected["irs"], abs=1e-4)


@needs_goldens
@pytest.mark.parametrize("case", EXPLICITNESS)
def test_explicitness_equals_the_reference(case):
    file = GOLDENS.case(case)
    scores = dislab.evaluate(codes=file.codes, factors=file.factors, metrics=["explicitness"], shuffle=False)
    constant = (np.ptp(file.codes[:10_000], axis=0) == 0).sum()
    assert scores["explicitness_constant_dimensions"] == constant
    record = GOLDENS.records[case, "explicitness"]
    if record["error"]:
        assert constant > 0 and 0.5 <= scores["explicitness"] <= 1
    else:
        assert scores["explicitness"] == pytest.approx(record["value"]["test"], abs=0.005)
        assert scores["explicitness_train"] == pytest.approx(record["value"]["train"], abs=0.005)


@needs_goldens
@pytest.mark.parametrize("case", CASES)
def test_variants_equal_the_reference(case):
    file = GOLDENS.case(case)
    table = CodeTable(file.codes, file.factors, ordered=True)
    continuous = score(table, ["sap"], continuous_factors=True)["sap"]
    assert continuous == pytest.approx(GOLDENS.records[case, "sap_continuous"]["value"], abs=1e-6)
    value = GOLDENS.records[case, "irs_diff_quantile_1"]["value"]
    largest = score(table, ["irs"], diff_quantile=1.0)["irs"]
    assert largest == pytest.approx(0 if value == "NaN" else value, abs=1e-4)


@needs_goldens
@pytest.mark.parametrize("case", ["shapes3d__mix10", "dsprites__duplicate", "cars3d__sincos"])
def test_intermediate_matrices_equal_the_reference(case):
    file = GOLDENS.case(case)
    codes, factors = file.codes.astype(np.float64), file.factors
    accuracies = svm_accuracies(codes[:10_000], factors[:10_000], codes[10_000:], factors[10_000:])
    np.testing.assert_allclose(accuracies, file.arrays["ref_sap_matrix"], atol=0.002)
    table = CodeTable(codes, factors, ordered=True)
    ours = score(table, ["irs"]).details["irs_per_dimension"]
    np.testing.assert_allclose(ours, file.arrays["ref_irs_scores"], atol=1e-4)


@needs_goldens
def test_modularity_of_the_reference_matrices():
    closed = json.loads((GOLDENS.folder / "unit_expectations.json").read_text())["closed_form"]
    chosen = [case for case in closed if case["function"] == "modularity_from_mi"]
    assert len(chosen) == 6
    for case in chosen:
        scores = modularity_per_dimension(np.array(case["matrix"], dtype=float))
        assert scores.mean() == pytest.approx(case["expected"], abs=1e-12)


def unit_codes(kind: str, factors: np.ndarray) -> np.ndarray:
    return {
        "identity": factors,
        "zeros": np.zeros_like(factors),
        "duplicated": np.hstack([factors, factors]),
        "row_shuffled": np.random.default_rng(1).permuted(factors, axis=1),
    }[kind].astype(float)


@needs_goldens
def test_expectations_of_the_reference_unit_tests():
    # With 10 values in 20 bins no two values share a bin: the same as its tests without bins.
    cases = json.loads((GOLDENS.folder / "unit_expectations.json").read_text())["end_to_end"]
    cases = [case for case in cases if case["metric"].split("_")[0] in NAMES]
    assert len(cases) == 9
    for case in cases:
        settings = {name: case["parameters"].get(name, 1000) for name in ("num_train", "num_test")}
        factors = np.random.default_rng(0).integers(1, 11, size=(sum(settings.values()), 10))
        if case["metric"] == "sap_continuous":
            settings["continuous_factors"] = True
        name = case["metric"].split("_")[0]
        low, high = case["between"]
        result = score(CodeTable(unit_codes(case["codes"], factors), factors), [name], **settings)
        assert low <= result[name] <= high, case


# Slow versions, written on their own ---------------------------------------------------------------


def grid(sizes=(3, 4, 5), copies=1) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=-1).repeat(copies, axis=0)


def mixture(factors: np.ndarray, num_codes: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = factors @ rng.standard_normal((factors.shape[1], num_codes))
    return (mixed + noise * rng.standard_normal(mixed.shape)).astype(np.float32)


@pytest.mark.parametrize(("shares", "shift"), [([5, 3, 1, 1], 0.0), ([1, 1, 1], 2.0), ([2, 1], 0.5)])
def test_svms_equal_those_of_liblinear(shares, shift):
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(len(shares)), np.array(shares) * 40)
    codes = rng.standard_normal(len(classes)) + np.array([1.0, -2.0, 0.3, 4.0])[classes] + shift
    theirs = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=1e-12, max_iter=100_000)
    theirs.fit(codes[:, None], classes)
    center, scale = codes.mean(), codes.std()
    slope, offset = fit_svms((codes - center) / scale, classes, center, scale)
    np.testing.assert_allclose(slope / scale, theirs.coef_[:, 0], atol=1e-6)
    np.testing.assert_allclose(offset - slope * center / scale, theirs.intercept_, atol=1e-6)
    unseen = rng.standard_normal(300) * 3
    truth = rng.integers(0, len(shares), size=300)
    accuracy = svm_accuracies(codes[:, None], classes[:, None], unseen[:, None], truth[:, None])
    assert accuracy == pytest.approx(theirs.score(unseen[:, None], truth), abs=1e-12)


@pytest.mark.parametrize(
    ("center", "scale"), [(0.0, 1.0), (1e4, 1.0), (-3.0, 1e-4), (20.0, 60.0), (0.3, 1e-9)]
)
@pytest.mark.parametrize("levels", [3, 10_000])
def test_no_small_change_lowers_the_loss_of_an_svm(center, scale, levels):
    """The loss as the docstring states it, by a pass over the points, in slope and offset."""
    rng = np.random.default_rng(0)
    classes = rng.choice(4, size=400, p=[0.1, 0.2, 0.3, 0.4])
    codes = np.round((rng.standard_normal(400) + classes) * levels) / levels  # few levels: many ties
    codes = (codes - codes.mean()) / codes.std()
    slope, offset = fit_svms(codes, classes, center, scale)
    weights = 400 / (4 * np.bincount(classes, minlength=4))

    def loss(c, slope, offset):
        sign = np.where(classes == c, 1, -1)
        slack = np.maximum(0, 1 - sign * (slope * codes + offset))
        penalty = (slope / scale) ** 2 + (offset - slope * center / scale) ** 2
        return penalty / 2 + 0.01 * (np.where(classes == c, weights[c], 1) * slack**2).sum()

    for c in range(4):
        least = loss(c, slope[c], offset[c])
        assert least <= loss(c, 0, 0)
        for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
            for size in (1e-3, 1e-1):
                moved = slope[c] + size * np.cos(angle) * min(1, scale), offset[c] + size * np.sin(angle)
                assert loss(c, *moved) >= least - 1e-9 * least


def test_squared_correlations_equal_numpys():
    factors = grid(copies=2)
    codes = mixture(factors, 4, 0.5).astype(np.float64)
    expected = np.corrcoef(codes.T, factors.T)[:4, 4:] ** 2
    np.testing.assert_allclose(squared_correlations(codes, factors), expected, atol=1e-12)
    np.testing.assert_array_equal(squared_correlations(codes * 1e-7, factors), 0)


def test_area_under_curve_counts_pairs():
    rng = np.random.default_rng(0)
    shares = rng.integers(0, 6, size=(60, 4)) / 6.0  # with many ties
    positive = rng.integers(0, 3, size=60)[:, None] == np.arange(4)  # class 3 has no rows
    areas = []
    for c in range(3):
        wins = [
            (shares[i, c] > shares[j, c]) + 0.5 * (shares[i, c] == shares[j, c])
            for i in np.flatnonzero(positive[:, c])
            for j in np.flatnonzero(~positive[:, c])
        ]
        areas.append(np.mean(wins))
    assert area_under_curve(shares, positive) == pytest.approx(np.mean(areas), abs=1e-12)


def irs_by_loops(codes, factors, quantile, num_bins=20):
    total, weight = 0.0, 0.0
    for d in range(codes.shape[1]):
        z = codes[:, d].astype(float)
        largest = max(abs(z - z.mean()))
        best = -np.inf
        for column in factors.T:
            edges = np.linspace(column.min(), column.max(), num_bins + 1)
            bins = [sum(value >= edge for edge in edges[:-1]) for value in column]
            far = []
            for b in sorted(set(bins)):
                group = np.array([value for value, own in zip(z, bins, strict=True) if own == b])
                distances = sorted(abs(group - group.mean()))
                place = (len(distances) - 1) * quantile
                below = int(place)
                above = min(below + 1, len(distances) - 1)
                far.append(distances[below] + (place - below) * (distances[above] - distances[below]))
            best = max(best, 1 - np.mean(far) / largest)
        total, weight = total + largest * best, weight + largest
    return total / weight


@pytest.mark.parametrize("quantile", [0.5, 0.99, 1.0])
def test_irs_by_loops(quantile):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, [3, 4, 45], size=(400, 3))
    codes = np.hstack([factors[:, :1], mixture(factors, 3, 1.0), factors[:, 2:] / 7]).astype(np.float32)
    scores = score(CodeTable(codes, factors, ordered=True), ["irs"], diff_quantile=quantile)
    assert scores["irs"] == pytest.approx(irs_by_loops(codes, factors, quantile), abs=1e-9)
    assert scores["irs_active_dimensions"] == 5
    assert deviations(codes.astype(float), factors, quantile)[0, 0] == 0


def modularity_by_loops(codes, factors, num_bins=20):
    scores = []
    for z in codes.T.astype(float):
        width = np.ptp(z) / num_bins
        bins = np.array([min(int((value - z.min()) / width), num_bins - 1) for value in z])
        informations = []
        for column in factors.T:
            information = 0.0
            for b in set(bins):
                for value in set(column):
                    together = np.mean((bins == b) & (column == value))
                    if together:
                        apart = np.mean(bins == b) * np.mean(column == value)
                        information += together * log(together / apart)
            informations.append(information)
        best = max(informations)
        template = [best if information == best else 0.0 for information in informations]
        apart = sum((i - t) ** 2 for i, t in zip(informations, template, strict=True))
        scores.append(1 - apart / (best**2 * (len(informations) - 1)))
    return scores


def test_modularity_by_loops():
    factors = grid(copies=3)
    codes = mixture(factors, 4, 0.5)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["modularity"], shuffle=False)
    expected = modularity_by_loops(codes, factors)
    assert scores["modularity"] == scores["modularity_active"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert scores.details["modularity_per_dimension"] == pytest.approx(expected, abs=1e-9)


# Limits: perfect codes, noise, and dimensions that say nothing -------------------------------------


def test_perfect_codes_and_noise():
    factors = grid((4, 5, 6), copies=20)
    perfect = dislab.evaluate(codes=10 * factors, factors=factors, metrics=NAMES)
    assert perfect["modularity"] > 0.999
    assert perfect["irs"] == pytest.approx(1)
    assert perfect["sap"] > 0.2
    noise = np.random.default_rng(0).standard_normal((len(factors), 6))
    noise = dislab.evaluate(codes=noise, factors=factors, metrics=NAMES)
    assert noise["sap"] < 0.05
    assert abs(noise["explicitness"] - 0.5) < 0.05 < perfect["explicitness"] - 0.9
    assert noise["modularity"] < 0.9
    assert noise["irs"] < 0.6


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1234.567, 1e30])
def test_one_constant_dimension_does_not_lose_the_scores(value):
    factors = grid((4, 5, 6), copies=20)
    codes = mixture(factors, 5, 0.3)
    before = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    codes = np.insert(codes, 2, np.float32(value), axis=1)
    after = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    assert after["modularity"] == pytest.approx(before["modularity"] * 5 / 6, abs=1e-12)
    assert after["modularity_active"] == pytest.approx(before["modularity"], abs=1e-12)
    assert after.details["modularity_per_dimension"][2] == 0
    for name in ("explicitness", "explicitness_train", "irs"):
        assert after[name] == pytest.approx(before[name], abs=1e-12)
    assert after["sap"] == pytest.approx(before["sap"], abs=1e-12)  # a constant is never second best here
    assert after["explicitness_constant_dimensions"] == 1
    assert before["irs_active_dimensions"] == after["irs_active_dimensions"] == 5
    assert after.details["irs_per_dimension"][2] is None


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
@pytest.mark.parametrize("continuous", [False, True])
def test_constant_codes_are_finite_and_at_chance_or_zero(value, continuous):
    factors = grid(copies=5)
    table = CodeTable(np.full((len(factors), 3), value), factors)
    scores = score(table, NAMES, continuous_factors=continuous)
    assert not scores.failed
    assert scores["sap"] == scores["modularity"] == scores["modularity_active"] == scores["irs"] == 0
    assert scores["explicitness"] == scores["explicitness_train"] == 0.5
    assert scores["explicitness_constant_dimensions"] == 3


def test_rounding_of_a_constant_is_not_a_dimension_of_irs():
    factors = grid(copies=20)
    codes = np.full((len(factors), 2), 0.1, dtype=np.float32)
    codes[::7, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    codes[:, 1] = factors[:, 1]
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["irs"])
    assert scores["irs"] == 1 and scores["irs_active_dimensions"] == 1


def test_order_sign_and_duplicates():
    factors = grid((4, 5, 6), copies=20)
    codes = mixture(factors, 5, 0.3)
    one = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    other = dislab.evaluate(
        codes=codes[:, [3, 1, 0, 4, 2]] * [1, -1, 1, -1, -1], factors=factors, metrics=NAMES
    )
    for name in NAMES:
        assert one[name] == pytest.approx(other[name], abs=0.01)
    twice = dislab.evaluate(codes=np.hstack([codes, codes]), factors=factors, metrics=NAMES)
    assert twice["sap"] == 0
    assert twice["modularity"] == pytest.approx(one["modularity"])
    assert twice["irs"] == pytest.approx(one["irs"])


def test_same_seed_same_digits_and_no_score_depends_on_the_others():
    factors = grid((4, 5, 6), copies=20)
    codes = mixture(factors, 4, 0.3)
    together = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES, seed=3)
    for name in reversed(NAMES):
        assert dislab.evaluate(codes=codes, factors=factors, metrics=[name], seed=3)[name] == together[name]
    other = dislab.evaluate(codes=codes, factors=factors, metrics=["explicitness"], seed=4)
    assert other["explicitness"] != together["explicitness"]


# Awkward input -------------------------------------------------------------------------------------


def test_a_single_factor():
    factors = np.arange(400) % 5
    codes = np.column_stack([factors, np.zeros(400)])
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    assert set(scores.left_out) == {"modularity"}
    assert scores["irs"] == 1 and scores["sap"] > 0.1 and scores["explicitness"] > 0.7


@pytest.mark.parametrize("continuous", [False, True])
def test_one_code_dimension_has_a_constant_as_second_best(continuous):
    factors = grid((4, 5), copies=20)
    one = score(CodeTable(factors[:, :1], factors), NAMES, continuous_factors=continuous)
    two = score(
        CodeTable(np.pad(factors[:, :1], ((0, 0), (0, 1))), factors), NAMES, continuous_factors=continuous
    )
    assert not one.failed
    assert one["sap"] == two["sap"] > 0.05
    assert one["irs"] == 1 and one["modularity"] > 0.99


def test_factors_with_one_value_are_left_out():
    varying = grid((4, 5), copies=40)
    factors = np.column_stack([varying[:, 0], np.full(len(varying), 2), varying[:, 1]])
    codes = mixture(varying, 3, 0.3)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES)
    without = dislab.evaluate(codes=codes, factors=varying, metrics=NAMES)
    for name in NAMES:
        assert scores[name] == pytest.approx(without[name], abs=1e-12)
    assert scores.details["sap_per_factor"][1] is None
    assert scores.details["explicitness_per_factor"][1] is None
    for name in ("sap", "explicitness", "irs"):
        with pytest.raises(dislab.DislabError, match="factor that varies"):
            dislab.evaluate(codes=codes, factors=np.ones_like(varying), metrics=[name])


def test_values_that_only_training_or_only_test_rows_have():
    factors = np.repeat([0, 1, 2, 0, 1, 3], 50)[:, None]
    codes = mixture(factors, 2, 2.0)
    settings = {"metrics": ["sap", "explicitness"], "shuffle": False, "num_train": 150, "num_test": 150}
    scores = dislab.evaluate(codes=codes, factors=factors, **settings)
    assert 0 <= scores["sap"] <= 1
    inputs, unseen, _ = standardised(codes[:150], codes[150:])
    shares = LogisticRegression().fit(inputs, factors[:150, 0]).predict_proba(unseen)
    expected = [roc_auc_score(factors[150:, 0] == value, shares[:, value]) for value in (0, 1)]
    assert scores["explicitness"] == pytest.approx(np.mean(expected), abs=0.005)
    with pytest.raises(dislab.DislabError, match="test rows"):
        dislab.evaluate(
            codes=codes, factors=factors, **(settings | {"num_test": 50, "metrics": "explicitness"})
        )
    with pytest.raises(dislab.DislabError, match="rows to test on"):
        dislab.evaluate(codes=codes, factors=factors, **(settings | {"num_test": 0, "metrics": "sap"}))


def test_outliers_and_nearly_constant_dimensions_are_finite():
    factors = grid(copies=10)
    codes = mixture(factors, 4, 0.3)
    codes[::37, 0] = 1e30
    codes[:, 1] *= 1e-38
    codes[:, 2] = 0
    codes[300, 2] = 1e-40
    codes[500, 2] = 3e38
    for shuffle in (False, True):
        scores = dislab.evaluate(codes=codes, factors=factors, metrics=NAMES, shuffle=shuffle)
        assert np.isfinite(list(scores.values())).all()
        assert all(0 <= scores[name] <= 1 for name in NAMES)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 6, 10])
def test_a_few_rows_give_a_score_or_a_clear_error(num_rows):
    rng = np.random.default_rng(num_rows)
    for _ in range(10):
        factors = rng.integers(0, 3, size=(num_rows, 2))
        codes = rng.integers(0, 3, size=(num_rows, rng.integers(1, 4))).astype(float)
        scores = score(CodeTable(codes, factors), NAMES)
        assert all("varies" in why or "vary" in why for why in scores.failed.values())
        assert np.isfinite(list(scores.values())).all()
        assert all(0 <= scores[name] <= 1 for name in NAMES if name in scores)
    assert num_rows < 10 or set(NAMES) <= set(scores)
