"""Does the content code know the class, and the style code not? Accuracies and conditional entropies."""

from __future__ import annotations

import copy

import numpy as np
from scipy.special import softmax

from dislab.registry import register_metric
from dislab.scoring.table import CodeTable

IMAGES = (1, 2, 3, 5, 10)  # images of one class whose evidence is accumulated in a test draw
MOST_DRAWS = 20_000  # over all classes: for the 183 of Cars3D, 50,000 take twice as long for nothing
REFERENCE = "Bouchacourt et al. 2017 (ML-VAE), section 4, eq. 8"


@register_metric(
    "content_accuracy",
    title="Accuracy of the class from the content code of one image",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("groups",),
)
@register_metric(
    "content_entropy",
    title="Upper bound on H(class | content code of one image), bits",
    reference=REFERENCE,
    low=0.0,
    direction="down",
    needs=("groups",),
)
def content_scores(table: CodeTable, rng: np.random.Generator, *, num_draws: int = 500) -> dict:
    """What a classifier reads of the class from the content code, by the number of images that are joined.

    A draw takes k images of one class; its feature is the mean of the product of their Normals. One
    classifier is trained on draws of K = 10 images (fewer where half a class has fewer) and tested on draws
    of k <= K images of other rows, with equal numbers per class: the rows that the dataset marks as `tested`,
    or else a random half of each class. For k > 1 the true class says which images
    belong together. A table without a block "content" is read as a whole.

    Parameters
    ----------
    table : codes [N, D], the classes of the rows in `labels` [N, G], log-variances where it has them. With
        several groupings each has its own content code, and a score is the mean over them.
    num_draws : training draws per class; fewer where there are more than 40 classes.

    Returns
    -------
    content_accuracy, content_entropy : at k = 1; accuracy in [0, 1], cross-entropy in bits.
    content_entropy_calibrated : at k = 1, after the classifier's confidence is set (`best_temperature`): a
        classifier of ten images is too sure of one, so that the plain bound can lie above log2 C.
    content_accuracy_k10, content_entropy_k10 : at k = 10, where K is that large.
    content_accuracy_chance, content_entropy_of_class : a code that knows nothing: 1 / C and log2 C.
    content_accuracy_curve, content_entropy_curve : lists of [k, value].
    content_accuracy_per_grouping, content_entropy_per_grouping : at k = 1, where there are several.
    """
    curves = class_curves(table, "content", rng, num_draws, max_images=max(IMAGES))
    scores = {}
    for column, name in enumerate(("content_accuracy", "content_entropy"), start=1):
        values = {row[0]: row[column] for row in np.mean(curves, axis=0)}
        scores[name] = values[1]
        if 10 in values:
            scores[name + "_k10"] = values[10]
        scores[name + "_curve"] = [[int(k), value] for k, value in values.items()]
        if len(curves) > 1:
            scores[name + "_per_grouping"] = [curve[0][column] for curve in curves]
    scores["content_entropy_calibrated"] = np.mean([curve[0][3] for curve in curves])
    return scores | _uninformed(table, "content")


@register_metric(
    "style_accuracy",
    title="Accuracy of the class from the style code of one image",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    direction="down",
    needs=("groups",),
)
@register_metric(
    "style_entropy",
    title="Upper bound on H(class | style code of one image), bits",
    reference=REFERENCE,
    low=0.0,
    direction="up",
    needs=("groups",),
)
def style_scores(table: CodeTable, rng: np.random.Generator, *, num_draws: int = 500) -> dict:
    """What the same classifier reads of the class from the style code of one image (never accumulated).

    Parameters
    ----------
    table, num_draws : as for `content_scores`; a table without a block "style" is read as a whole.

    Returns
    -------
    style_accuracy, style_entropy : accuracy in [0, 1] and cross-entropy in bits, on rows kept aside.
    style_accuracy_sampled, style_entropy_sampled : the same of one draw of q(s|x), which is what a decoder
        sees, where the table has variances. The mean may say more: in a dimension whose posterior is all but
        the prior it is too small for any use, but standardised it is as good as any other.
    style_accuracy_chance, style_entropy_of_class : a code that knows nothing: 1 / C and log2 C.
    style_accuracy_per_grouping, style_entropy_per_grouping : where there are several.
    """
    curves = class_curves(table, "style", rng, num_draws, max_images=1)
    drawn = None
    if table.logvar is not None:
        sample = copy.copy(table)
        noise = rng.standard_normal(table.mean.shape, dtype=np.float32)
        # (No posterior is that wide, but numbers that are must not become infinite.)
        sample.mean = table.mean + np.exp(0.5 * np.minimum(table.logvar, 80)) * noise
        drawn = class_curves(sample, "style", rng, num_draws, max_images=1)
    scores = {}
    for column, name in enumerate(("style_accuracy", "style_entropy"), start=1):
        values = [curve[0][column] for curve in curves]
        scores[name] = np.mean(values)
        if drawn is not None:
            scores[name + "_sampled"] = np.mean([curve[0][column] for curve in drawn])
        if len(curves) > 1:
            scores[name + "_per_grouping"] = values
    return scores | _uninformed(table, "style")


def _uninformed(table: CodeTable, block: str) -> dict:
    classes = np.array([len(np.unique(labels)) for labels in table.labels.T])
    return {
        f"{block}_accuracy_chance": np.mean(1 / classes),
        f"{block}_entropy_of_class": np.mean(np.log2(classes)),
    }


def class_curves(table: CodeTable, block: str, rng, num_draws: int, max_images: int) -> list[list]:
    """For every grouping the list of [k, accuracy, bits, calibrated bits] for k in IMAGES up to K.

    All lists are as long as the shortest: K, the images per training draw, depends on the smallest class. A
    grouping's own content code is the block content_1, content_2, …; a table that lacks it has it in the
    block "content", or else in its whole code.
    """
    curves = []
    for number, labels in enumerate(table.labels.T, start=1):
        whole = table.blocks.get(block, slice(None))
        dims = table.blocks.get(f"{block}_{number}", whole)
        curves.append(class_curve(table, dims, labels, rng, num_draws, max_images))
    length = min(len(curve) for curve in curves)
    return [curve[:length] for curve in curves]


def class_curve(table: CodeTable, dims: slice, labels, rng, num_draws: int, max_images: int) -> list:
    """[k, accuracy, bits, calibrated bits] of the classes `labels` [N] from the given code dimensions."""
    mean = table.mean[:, dims]
    precision_log = None if table.logvar is None else -table.logvar[:, dims]
    fit, kept_aside, test = [], [], []  # rows of each class, all disjoint
    _, counts = np.unique(labels, return_counts=True)
    most = max_images
    for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1]):
        rows = rng.permutation(rows)
        half = len(rows) // 2
        if table.tested is not None:
            rows = rows[np.argsort(table.tested[rows], kind="stable")]
            half = np.count_nonzero(~table.tested[rows])
        most = min(most, half, len(rows) - half)
        fit.append(rows[:half])
        test.append(rows[half:])
    for number, rows in enumerate(fit):
        tenth = max(len(rows) // 10, 1, min(most, len(rows) // 3))  # enough for a draw of K, if it can be
        kept_aside.append(rows[:tenth])
        fit[number] = rows[tenth:]
    num_draws = int(np.clip(MOST_DRAWS // len(counts), 20, num_draws))
    num_aside = max(num_draws // 4, 20)
    num_test = max(num_draws, MOST_DRAWS // len(counts))  # cheap, and most of the scores' noise is from here

    def draws(pools: list[np.ndarray], num_images: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, D] and classes [B] of `per_class` draws of `num_images` images from each class."""
        rows = [draw_images(rng, pool, num_images, per_class) for pool in pools]
        features = [product_of_normals(mean, precision_log, chosen) for chosen in rows]
        return np.concatenate(features), np.arange(len(pools)).repeat(per_class)

    classifier = Classifier(draws(fit, most, num_draws), draws(kept_aside, most, num_aside), rng)
    curve = []
    for k in (k for k in IMAGES if k <= most):
        features, classes = draws(kept_aside, k, num_aside)
        # Too sure, never too unsure: where few rows are kept aside, "the surer the better" is chance.
        temperature = max(1.0, best_temperature(classifier.logits(features), classes))
        features, classes = draws(test, k, num_test)
        logits = classifier.logits(features)
        accuracy = (logits.argmax(axis=1) == classes).mean()
        bits = [cross_entropy(scaled, classes) / np.log(2) for scaled in (logits, logits / temperature)]
        curve.append([k, accuracy, *bits])
    return curve


def draw_images(rng, pool: np.ndarray, num_images: int, num_draws: int) -> np.ndarray:
    """Rows [num_draws, num_images] from the pool: different ones within a draw, if the pool has as many.

    The pool is dealt out like a pack of cards, reshuffled when it is used up, so that all images are used
    equally often.
    """
    if len(pool) < num_images:
        return rng.choice(pool, size=(num_draws, num_images))
    hands = len(pool) // num_images
    packs = rng.permuted(np.tile(pool, (-(-num_draws // hands), 1)), axis=1)
    return packs[:, : hands * num_images].reshape(-1, num_images)[:num_draws]


def product_of_normals(mean: np.ndarray, precision_log: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Mean [B, D] of the product of the Normals of rows [B, k]: Σ_i μ_i / σ_i² / Σ_i 1 / σ_i², per dimension.

    Parameters
    ----------
    mean : float [N, D].
    precision_log : float [N, D], -logvar; None gives all images the same precision.
    rows : int [B, k].
    """
    if precision_log is None:
        return mean[rows].mean(axis=1)
    return (softmax(precision_log[rows], axis=1) * mean[rows]).sum(axis=1)


def cross_entropy(logits: np.ndarray, classes: np.ndarray) -> float:
    """Mean of -ln p(class) in nats, of logits float [B, C] and classes int [B]."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(classes)), classes]).mean()


def best_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """The divisor of the logits with the least cross-entropy (Guo et al. 2017).

    A classifier of features of K images is too sure of features of k < K: log-odds of Normals grow as the
    number of images (T = K / k is right where they have equal variances). One number, fitted on rows kept
    aside, mends it; the accuracy stays what it is.
    """
    from scipy.optimize import minimize_scalar

    def at(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), classes)

    return np.exp(minimize_scalar(at, bounds=(-3, 7), options={"xatol": 0.01}).x)


class Classifier:
    """One hidden layer of 256 ReLU, Adam 1e-3, batch 256, and the weights of its best epoch.

    Parameters
    ----------
    train, kept_aside : (features float [B, D], classes int [B]); training stops when the cross-entropy on
        `kept_aside` has not improved for `patience` epochs.
    """

    def __init__(self, train: tuple, kept_aside: tuple, rng, patience: int = 10, max_epochs: int = 200):
        from sklearn.neural_network import MLPClassifier

        features, classes = train
        self.shift = features.mean(axis=0, dtype=np.float64)
        std = features.std(axis=0, dtype=np.float64)
        varies = std > 1e-6 * np.abs(self.shift)  # a constant has a standard deviation of rounding only
        self.scale = np.where(varies, std, 1.0)
        network = MLPClassifier(
            (256,), alpha=0, batch_size=min(256, len(classes)), random_state=int(rng.integers(2**31))
        )
        best, since = np.inf, 0
        inputs, names = self._standardise(features), np.unique(classes)
        for _ in range(max_epochs):
            network.partial_fit(inputs, classes, classes=names)  # one epoch
            self.weights = network.coefs_ + network.intercepts_
            now = cross_entropy(self.logits(kept_aside[0]), kept_aside[1])
            since = 0 if now < best - 1e-4 else since + 1
            if now < best:
                best, kept = now, copy.deepcopy(self.weights)
            if since == patience:
                break
        self.weights = kept

    def _standardise(self, features: np.ndarray) -> np.ndarray:
        # Clipped: a row may lie far from all training rows in a dimension that hardly varied there.
        return ((features - self.shift) / self.scale).clip(-100, 100).astype(np.float32)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits of the classes, float64 [B, C], of features [B, D]."""
        first, second, bias_first, bias_second = self.weights
        hidden = np.maximum(self._standardise(features) @ first + bias_first, 0)
        logits = (hidden @ second + bias_second).astype(np.float64)
        if logits.shape[1] == 1:  # scikit-learn's network for two classes has one output
            logits = np.hstack([np.zeros_like(logits), logits])
        return logits
