"""Separated attribute predictability: does one code dimension predict a factor best by far?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.information import gaps
from dislab.scoring.readouts import Standardiser
from dislab.scoring.scale import has_usual_scale, remark_on_scale
from dislab.scoring.table import CodeTable, Sample, by_value

C = 0.01  # weight of the hinge losses against the penalty, as in Locatello et al. 2019
LEAST_VARIANCE = 1e-12  # a code dimension below it predicts nothing (continuous factors)


@register_metric(
    "sap",
    title="SAP score (linear SVM per code dimension)",
    reference="Kumar et al. 2018 (DIP-VAE); protocol of Locatello et al. 2019",
    low=0.0,
    high=1.0,
    needs=("factor",),
)
def sap(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    continuous_factors: bool = False,
) -> dict:
    """Return SAP = 1/K Σ_k ( S_(1)k - S_(2)k ), with the two best code dimensions for each factor.

    S_dk is the accuracy on the test rows of a linear SVM that reads factor k from the scalar z_d
    (`svm_accuracies`), or with `continuous_factors` their squared correlation on the training rows. The score
    depends on the scale of the codes, as the SVM is strongly penalised, and on a factor's number of values:
    even from a perfect scalar code a linear SVM can single out only a few of many values. With one code
    dimension the second best is a constant.

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
    sample = table.draw(rng, num_train, num_test)
    gap = predictability_gaps(sample, continuous_factors)
    if not has_usual_scale(sample.codes):
        standardise = Standardiser(sample.codes)
        unit = sample._replace(codes=standardise(sample.codes), test_codes=standardise(sample.test_codes))
        why = "its SVMs are penalised, which depends on the codes' scale and offset"
        if continuous_factors:
            why = f"a dimension of variance {LEAST_VARIANCE:g} or less counts as constant"
        remark_on_scale("sap", gap.mean(), predictability_gaps(unit, continuous_factors).mean(), why)
    return {"sap": gap.mean(), "sap_per_factor": sample.per_factor(gap)}


def predictability_gaps(sample: Sample, continuous_factors: bool) -> np.ndarray:
    """Return S_(1)k - S_(2)k of every factor, float64 [V]."""
    codes, unseen = sample.codes.astype(np.float64), sample.test_codes.astype(np.float64)
    if codes.shape[1] == 1:
        codes, unseen = np.pad(codes, ((0, 0), (0, 1))), np.pad(unseen, ((0, 0), (0, 1)))
    if continuous_factors:
        return gaps(squared_correlations(codes, sample.factors))
    return gaps(svm_accuracies(codes, sample.factors, unseen, sample.test_factors))


def squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return Cov(z_d, f_k)² / (Var z_d Var f_k), float64 [D, K]; 0 for a dimension of variance 1e-12 or less.

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
    """Return the test accuracy of an SVM for every pair of code dimension and factor, float64 [D, K].

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
    """Fit the SVMs of scikit-learn's `LinearSVC(C=0.01, class_weight="balanced")` on one code dimension.

    Each class c has an SVM against the rest: with y_i = 1 in class c and -1 elsewhere

        min over w, β of  ½ (w² + β²) + C Σ_i c_i max(0, 1 - y_i (w z_i + β))².

    "Balanced" means c_i = N / (n N_c) within class c, but 1 for the rest. Two classes have one SVM, for the
    second of them, with N / (2 N_c) on both sides. LinearSVC itself takes 8 times as long on golden tables.
    At its default tolerance it stops short of the minimum: accuracies are off by up to 0.005 there, and by up
    to 0.4 for codes far from 0.

    The loss is quadratic as long as the same points lie within the margins. These points are an interval of
    the sorted codes, so that sums over them are differences of prefix sums. A Newton step, halved until it
    descends, costs a binary search and no pass over the points, and the last step ends at the minimum.

    Parameters
    ----------
    codes : float64 [N], z standardised: u = (z - center) / scale. The problem is that of z; the sums are over
        u, because sums of squares of codes far from 0 lose their digits.
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
    by_class = by_value(classes)
    keys = classes[by_class] * num_points + by_class  # ascending: position within class after class
    powers = codes ** np.arange(3)[:, None]
    all_sums = np.pad(powers.cumsum(axis=1), ((0, 0), (1, 0)))  # [3, N + 1]: number, Σ u, Σ u² of the first i
    class_sums = np.pad(powers[:, by_class].cumsum(axis=1), ((0, 0), (1, 0)))
    start = (np.cumsum(sizes) - sizes)[targets]
    class_total = class_sums[:, start + sizes[targets]] - class_sums[:, start]
    rest_total = all_sums[:, -1:] - class_total

    # w = slope / scale and β = offset - slope * center / scale: the penalty is ½ (slope, offset) P (…)ᵀ.
    # For codes of a standard deviation of 3e4 and more, a penalty on w that is too small to matter is kept.
    shift, least = center / scale, max(1 / scale**2, 1e-9)
    penalty = np.array([[least + shift**2, -shift], [-shift, 1.0]])

    def first_points(threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sums [3, n] over the points of each class and of its rest with u < threshold [n]."""
        position = np.searchsorted(codes, threshold)
        within = class_sums[:, np.searchsorted(keys, targets * num_points + position)] - class_sums[:, start]
        return within, all_sums[:, position] - within

    def quadratic(solution: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the loss [n] at solution [n, 2], and Hessian [n, 2, 2] and minimum [n, 2] of its piece."""
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
        # Cramer's rule. The penalty alone has the determinant `least`, which shift² would swallow.
        determinant = (1 + number) * least + second + shift * (2 * first + shift * number)
        determinant += number * second - first**2
        (a, b), (_, d) = hessian.transpose(1, 2, 0)
        minimum = np.stack([d * pull[:, 0] - b * pull[:, 1], a * pull[:, 1] - b * pull[:, 0]], axis=1)
        return loss, hessian, minimum / determinant[:, None]

    solution = np.zeros((len(targets), 2))
    for _ in range(100):  # about ten are needed
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
