"""Compare learners that may replace scikit-learn's gradient boosting in DCI: differences and seconds.

    OMP_NUM_THREADS=1 python -m dislab.benchmarks.dci_learners GOLDENS [--learners …] [--cases …]

GOLDENS is a folder with the reference library's scores: `goldens.json`, whose records of the metric
`dci_3000` (or `dci_10000`) hold `case` and `value`, and for each case an .npz file with `codes` and
`factors`, training rows from row 0, test rows from row 10,000. For every learner the table says, over the
cases: the rank correlation (Spearman) of disentanglement and of completeness with the reference's, the
largest difference of these and of the informativeness on test rows, and the processor's seconds per case.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dislab.metrics.dci import importance_scores
from dislab.scoring.boosting import Boosted, gradient_boosting, joint_boosting

TEST_ROWS = {3000: 2000, 10_000: 5000}


def one_per_factor(make: Callable, importance: Callable | None = None) -> Callable[..., Boosted]:
    """Return a learner that fits make(seed), a scikit-learn classifier, to every factor."""

    def learner(codes, factors, test_codes, rng) -> Boosted:
        columns = []
        for values in factors.T:
            classifier = make(int(rng.integers(2**31))).fit(codes, values)
            gains = importance(classifier) if importance else classifier.feature_importances_
            columns.append((gains, classifier.predict(codes), classifier.predict(test_codes)))
        return Boosted(*(np.stack(parts, axis=1) for parts in zip(*columns, strict=True)))

    return learner


def boosted_in_bins(num_bins: int) -> Callable[..., Boosted]:
    """Return joint_boosting of codes that are replaced by bins of equally many training rows."""

    def learner(codes, factors, test_codes, rng) -> Boosted:
        edges = np.quantile(codes, np.arange(1, num_bins) / num_bins, axis=0, method="lower")
        codes, test_codes = (
            np.stack(
                [np.searchsorted(edge, column) for edge, column in zip(edges.T, z.T, strict=True)], axis=1
            ).astype(np.float32)
            for z in (codes, test_codes)
        )
        return joint_boosting(codes, factors, test_codes, rng)

    return learner


def fewer_rows(num_rows: int) -> Callable[..., Boosted]:
    """Return gradient_boosting on the first rows."""

    def learner(codes, factors, test_codes, rng) -> Boosted:
        return gradient_boosting(codes[:num_rows], factors[:num_rows], test_codes, rng)

    return learner


def histogram_boosting(seed: int):
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=100,
        max_depth=3,
        max_leaf_nodes=None,
        min_samples_leaf=1,
        early_stopping=False,
        random_state=seed,
    )


def histogram_gains(classifier) -> np.ndarray:
    """Return gains by dimension, normalised; scikit-learn has them in private attributes only."""
    gains = np.zeros(classifier.n_features_in_)
    for trees in classifier._predictors:
        for tree in trees:
            inner = tree.nodes[tree.nodes["is_leaf"] == 0]
            np.add.at(gains, inner["feature_idx"], inner["gain"])
    return gains / gains.sum() if gains.any() else gains


def short_boosting(seed: int):
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=10, random_state=seed)


def forest(seed: int):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(random_state=seed)


def extra_trees(seed: int):
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(max_features=None, random_state=seed)


def single_tree(seed: int):
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(min_samples_leaf=5, random_state=seed)


LEARNERS = {
    "joint": joint_boosting,  # what dci_fast uses
    "bins256": boosted_in_bins(256),
    "histogram": one_per_factor(histogram_boosting, histogram_gains),
    "rounds10": one_per_factor(short_boosting),
    "rows1000": fewer_rows(1000),
    "forest": one_per_factor(forest),
    "extra": one_per_factor(extra_trees),
    "tree": one_per_factor(single_tree),
    "sklearn": gradient_boosting,  # what dci uses: minutes per case
}


def compare(
    learner: Callable[..., Boosted], folder: Path, records: list, num_train: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return disentanglement, completeness and informativeness, float64 [cases, 3], and seconds [cases]."""
    test = slice(10_000, 10_000 + TEST_ROWS[num_train])
    scores, seconds = [], []
    for record in records:
        file = np.load(folder / f"{record['case']}.npz")
        codes, factors = file["codes"], file["factors"].astype(np.int64)
        begin = time.process_time()
        readout = learner(codes[:num_train], factors[:num_train], codes[test], np.random.default_rng(0))
        seconds.append(time.process_time() - begin)
        accuracy = (readout.test == factors[test]).mean()
        scores.append([*importance_scores(readout.importance)[:2], accuracy])
    return np.array(scores), np.array(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("goldens", type=Path)
    parser.add_argument("--rows", type=int, default=3000, choices=TEST_ROWS, help="training rows")
    parser.add_argument(
        "--learners",
        nargs="+",
        choices=LEARNERS,
        default=[name for name in LEARNERS if name != "sklearn"],
        help="all but sklearn by default",
    )
    parser.add_argument("--cases", nargs="+", help="all by default")
    parser.add_argument("--each", action="store_true", help="also print the differences of every case")
    given = parser.parse_args()
    records = json.loads((given.goldens / "goldens.json").read_text())["records"]
    records = [record for record in records if record["metric"] == f"dci_{given.rows}"]
    records = [record for record in records if not given.cases or record["case"] in given.cases]
    parts = ("disentanglement", "completeness", "informativeness_test")
    reference = np.array([[record["value"][part] for part in parts] for record in records])
    print(f"{len(records)} cases of {given.rows} rows; differences from the reference's scores")
    print("            rank correlation   largest difference        seconds")
    print("learner        D      C          D      C      I      mean    max")
    for name in given.learners:
        scores, seconds = compare(LEARNERS[name], given.goldens, records, given.rows)
        # Rounded, as the many perfect cases are ordered by rounding errors.
        ranks = [
            spearmanr(scores[:, part].round(3), reference[:, part].round(3)).statistic for part in (0, 1)
        ]
        largest = np.abs(scores - reference).max(axis=0)
        print(
            f"{name:10} {ranks[0]:7.3f}{ranks[1]:7.3f}    {largest[0]:7.4f}{largest[1]:7.4f}{largest[2]:7.4f}"
            f"  {seconds.mean():7.1f}{seconds.max():7.1f}",
            flush=True,
        )
        for record, difference in zip(records if given.each else [], scores - reference, strict=False):
            print(f"    {record['case']:30}" + "".join(f"{value:9.4f}" for value in difference), flush=True)


if __name__ == "__main__":
    main()
