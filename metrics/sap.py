"""Separated attribute predictability: does one code dimension predict a factor much better than any other?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable

C = 0.01  # weight of the hinge losses against the penalty, as in Locatello et al. 2019
LEAST_VARIANCE = 1e-12  # a code dimension below it predicts nothing (continuous factors)


@register_metric(
    "sap",
    title="SAP score (linear SVM per code dimension)",
    reference="Kumar et al. 2018 (DIP-VAE); protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
)
def sap(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    continuous_factors: bool = False,
) -> dict:
    """SAP = 1/K Σ_k ( S_(1)k - S_(2)k ), with the two best predictions of each factor by one code dimension.

    S_dk is the accuracy on the test rows of a linear SVM that reads factor k from the scalar z_d
    (`svm_accuracies`), or with `continuous_factors` their squared correlation on the training rows. The score
    depends on the scale of the codes, as the SVM is strongly penalised, and on a factor's number of values:
    even a perfect scalar code lets it single out few of many values. With one code dimension the second best
    is a constant.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single training value are left out.
    num_train, num_test : rows that the SVMs are fitted to and tested on.
    continuous_factors : take factor values as quantities, S_dk = Cov(z_d, f_k)² / (Var z_d Var f_k).

    Returns
    -------
    sap : in [0, 1].
    sap_per_factor : the gap of every factor (None for one that is left out).
    """
    train, test = table.split(rng, num_train, num_test)
    varying = np.ptp(table.factors[train], axis=0) > 0
    if not varying.any():
        raise DislabError(
            f"sap needs a factor that varies, but all are constant in the {len(train)} rows used"
        )
    codes, unseen = (table.mean[rows].astype(np.float64) for rows in (train, test))
    if codes.shape[1] == 1:
        codes, unseen = np.pad(codes, ((0, 0), (0, 1))), np.pad(unseen, ((0, 0), (0, 1)))
    factors = table.factors[train][:, varying]
    if continuous_factors:
        predictions = squared_correlations(codes, factors)
    elif len(test):
        predictions = svm_accuracies(codes, factors, unseen, table.factors[test][:, varying])
    else:
        raise DislabError(f"sap needs rows to test on, but the {len(train)} rows are all used for training")
    ranked = np.sort(predictions, axis=0)
    gaps = ranked[-1] - ranked[-2]
    per_factor = np.full(len(varying), None)
    per_factor[varying] = gaps
    return {"sap": gaps.mean(), "sap_per_factor": per_factor}


def squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Cov(z_d, f_k)² / (Var z_d Var f_k), float64 [D, K]; 0 for a dimension of variance 1e-12 or less.

    Parameters
    ----------
    codes : float64 [N, D].
    factors : int [N, K], every column varies.
    """
    codes, factors = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    degrees = len(codes) - 1
    variance = (codes**2).sum(axis=0) / degrees
    covariance = codes.T @ factors / degrees
    product = variance[:, None] * (factors**2).sum(axis=0) / degrees
    alive = np.broadcast_to(variance[:, None] > LEAST_VARIANCE, product.shape)
    return np.divide(covariance**2, product, out=np.zeros_like(product), where=alive)


def svm_accuracies(train_codes, train_factors, test_codes, test_factors) -> np.ndarray:
    """Accuracy on the test rows of an SVM for every pair of code dimension and factor, float64 [D, K].

    Parameters
    ----------
    train_codes, test_codes : float64 [N, D].
    train_factors, test_factors : int [N, K]; a value that no training row has counts as an error.
    """
    accuracies = np.empty((train_codes.shape[1], train_factors.shape[1]))
    for k, (column, truth) in enumerate(zip(train_factors.T, test_factors.T, strict=True)):
        values, classes = np.unique(column, return_inverse=True)
        for d, (codes, unseen) in enumerate(zip(train_codes.T, test_codes.T, strict=True)):
            center, scale = codes.mean(), codes.std()
            scale = scale if scale > 0 else 1.0
            slope, offset = fit_svms((codes - center) / scale, classes, center, scale)
            decisions = (unseen[:, None] - center) / scale * slope + offset
            if len(values) == 2:
                decisions = np.hstack([np.zeros_like(decisions), decisions])
            accuracies[d, k] = (values[decisions.argmax(axis=1)] == truth).mean()
    return accuracies


def fit_svms(
    codes: np.ndarray, classes: np.ndarray, center: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The SVMs of scikit-learn's `LinearSVC(C=0.01, class_weight="balanced")` on one code dimension.

    One SVM per class c against the rest, exact and all at once: with y_i = 1 in class c and -1 elsewhere

        min over w, β of  ½ (w² + β²) + C Σ_i c_i max(0, 1 - y_i (w z_i + β))².

    "Balanced" says less than it promises: c_i = N / (n N_c) within class c, but 1 for the rest. Two classes
    have one SVM, for the second of them, with N / (2 N_c) on both sides.

    The loss is quadratic as long as the same points lie within the margins, and these are a stretch of the
    sorted codes: sums over them are differences of prefix sums. A Newton step, halved until it descends,
    therefore costs a binary search, not a pass over the points, and the last one lands on the minimum.

    Parameters
    ----------
    codes : float64 [N], z standardised: u = (z - center) / scale. The SVM sees z, but sums of squares of
        codes far from 0 would lose their digits.
    classes : int [N], 0 .. n - 1, each of them present.

    Returns
    -------
    slope, offset : float64 [n] ([1] where n = 2), the decision values slope * u + offset.
    """
    num_points, sizes = len(codes), np.bincount(classes)
    targets = np.arange(len(sizes)) if len(sizes) > 2 else np.array([1])
    balanced = num_points / (len(sizes) * sizes)
    weight = balanced[targets]
    rest_weight = np.ones(len(sizes)) if len(sizes) > 2 else balanced[:1]

    order = np.argsort(codes, kind="stable")
    codes, classes = codes[order], classes[order]
    by_class = np.argsort(classes, kind="stable")
    keys = classes[by_class] * num_points + by_class  # ascending: position within class after class
    powers = codes ** np.arange(3)[:, None]
    all_sums = np.pad(powers.cumsum(axis=1), ((0, 0), (1, 0)))  # [3, N + 1]: number, Σ u, Σ u² of the first i
    class_sums = np.pad(powers[:, by_class].cumsum(axis=1), ((0, 0), (1, 0)))
    start = (np.cumsum(sizes) - sizes)[targets]
    class_total = class_sums[:, start + sizes[targets]] - class_sums[:, start]
    rest_total = all_sums[:, -1:] - class_total

    # w = slope / scale and β = offset - slope * center / scale: the penalty is ½ (slope, offset) P (…)ᵀ.
    shift = center / scale
    penalty = np.array([[1 / scale**2 + shift**2, -shift], [-shift, 1.0]])

    def first_points(threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums [3, n] over the points of each class, and over those of its rest, with u < threshold [n]."""
        position = np.searchsorted(codes, threshold)
        within = class_sums[:, np.searchsorted(keys, targets * num_points + position)] - class_sums[:, start]
        return within, all_sums[:, position] - within

    def quadratic(solution: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss [n] at solution [n, 2], and the Hessian [n, 2, 2] and target [n, 2] of its quadratic piece."""
        slope, offset = solution.T + 0.0  # -0.0 would send the thresholds to the wrong side
        with np.errstate(divide="ignore", invalid="ignore"):
            class_below, _ = first_points((1 - offset) / slope)
            _, rest_below = first_points((-1 - offset) / slope)
        inside = np.where(slope >= 0, class_below, class_total - class_below)
        rest_inside = np.where(slope >= 0, rest_total - rest_below, rest_below)
        number, first, second = 2 * C * (weight * inside + rest_weight * rest_inside)
        hessian = penalty + np.stack([second, first, first, number], axis=-1).reshape(-1, 2, 2)
        pull = 2 * C * (weight * inside - rest_weight * rest_inside)[1::-1].T
        bent = (hessian @ solution[:, :, None])[:, :, 0]
        loss = (solution * (bent / 2 - pull)).sum(axis=1) + number / 2
        return loss, hessian, np.linalg.solve(hessian, pull[:, :, None])[:, :, 0]

    solution = np.zeros((len(targets), 2))
    for _ in range(100):  # some ten are needed
        loss, hessian, target = quadratic(solution)
        direction = target - solution
        decrease = np.einsum("ni,nij,nj->n", direction, hessian, direction)
        if (decrease <= 1e-18 * loss).all():
            break
        step = np.ones_like(loss)
        for _ in range(30):
            rises = (
                quadratic(solution + step[:, None] * direction)[0]
                > loss * (1 + 1e-12) - 1e-4 * step * decrease
            )
            if not rises.any():
                break
            step[rises] /= 2
        solution = solution + step[:, None] * direction
    return solution[:, 0], solution[:, 1]
