"""Content and style: is the class known from the content code, and unknown from the style code?"""

from __future__ import annotations

import copy

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.class_readout import (
    Classifier,
    best_temperature,
    class_dims,
    cross_entropy,
    draw_images,
    number_of_classes,
    parted,
    product_of_normals,
)
from dislab.scoring.protocols import IMAGES
from dislab.scoring.table import CodeTable

CHUNK = 20_000  # rows that are worked on together, so that they stay in the cache
MOST_DRAWS = 20_000  # over all classes: with the 183 of Cars3D, 50,000 take twice as long and change nothing
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
    group="content_scores",
    reference=REFERENCE,
    low=0.0,
    direction="down",
    needs=("groups",),
)
def content_scores(table: CodeTable, rng: np.random.Generator, *, num_draws: int = 500) -> dict:
    """Return how well a classifier reads the class from the content code, by the number of joined images.

    A draw takes k images of one class; its feature is the mean of the product of their Normals. One
    classifier is trained on draws of K = 10 images (fewer if half a class has fewer) and tested on draws of
    k <= K images of other rows, with equal numbers per class: the rows that the dataset marks as `tested`, or
    else a random half of each class. For k > 1 images are grouped by their true class. A table without a
    block "content" is read as a whole. Of more than 300 classes 300 are read, drawn at random.

    Parameters
    ----------
    table : codes [N, D], the classes of the rows in `labels` [N, G], log-variances if it has them. With
        several groupings each has its own content code, and a score is the mean over them.
    num_draws : training draws per class; fewer if there are more than 40 classes.

    Returns
    -------
    content_accuracy, content_entropy : at k = 1; accuracy in [0, 1], cross-entropy in bits.
    content_entropy_calibrated : at k = 1, with the classifier's confidence corrected by `best_temperature`: a
        classifier of ten images is too sure of one, so that the plain bound can lie above log2 C.
    content_accuracy_k10, content_entropy_k10 : at k = 10, if K is that large.
    content_accuracy_chance, content_entropy_of_class : those of a code that knows nothing, 1 / C and log2 C.
    content_accuracy_curve, content_entropy_curve : lists of [k, value].
    content_accuracy_per_grouping, content_entropy_per_grouping : at k = 1, if there are several groupings.
    """
    curves = class_curves(table, "content", rng, num_draws, max_images=max(IMAGES))
    scores = scores_of_one_image(table, "content", curves)
    for column, name in enumerate(("content_accuracy", "content_entropy"), start=1):
        curve = [[int(row[0]), row[column]] for row in np.mean(curves, axis=0)]
        scores[f"{name}_curve"] = curve
        scores |= {f"{name}_k10": value for k, value in curve if k == 10}
    scores["content_entropy_calibrated"] = np.mean([curve[0][3] for curve in curves])
    return scores


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
    group="style_scores",
    reference=REFERENCE,
    low=0.0,
    direction="up",
    needs=("groups",),
)
def style_scores(table: CodeTable, rng: np.random.Generator, *, num_draws: int = 500) -> dict:
    """Return how well the same classifier reads the class from the style code of one image.

    Style is never joined over images.

    Parameters
    ----------
    table, num_draws : as for `content_scores`; a table without a block "style" is read as a whole.

    Returns
    -------
    style_accuracy, style_entropy : accuracy in [0, 1] and cross-entropy in bits, on rows kept aside.
    style_accuracy_sampled, style_entropy_sampled : the same of one draw of q(s|x), which is what a decoder
        sees, if the table has variances. The mean may tell more: in a dimension whose posterior is almost the
        prior it is too small to be of use to a decoder, but once standardised it is as good as any other.
    style_accuracy_chance, style_entropy_of_class : those of a code that knows nothing, 1 / C and log2 C.
    style_accuracy_per_grouping, style_entropy_per_grouping : if there are several groupings.
    """
    scores = scores_of_one_image(table, "style", class_curves(table, "style", rng, num_draws, max_images=1))
    if table.logvar is not None:
        sample = copy.copy(table)
        noise = rng.standard_normal(table.mean.shape, dtype=np.float32)
        for start in range(0, len(noise), CHUNK):
            rows = slice(start, start + CHUNK)
            # No posterior is wider than that, but the draws must stay finite whatever the numbers are.
            noise[rows] *= np.exp(0.5 * np.minimum(table.logvar[rows], 80))
            noise[rows] += table.mean[rows]
        sample.mean = noise
        curves = class_curves(sample, "style", rng, num_draws, max_images=1)
        drawn = scores_of_one_image(sample, "style", curves)
        scores |= {f"{name}_sampled": drawn[name] for name in ("style_accuracy", "style_entropy")}
    return scores


def scores_of_one_image(table: CodeTable, block: str, curves: list[list]) -> dict:
    """Return accuracy and entropy at k = 1, and those of a code that knows nothing: means over groupings."""
    classes = np.array([number_of_classes(labels) for labels in table.labels.T])
    scores = {
        f"{block}_accuracy_chance": np.mean(1 / classes),
        f"{block}_entropy_of_class": np.mean(np.log2(classes)),
    }
    for column, name in enumerate((f"{block}_accuracy", f"{block}_entropy"), start=1):
        values = [curve[0][column] for curve in curves]
        scores[name] = np.mean(values)
        if len(curves) > 1:
            scores[f"{name}_per_grouping"] = values
    return scores


def class_curves(table: CodeTable, block: str, rng, num_draws: int, max_images: int) -> list[list]:
    """Return for every grouping the list of [k, accuracy, bits, calibrated bits] for k in IMAGES up to K.

    All lists are as long as the shortest: K, the images per training draw, depends on the smallest class.
    """
    curves = [
        class_curve(table, dims, labels, rng, num_draws, max_images)
        for dims, labels in zip(class_dims(table, block), table.labels.T, strict=True)
    ]
    length = min(len(curve) for curve in curves)
    return [curve[:length] for curve in curves]


def class_curve(table: CodeTable, dims: slice, labels, rng, num_draws: int, max_images: int) -> list:
    """Return the list of [k, accuracy, bits, calibrated bits] of classes [N] from some code dimensions."""
    mean = table.mean[:, dims]
    logvar = None if table.logvar is None else table.logvar[:, dims]
    fit, test = parted(table, labels, rng)
    most = min(max_images, *map(len, fit), *map(len, test))
    kept_aside = []  # of the rows to fit
    for number, rows in enumerate(fit):
        tenth = max(len(rows) // 10, 1, min(most, len(rows) // 3))  # enough for a draw of K, if it can be
        kept_aside.append(rows[:tenth])
        fit[number] = rows[tenth:]
    num_draws = int(np.clip(MOST_DRAWS // len(fit), 20, num_draws))
    num_aside = max(num_draws // 4, 20)
    num_test = max(num_draws, MOST_DRAWS // len(fit))  # cheap, and most of the scores' noise is from here

    def draws(pools: list[np.ndarray], num_images: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
        """Return features [B, D] and classes [B] of `per_class` draws of some images from each class."""
        rows = [draw_images(rng, pool, num_images, per_class) for pool in pools]
        features = [product_of_normals(mean, logvar, chosen) for chosen in rows]
        return np.concatenate(features), np.arange(len(pools)).repeat(per_class)

    classifier = Classifier(draws(fit, most, num_draws), draws(kept_aside, most, num_aside), rng)
    curve = []
    for k in (k for k in IMAGES if k <= most):
        features, classes = draws(kept_aside, k, num_aside)
        # Never below 1: with few rows kept aside, a fit that makes the classifier surer is due to chance.
        temperature = max(1.0, best_temperature(classifier.logits(features), classes))
        features, classes = draws(test, k, num_test)
        logits = classifier.logits(features)
        accuracy = (logits.argmax(axis=1) == classes).mean()
        bits = [cross_entropy(scaled, classes) / np.log(2) for scaled in (logits, logits / temperature)]
        curve.append([k, accuracy, *bits])
    return curve
