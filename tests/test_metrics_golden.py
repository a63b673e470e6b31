"""Metrics against the reference library's numbers."""

import json
import math

import numpy as np
import pytest
from metric_tables import (
    CASES,
    GOLDENS,
    needs_goldens,
    one_thread,  # noqa: F401 (a fixture)
)

import dislab
from dislab.benchmarks.reference import compare, noise_row
from dislab.metrics.betavae_score import accuracies
from dislab.metrics.dci import importance_scores
from dislab.metrics.factorvae_score import active_dimensions
from dislab.metrics.gaussian_correlation import rounding_variance
from dislab.metrics.modularity import modularity_per_dimension
from dislab.metrics.sap import svm_accuracies
from dislab.scoring.boosting import gradient_boosting, joint_boosting
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

pytestmark = needs_goldens
QUICK = ["mig", "modularity", "irs", "sap", "sap_continuous", "gaussian_correlation"]
EXPLICITNESS = [  # a case takes a second: one of every kind that differs for a linear classifier
    "shapes3d__mix10",  # stopped before it has converged
    "shapes3d__pure_noise",
    "cars3d__missing_factor",
    "cars3d__raw_int",
    "dsprites__const_nonzero",  # constant, and the reference has a value
    "shapes3d__dead_dims",  # some dimensions are constant, and the reference has no value
    "cars3d__zeros",
]
ON_THE_GRID = ["shapes3d__dead_dims", "shapes3d__mix10", "cars3d__raw_int", "cars3d__missing_factor"]
POINTS = sorted(p.stem for p in GOLDENS.folder.glob("betavae_points__*.npz")) or ["none"]


def check(case: str, metrics: list[str], num_seeds: int = 1) -> dict:
    """All scores of dislab that the reference has too agree; the others are finite."""
    lines = list(compare(GOLDENS, case, metrics, num_seeds))
    assert {line.quantity for line in lines} >= {*metrics} - {"gaussian_correlation", "dci_fast"}
    for line in lines:
        assert line.result != "differs", line
        assert math.isfinite(line.ours), line
    return {line.quantity: line for line in lines}


@pytest.mark.parametrize("case", CASES)
def test_scores_of_the_same_rows(case):
    lines = check(case, QUICK)
    if math.isnan(lines["irs"].reference):  # all codes are constant
        assert lines["irs"].ours == 0
    table = CodeTable(*GOLDENS.case(case).rows(10_000, 0), ordered=True)
    constant = np.ptp(table.mean, axis=0) == 0
    scores = score(table, ["gaussian_correlation"])
    assert scores["gaussian_total_correlation_constant_dimensions"] == np.count_nonzero(constant)
    if "duplicate" in case:  # infinite in the reference
        num_dims = len(constant)
        assert scores["gaussian_total_correlation_dependent_dimensions"] == num_dims / 2
        once = table.mean[:, : num_dims // 2]
        noise = 2 * rounding_variance(once) / once.var(axis=0)  # of the difference of two copies
        assert scores["gaussian_total_correlation"] == pytest.approx(-0.5 * np.log(noise).sum(), abs=0.01)
    if "dead_dims" in case:  # not a number in the reference: two noise dimensions and the factors are left
        assert 0 < scores["gaussian_total_correlation"] < 0.01


@pytest.mark.parametrize("case", EXPLICITNESS)
def test_explicitness(case):
    file = GOLDENS.case(case)
    lines = check(case, ["explicitness"])
    if GOLDENS.records[case, "explicitness"]["error"]:
        assert (np.ptp(file.codes[:10_000], axis=0) == 0).any() and 0.5 <= lines["explicitness"].ours <= 1


@pytest.mark.parametrize("case", ON_THE_GRID)
def test_scores_of_points_on_the_grid(case):
    # Two seeds: the score of a single one is off by some 0.005, as is the reference's.
    check(case, ["betavae_score", "factorvae_score"], num_seeds=2)


def test_dci_fast():
    check("shapes3d__noisy_identity", ["dci_fast"])  # the case that coarser searches miss


@pytest.mark.parametrize("case", CASES)
def test_variants_of_sap_and_irs(case):
    file = GOLDENS.case(case)
    table = CodeTable(file.codes, file.factors, ordered=True)
    continuous = score(table, ["sap"], continuous_factors=True)["sap"]
    assert continuous == pytest.approx(GOLDENS.records[case, "sap_continuous"]["value"], abs=1e-6)
    value = GOLDENS.records[case, "irs_diff_quantile_1"]["value"]
    largest = score(table, ["irs"], diff_quantile=1.0)["irs"]
    assert largest == pytest.approx(0 if value == "NaN" else value, abs=1e-4)


# Intermediate values -------------------------------------------------------------------------------


def test_noise_hash_of_the_golden_encoder():
    np.testing.assert_array_equal(noise_row([0, 1, 2, 1000, 737279]), [0, 2231, 774, 1624, 3245])


@pytest.mark.parametrize("case", POINTS)
def test_betavae_classifier_on_the_reference_points(case):
    file = np.load(GOLDENS.folder / f"{case}.npz")
    ours = accuracies(file["train_points"], file["train_labels"], file["eval_points"], file["eval_labels"])
    for split, accuracy in zip(("train", "eval"), ours, strict=True):
        # The converged fit of the same problem is as good as the reference's own float32 fit.
        low, high = sorted([file[f"ref_default_{split}_accuracy"], file[f"ref_converged_{split}_accuracy"]])
        assert low - 5e-4 <= accuracy <= high + 5e-4


@pytest.mark.parametrize("case", ["cars3d__zeros", "shapes3d__dead_dims"])
def test_factorvae_prunes_the_dimensions_that_the_reference_prunes(case):
    codes, _ = GOLDENS.case(case).rows(10_000, 0)
    _, active = active_dimensions(codes, 0.05)
    np.testing.assert_array_equal(active, np.flatnonzero(codes.std(axis=0) >= 0.05))


@pytest.mark.parametrize("case", ["shapes3d__mix10", "dsprites__duplicate", "cars3d__sincos"])
def test_matrices_of_sap_and_irs(case):
    file = GOLDENS.case(case)
    codes, factors = file.codes.astype(np.float64), file.factors
    predictions = svm_accuracies(codes[:10_000], factors[:10_000], codes[10_000:], factors[10_000:])
    np.testing.assert_allclose(predictions, file.arrays["ref_sap_matrix"], atol=0.002)
    ours = score(CodeTable(codes, factors, ordered=True), ["irs"]).details["irs_per_dimension"]
    np.testing.assert_allclose(ours, file.arrays["ref_irs_scores"], atol=1e-4)


@pytest.mark.parametrize("learner", [gradient_boosting, joint_boosting])
@pytest.mark.parametrize("case", ["shapes3d__rotation", "mpi3d__noisy_identity", "cars3d__half_entangled"])
def test_importances(case, learner):
    """For the factor of fewest values, which is quick: each factor has a classifier of its own."""
    file = GOLDENS.case(case)
    few = [int(np.argmin(file.sizes))]
    codes, factors = file.rows(3000, 2000)
    boosted = learner(codes[:3000], factors[:3000][:, few], codes[3000:], np.random.default_rng(0))
    expected = file.arrays["ref_dci_importance_3000"][:, few]
    # scikit-learn's trees are the reference's, except for ties between single cuts, broken at random.
    tolerance = 0.005 if learner is gradient_boosting else 0.02
    np.testing.assert_allclose(boosted.importance, expected, rtol=0, atol=tolerance)


def test_scores_of_the_reference_importances():
    for case in CASES:
        importance = GOLDENS.case(case).arrays.get("ref_dci_importance_3000")
        if importance is not None:
            scores = importance_scores(importance)
            for part in ("disentanglement", "completeness"):
                expected = GOLDENS.records[case, "dci_3000"]["value"][part]
                assert getattr(scores, part) == pytest.approx(expected, abs=1e-12)


# The reference's own unit tests --------------------------------------------------------------------


def unit_expectations(kind: str) -> list[dict]:
    return json.loads((GOLDENS.folder / "unit_expectations.json").read_text())[kind]


def test_modularity_of_the_unit_tests():
    chosen = [case for case in unit_expectations("closed_form") if case["function"] == "modularity_from_mi"]
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


def test_expectations_of_the_unit_tests():
    # With 10 values in 20 bins no two values share a bin: the same as the reference's tests without bins.
    names = ("sap", "modularity", "explicitness", "irs")
    cases = [case for case in unit_expectations("end_to_end") if case["metric"].split("_")[0] in names]
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


def test_default_numbers_of_rows_are_the_protocol():
    file = GOLDENS.case("cars3d__identity")
    scores = dislab.evaluate(codes=file.codes, factors=file.factors, metrics=["mig", "sap"], shuffle=False)
    assert scores["mig"] == pytest.approx(GOLDENS.records["cars3d__identity", "mig"]["value"], abs=1e-6)
    value = GOLDENS.records["cars3d__identity", "sap_discrete"]["value"]
    assert scores["sap"] == pytest.approx(value, abs=0.005)
