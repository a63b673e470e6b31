"""DCI: the joint trees against scikit-learn's, scores of importances in closed form, and what is special."""

from math import log

import numpy as np
import pytest
import torch
from metric_tables import (
    grid,
    one_thread,  # noqa: F401 (a fixture)
)

from dislab.metrics import dci
from dislab.metrics.dci import importance_scores
from dislab.registry import METRICS
from dislab.scoring import boosting
from dislab.scoring.boosting import gradient_boosting, joint_boosting
from dislab.scoring.request import asked
from dislab.scoring.score import SLOW, compute, score
from dislab.scoring.table import CodeTable


def drawn(num_rows=700, seed=0):
    """Codes of three kinds, among them ties and a constant, and factors of 2, 3 and 5 values."""
    rng = np.random.default_rng(seed)
    factors = np.column_stack([rng.integers(size, size=num_rows) for size in (2, 3, 5)])
    mixed = factors @ rng.standard_normal((3, 3)) + 0.7 * rng.standard_normal((num_rows, 3))
    rounded = (factors[:, 2] + rng.standard_normal(num_rows)).round(1)
    codes = np.column_stack([mixed, rounded, np.full(num_rows, 0.1)])
    return codes.astype(np.float32), factors


def test_joint_trees_are_those_of_scikit_learn():
    codes, factors = drawn()
    arrays = codes[:397], factors[:397], codes[397:]
    theirs = gradient_boosting(*arrays, np.random.default_rng(0))
    ours = joint_boosting(*arrays, np.random.default_rng(0))
    np.testing.assert_allclose(ours.importance.sum(axis=0), 1)
    # Two seeds of scikit-learn's differ by 0.01 and in 2% of the test rows: equally good splits.
    np.testing.assert_allclose(ours.importance, theirs.importance, rtol=0, atol=0.02)
    assert (ours.train == theirs.train).mean() > 0.98
    assert (ours.test == theirs.test).mean() > 0.95


def test_small_chunks_change_little(monkeypatch):
    codes, factors = drawn()
    arrays = codes[:600], factors[:600], codes[600:]
    whole = joint_boosting(*arrays, np.random.default_rng(0), 30)
    monkeypatch.setattr(boosting, "CHUNK", 2 * 1600)  # two trees at a time
    pieces = joint_boosting(*arrays, np.random.default_rng(0), 30)
    np.testing.assert_allclose(pieces.importance, whole.importance, rtol=0, atol=0.02)


# From importances to scores -----------------------------------------------------------------------


def test_scores_of_an_importance_matrix_by_loops():
    importance = np.random.default_rng(0).dirichlet([0.5] * 4, size=3).T
    importance[2] = 0
    importance /= importance.sum(axis=0)
    disentanglement = completeness = 0.0
    for d in range(4):
        share = importance[d] / max(importance[d].sum(), 1e-300)
        entropy = -sum(p * log(p, 3) for p in share if p)
        disentanglement += importance[d].sum() / importance.sum() * (1 - entropy)
    for k in range(3):
        completeness += (1 + sum(p * log(p, 4) for p in importance[:, k] if p)) / 3
    scores = importance_scores(importance)
    assert scores.disentanglement == pytest.approx(disentanglement, abs=1e-8)
    assert scores.completeness == pytest.approx(completeness, abs=1e-8)
    assert scores.per_code.shape == (4,) and scores.per_factor.shape == (3,)


def test_importance_matrices_with_known_scores():
    assert importance_scores(np.eye(5) * 3)[:2] == pytest.approx((1, 1))
    assert importance_scores(np.vstack([np.eye(3), np.zeros((1, 3))]))[:2] == pytest.approx((1, 1))
    assert importance_scores(np.zeros((4, 3)))[:2] == pytest.approx((0, 0))
    assert importance_scores(np.ones((4, 3)))[:2] == pytest.approx((0, 0))
    # Each factor in two equal dimensions: 1 - ln 2 / ln D.
    assert importance_scores(np.vstack([np.eye(3), np.eye(3)]))[:2] == pytest.approx((1, 1 - log(2, 6)))
    assert importance_scores(np.array([[1.0, 1.0]]))[:2] == pytest.approx((0, 1))  # one dimension
    assert importance_scores(np.array([[1.0], [1.0]]))[:2] == pytest.approx((1, 0))  # one factor
    assert importance_scores(np.zeros((1, 1)))[:2] == (0, 0)


# What is special ----------------------------------------------------------------------------------


SMALL = {"num_train": 400, "num_test": 200, "num_rounds": 30}
both = pytest.mark.parametrize("name", ["dci", "dci_fast"])


def scores_of(name, codes, factors, **options):
    """The scores with fewer trees, which are enough for codes without noise."""
    scores = score(CodeTable(codes + 0.0, factors, **options), [name], **SMALL)
    assert not scores.failed
    return scores


@both
def test_importances_of_perfect_codes_and_of_twins(name):
    factors = grid((2, 3, 4), 25)
    codes = factors[:, [2, 0, 1]] * [1.0, -3.0, 0.01]
    perfect = scores_of(name, codes, factors)
    importance = np.array(perfect.details[f"{name}_disentanglement_importance"])
    np.testing.assert_allclose(importance, np.eye(3)[[2, 0, 1]], atol=1e-6)
    twins = scores_of(name, np.hstack([codes, codes]), factors)
    assert twins[f"{name}_disentanglement"] == pytest.approx(1, abs=1e-6)
    assert twins[f"{name}_completeness"] == pytest.approx(1 - log(2, 6), abs=0.08)
    for column in np.array(twins.details[f"{name}_disentanglement_importance"]).T:
        # Over seeds the share of a twin has a standard deviation of 0.14 for the factor of two values.
        assert (np.sort(column)[-2:] > 0.1).all()


@both
def test_one_dimension_and_one_factor(name):
    factors = grid((3, 4), 50)
    scores = scores_of(name, factors[:, :1], factors)
    # Importances sum to 1 for every factor that has a split at all, however little it tells.
    assert scores[f"{name}_disentanglement"] == pytest.approx(0, abs=1e-6)
    assert scores[f"{name}_completeness"] == 1
    scores = scores_of(name, factors, factors[:, 1])
    assert scores[f"{name}_disentanglement"] == 1 and scores[f"{name}_completeness"] > 0.9


@both
def test_values_are_names(name):
    factors = grid((3, 4), 50)
    gaps = np.column_stack([np.array([0, 5, 9])[factors[:, 0]], factors[:, 1] + 40])
    assert scores_of(name, factors, gaps)[f"{name}_informativeness"] == 1
    factors = np.column_stack([np.arange(600) % 3, np.arange(600) % 2])
    factors[400:, 0] = 7  # the training rows do not have that value
    scores = scores_of(name, factors, factors, ordered=True)
    assert scores.details[f"{name}_informativeness_per_factor"] == [0, 1]


@both
def test_a_constant_factor_has_no_importances(name):
    varying = grid((3, 4), 50)
    factors = np.insert(varying, 1, 2, axis=1)
    importance = scores_of(name, varying, factors).details[f"{name}_disentanglement_importance"]
    assert [row[1] for row in importance] == [None, None]


@both
def test_large_codes(name):
    factors = grid((3, 4), 50)
    scores = scores_of(name, factors * 1e30 - 1e30, factors)
    for part in ("disentanglement", "completeness", "informativeness"):
        assert scores[f"{name}_{part}"] == pytest.approx(1, abs=1e-6)


def test_scores_that_take_minutes_are_computed_only_when_named():
    assert all(entry.slow is True for entry in METRICS.choose(["dci"]))
    usual, wide = (CodeTable(np.ones((30_000, size)), np.arange(30_000)[:, None] % 57) for size in (10, 200))
    assert all(not entry.slow(usual) and entry.slow(wide) for entry in METRICS.choose(["dci_fast"]))


def test_fast_trees_are_left_out_of_large_tables_unless_they_are_named(monkeypatch):
    monkeypatch.setattr(dci, "MOST_SECONDS", 0.05)
    factors = np.arange(400)[:, None] % 20
    table = CodeTable(np.random.default_rng(0).standard_normal((400, 10)), factors)
    (slow,) = {entry.slow for entry in METRICS.choose(["dci_fast"])}
    assert slow(table)
    wanted = {name: one for name, one in asked("default").items() if name.startswith("dci_fast")}
    assert compute(wanted, table, 0).left_out == dict.fromkeys(wanted, SLOW)
    named = asked("dci_fast", metric_settings={"dci_fast": {"num_rounds": 1}})
    assert "dci_fast_completeness" in compute(named, table, 0)


def best_cut(codes, rows, values):
    """Gain, dimension and threshold of the best of all cuts of all dimensions."""
    found = (0.0, 0, 0.0)
    for dimension, column in enumerate(codes[rows].astype(np.float64).T):
        order = column.argsort()
        column, number = column[order], np.arange(1, len(rows))
        fall = len(rows) * (values[order].cumsum()[:-1] - number * values.mean()) ** 2
        fall = np.where(column[1:] > column[:-1], fall / (number * number[::-1]), 0)
        if len(fall) and fall.max() > found[0]:
            cut = fall.argmax()
            found = (fall[cut], dimension, (column[cut] + column[cut + 1]) / 2)
    return found


def nodes_of(trees, tree, codes):
    """The rows of every node of a tree."""
    nodes = [np.arange(len(codes))]
    for node in range(7):
        rows = nodes[node]
        left = codes[rows, trees.dimension[tree, node]] <= float(trees.threshold[tree, node])
        nodes += [rows[left], rows[~left]]
    return nodes[:7]


def test_every_cut_is_tried_if_every_code_has_a_bin():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((160, 3)).round(1).astype(np.float32)
    gradient = torch.from_numpy(rng.standard_normal((160, 4)).astype(np.float32))
    trees = boosting.Grower(boosting.Bins(codes), torch.Generator()).trees(gradient)
    for tree in range(4):
        for node, rows in enumerate(nodes_of(trees, tree, codes)):
            values = gradient[rows, tree].numpy().astype(np.float64)
            gain, dimension, threshold = best_cut(codes, rows, values)
            assert trees.gain[tree, node] == pytest.approx(gain, rel=1e-3)
            if len(rows) > 3:  # fewer are often split as well in one dimension as in another
                assert trees.dimension[tree, node] == dimension
                assert trees.threshold[tree, node] == pytest.approx(threshold, abs=1e-6)


def test_cuts_are_nearly_the_best_ones():
    """In noise too, where the best cut often parts a few rows from the end of a node."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((6000, 4)).astype(np.float32)
    codes[:, 3] = codes[:, 3].round(1)
    codes[:4000, 2] = 0
    kind = (codes[:, 0] > 0.3) + 2 * (codes[:, 1] > -0.7)
    values = 0.3 * (kind[:, None] == np.arange(12) % 6) + rng.standard_normal((6000, 12))
    gradient = torch.from_numpy(values.astype(np.float32))
    trees = boosting.Grower(boosting.Bins(codes), torch.Generator()).trees(gradient)
    shares = []
    for tree in range(12):
        for node, rows in enumerate(nodes_of(trees, tree, codes)):
            if len(rows) < 2:
                continue
            values = gradient[rows, tree].numpy().astype(np.float64)
            left = codes[rows, trees.dimension[tree, node]] <= float(trees.threshold[tree, node])
            ours = len(rows) * (values[left].sum() - left.sum() * values.mean()) ** 2
            ours /= left.sum() * (~left).sum()
            assert trees.gain[tree, node] == pytest.approx(ours, rel=1e-3)
            shares.append(ours / best_cut(codes, rows, values)[0])
    assert max(shares) < 1 + 1e-6 and np.mean(shares) > 0.98 and min(shares) > 0.7


def test_bins_hold_every_row_once_and_equal_codes_together():
    codes = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)
    codes[:, 1] = codes[:, 1].round(1)
    codes[:2000, 2] = 0
    bins = boosting.Bins(codes)  # usually of 10 rows
    sizes = bins.sizes.view(3, -1).int()
    for column, of_dimension, rows in zip(codes.T, sizes, bins.rows.view(3, -1, 20), strict=True):
        ordered, end = np.sort(column), 0
        for size, first in zip(of_dimension.tolist(), rows, strict=True):
            end += size
            held = ordered[end - size : end]
            assert size <= 20 or held[0] == held[-1]
            assert end in (0, 3000) or not size or ordered[end - 1] < ordered[end]
            np.testing.assert_array_equal(column[first[:size]], held[:20])
        assert end == 3000
    assert (sizes[0, :4] == 1).all() and sizes[0].max() > 5 and sizes[2].max() == 2000
    every = bins.sums(torch.ones(3000, 1))
    np.testing.assert_array_equal(every[0], bins.sizes)


def test_a_leaf_of_a_value_that_seems_impossible_does_not_spoil_the_others():
    """Its step would be infinite in float32: the row of value 2 has the code of rows of value 0."""
    codes = np.zeros((6000, 1), dtype=np.float32)
    codes[:4] = 1
    factors = np.arange(6000)[:, None] % 2
    factors[:4] = 0
    factors[0] = 2
    boosted = joint_boosting(codes, factors, codes, np.random.default_rng(0), 5)
    assert boosted.importance == 1
    np.testing.assert_array_equal(boosted.train, boosted.test)
