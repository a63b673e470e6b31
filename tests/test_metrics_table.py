"""MIG, SAP, modularity, IRS, explicitness, BetaVAE and FactorVAE scores: slow versions and special cases."""

from math import log

import numpy as np
import pytest
from metric_tables import grid, mixture
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

import dislab
from dislab.metrics.explicitness import area_under_curve
from dislab.metrics.factorvae_score import count_votes
from dislab.metrics.irs import deviations
from dislab.metrics.sap import fit_svms, squared_correlations, svm_accuracies
from dislab.scoring.readouts import Standardiser
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

# Slow versions ------------------------------------------------------------------------------------


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
    factors = grid((3, 4, 5), copies=2)
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
                position = (len(distances) - 1) * quantile
                below = int(position)
                above = min(below + 1, len(distances) - 1)
                far.append(distances[below] + (position - below) * (distances[above] - distances[below]))
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


def information_by_loops(codes, factors, num_bins=20):
    """Mutual informations [D, K] of binned codes and factors in nats, one cell of a table after the other."""
    informations = np.zeros((codes.shape[1], factors.shape[1]))
    for d, z in enumerate(codes.T.astype(float)):
        width = np.ptp(z) / num_bins
        bins = np.array([min(int((value - z.min()) / width), num_bins - 1) if width else 0 for value in z])
        for k, column in enumerate(factors.T):
            for b in set(bins):
                for value in set(column):
                    together = np.mean((bins == b) & (column == value))
                    if together:
                        apart = np.mean(bins == b) * np.mean(column == value)
                        informations[d, k] += together * log(together / apart)
    return informations


def test_mig_by_loops():
    factors = grid((3, 4, 5), copies=3)
    codes = np.insert(mixture(factors, 4, 0.3), 4, 2.5, axis=1)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["mig"], shuffle=False)
    gaps = []
    for column, informations in zip(factors.T, information_by_loops(codes, factors).T, strict=True):
        shares = [np.mean(column == value) for value in set(column)]
        first, second = sorted(informations, reverse=True)[:2]
        gaps.append((first - second) / -sum(share * log(share) for share in shares))
    assert scores["mig"] == pytest.approx(np.mean(gaps), abs=1e-9)
    assert scores.details["mig_per_factor"] == pytest.approx(gaps, abs=1e-9)


def test_modularity_by_loops():
    factors = grid((3, 4, 5), copies=3)
    codes = mixture(factors, 4, 0.5)
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["modularity"], shuffle=False)
    expected = []
    for informations in information_by_loops(codes, factors):
        best = max(informations)
        template = [best if information == best else 0.0 for information in informations]
        apart = sum((i - t) ** 2 for i, t in zip(informations, template, strict=True))
        expected.append(1 - apart / (best**2 * (len(informations) - 1)))
    assert scores["modularity"] == scores["modularity_active"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert scores.details["modularity_per_dimension"] == pytest.approx(expected, abs=1e-9)


class Recorder:
    """A table that notes which rows were drawn together."""

    def __init__(self, table):
        self.table, self.drawn = table, []
        self.mean, self.factors = table.mean, table.factors

    def __len__(self):
        return len(self.table)

    def sharing(self, rng, factor, rows):
        others = self.table.sharing(rng, factor, rows)
        self.drawn += [(factor, [first, *other]) for first, other in zip(rows[:, 0], others, strict=True)]
        return others


def test_factorvae_votes_by_loops():
    factors = grid((2, 3, 4))
    rng = np.random.default_rng(0)
    codes = factors @ rng.standard_normal((3, 5)) + 0.1 * rng.standard_normal((len(factors), 5))
    table = Recorder(CodeTable(codes, factors))
    variance, active = codes.var(axis=0, ddof=1), np.array([0, 1, 3, 4])
    votes = count_votes(table, np.random.default_rng(1), 200, 6, variance, active)
    expected = np.zeros((3, 4), dtype=int)
    for factor, rows in table.drawn:
        assert len(rows) == 6 and len({factors[row, factor] for row in rows}) == 1
        ratios = []
        for d in active:
            values = [float(table.mean[row, d]) for row in rows]
            centre = sum(values) / 6
            ratios.append(sum((v - centre) ** 2 for v in values) / 5 / variance[d])
        expected[factor, ratios.index(min(ratios))] += 1
    np.testing.assert_array_equal(votes, expected)
    assert votes.sum() == 200 and np.ptp(votes.sum(axis=1)) <= 1


def test_a_vote_is_made_of_64_images():
    # A port in the wild takes 6. Codes that are mostly noise tell the two apart: a variance of 6 images does
    # not show a difference of a quarter, one of 64 does.
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, size=(20_000, 2))
    codes = 0.6 * (factors - 1.5) / np.sqrt(1.25) + rng.standard_normal(factors.shape)
    table = CodeTable(codes, factors)
    assert score(table, ["factorvae_score"])["factorvae_score"] > 0.85
    assert score(table, ["factorvae_score"], batch_size=6)["factorvae_score"] < 0.7


# What is special ----------------------------------------------------------------------------------


def test_chunks_do_not_change_what_a_score_means(monkeypatch):
    from dislab.metrics import betavae_score, factorvae_score

    factors = grid((4, 5, 6), copies=20)
    codes = factors @ np.random.default_rng(0).standard_normal((3, 5))
    names = ["betavae_score", "factorvae_score"]
    whole = dislab.evaluate(codes=codes, factors=factors, metrics=names)
    monkeypatch.setattr(betavae_score, "CHUNK", 100_000)
    monkeypatch.setattr(factorvae_score, "CHUNK", 100_000)
    pieces = dislab.evaluate(codes=codes, factors=factors, metrics=names)
    for name in names:
        assert pieces[name] == pytest.approx(whole[name], abs=0.03)


def test_a_large_constant_dimension_beside_live_ones_takes_no_votes():
    factors = grid((4, 5, 6), copies=20)
    codes = np.column_stack([factors / [3, 4, 5], np.full(len(factors), 1234.567)])
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["factorvae_score"])
    assert scores["factorvae_score"] == 1
    assert scores["factorvae_score_active_dimensions"] == 3


def test_a_constant_dimension_counts_as_0_in_modularity_only():
    codes, factors = mixture(grid((4, 5, 6), copies=5), 5, 0.3), grid((4, 5, 6), copies=5)
    names = ["modularity", "explicitness", "irs", "sap"]
    before = dislab.evaluate(codes=codes, factors=factors, metrics=names)
    wider = np.insert(codes, 2, np.float32(1234.567), axis=1)
    after = dislab.evaluate(codes=wider, factors=factors, metrics=names)
    assert after["modularity"] == pytest.approx(before["modularity"] * 5 / 6, abs=1e-12)
    assert after["modularity_active"] == pytest.approx(before["modularity"], abs=1e-12)
    assert after.details["modularity_per_dimension"][2] == 0
    for name in ("explicitness", "explicitness_train", "irs", "sap"):  # a constant is never second best here
        assert after[name] == pytest.approx(before[name], abs=1e-12)
    assert after["explicitness_constant_dimensions"] == 1
    assert before["irs_active_dimensions"] == after["irs_active_dimensions"] == 5
    assert after.details["irs_per_dimension"][2] is None


def test_rounding_of_a_constant_is_not_a_dimension_of_irs():
    factors = grid((3, 4, 5), copies=20)
    codes = np.full((len(factors), 2), 0.1, dtype=np.float32)
    codes[::7, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    codes[:, 1] = factors[:, 1]
    scores = dislab.evaluate(codes=codes, factors=factors, metrics=["irs"])
    assert scores["irs"] == 1 and scores["irs_active_dimensions"] == 1


@pytest.mark.parametrize("continuous", [False, True])
def test_the_second_best_of_one_code_dimension(continuous):
    factors = grid((4, 5), copies=20)
    one, two = (
        score(CodeTable(codes, factors), ["mig", "sap"], continuous_factors=continuous)
        for codes in (factors[:, :1], np.pad(factors[:, :1], ((0, 0), (0, 1))))
    )
    assert one["mig"] == two["mig"] == pytest.approx(0.5)  # 0 for MIG
    assert one["sap"] == two["sap"] > 0.05  # a constant for SAP


def test_values_that_only_training_or_only_test_rows_have():
    factors = np.repeat([0, 1, 2, 0, 1, 3], 50)[:, None]
    codes = mixture(factors, 2, 2.0)
    settings = {"metrics": ["sap", "explicitness"], "shuffle": False, "num_train": 150, "num_test": 150}
    scores = dislab.evaluate(codes=codes, factors=factors, **settings)
    assert 0 <= scores["sap"] <= 1
    inputs, unseen = (Standardiser(codes[:150])(rows) for rows in (codes[:150], codes[150:]))
    shares = LogisticRegression().fit(inputs, factors[:150, 0]).predict_proba(unseen)
    expected = [roc_auc_score(factors[150:, 0] == value, shares[:, value]) for value in (0, 1)]
    assert scores["explicitness"] == pytest.approx(np.mean(expected), abs=0.005)
    with pytest.raises(dislab.DislabError, match="test rows"):
        dislab.evaluate(
            codes=codes, factors=factors, **(settings | {"num_test": 50, "metrics": "explicitness"})
        )
    with pytest.raises(dislab.DislabError, match="num_test is 0: it must be"):
        dislab.evaluate(codes=codes, factors=factors, **(settings | {"num_test": 0, "metrics": "sap"}))


def test_points_of_a_single_factor_are_refused():
    factors = grid((2, 3))
    with pytest.raises(dislab.DislabError, match="only one of the factors"):
        dislab.evaluate(codes=factors.astype(float), factors=factors, metrics=["betavae_score"], num_train=1)
