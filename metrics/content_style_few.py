"""Content and style by a classifier that has seen K = 10 images of each class: figure 7 read literally."""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.class_readout import (
    class_dims,
    draw_images,
    number_of_classes,
    parted,
    product_of_normals,
)
from dislab.scoring.logistic import class_logits, logistic_regression
from dislab.scoring.protocols import IMAGES
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable

REFERENCE = "Bouchacourt et al. 2017 (ML-VAE), figure 7"
MOST_DRAWS = 2_000  # of posteriors that the classifier is trained on, over all classes; 50 of each at most
MOST_TESTS = 5_000  # draws of test images over all classes, for each k and choice


@register_metric(
    "content_accuracy_few",
    title="Accuracy of the class from the content code of one image, from K images per class",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("groups",),
)
def content_few(table: CodeTable, rng: np.random.Generator, *, num_choices: int = 5) -> dict:
    """Return how well the class is read from the content by a classifier of K images per class.

    The classifier, a multinomial logistic regression on standardised features (L2 with C = 1), sees one
    feature of each class, 50 times (fewer of more than 40 classes): the content of its K = 10 images, joined
    by the product of their Normals. K is smaller if half a class has fewer. It is tested on draws of k <= K
    images of other rows, as in `content_accuracy`. All scores are means over several choices of the K images.
    With `sampled` in their name they are those of draws of the posteriors: the classifier is trained on as
    many draws of each class's product, and tested on one draw of the product of each k test images. A table
    without a block "content" is read as a whole. Of more than 300 classes 300 are read, drawn at random.

    Parameters
    ----------
    table : as for `content_accuracy`.
    num_choices : choices of the K images.

    Returns
    -------
    content_accuracy_few : at k = 1, in [0, 1].
    content_accuracy_few_k10 : at k = 10, if K is that large.
    content_accuracy_few_curve : list of [k, accuracy].
    content_accuracy_few_sampled, …_sampled_k10, …_sampled_curve : the same of draws, if the table has
        variances.
    content_accuracy_few_per_choice : at k = 1, for each choice.
    content_accuracy_few_chance : that of a code that knows nothing, 1 / C.
    """
    return _few_scores(table, "content", rng, num_choices)


@register_metric(
    "style_accuracy_few",
    title="Accuracy of the class from the style code of one image, from K images per class",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    direction="down",
    needs=("groups",),
)
def style_few(table: CodeTable, rng: np.random.Generator, *, num_choices: int = 5) -> dict:
    """Return how well the class is read from the style by a classifier of K images per class.

    As `content_few`, but style is never joined: the classifier sees the style of each of the K images.

    Parameters
    ----------
    table, num_choices : as for `content_few`; a table without a block "style" is read as a whole.

    Returns
    -------
    style_accuracy_few : in [0, 1].
    style_accuracy_few_sampled : of draws of q(s|x), if the table has variances.
    style_accuracy_few_per_choice : for each choice.
    style_accuracy_few_chance : that of a code that knows nothing, 1 / C.
    """
    return _few_scores(table, "style", rng, num_choices)


def _few_scores(table: CodeTable, block: str, rng: np.random.Generator, num_choices: int) -> dict:
    """Return the scores of a block, "content" or "style": means over the groupings and the choices."""
    name = f"{block}_accuracy_few"
    chances = [1 / number_of_classes(labels) for labels in table.labels.T]
    scores = {f"{name}_chance": np.mean(chances)}
    for key in (name, f"{name}_sampled") if table.logvar is not None else (name,):
        accuracies = [
            _accuracies(
                table, dims, labels, rng, num_choices, is_joined=block == "content", sampled=key != name
            )
            for dims, labels in zip(class_dims(table, block), table.labels.T, strict=True)
        ]
        length = min(each.shape[1] for each in accuracies)
        of_choices = np.mean([each[:, :length] for each in accuracies], axis=0)
        curve = [[k, value] for k, value in zip(IMAGES, of_choices.mean(axis=0), strict=False)]
        scores[key] = curve[0][1]
        if block == "content":
            scores[f"{key}_curve"] = curve
            scores |= {f"{key}_k10": value for k, value in curve if k == 10}
        if key == name:
            scores[f"{name}_per_choice"] = of_choices[:, 0]
    return scores


def _accuracies(
    table: CodeTable, dims: slice, labels: np.ndarray, rng, num_choices: int, is_joined: bool, sampled: bool
) -> np.ndarray:
    """Return the accuracies [choices, k] of classes [N] from some code dimensions, for k in IMAGES up to K.

    K images are joined for the classifier, and k for its test, if `is_joined`; else k is 1.
    """
    mean = table.mean[:, dims]
    logvar = None if table.logvar is None else table.logvar[:, dims]
    train, test = parted(table, labels, rng)
    size = min(max(IMAGES), *map(len, train), *map(len, test))

    def features(rows: list[np.ndarray]) -> np.ndarray:
        """Return features [B, D] of images that are joined [b, k] in each class."""
        return product_of_normals(mean, logvar, np.concatenate(rows), rng if sampled else None)

    accuracies = []
    for _ in range(num_choices):
        seen = [draw_images(rng, pool, size, 1) for pool in train]  # [1, K] of each class
        if not is_joined:
            seen = [rows.T for rows in seen]
        # Means are repeated as often as draws are made, so that the penalty weighs as little beside them.
        draws = min(50, MOST_DRAWS // len(train))
        seen = [rows.repeat(-(-draws // len(rows)), axis=0) for rows in seen]
        inputs = features(seen)
        standardise = Standardiser(inputs)
        weights = logistic_regression(standardise(inputs), np.arange(len(seen)).repeat(len(seen[0])))
        of_choice = []
        for k in [k for k in IMAGES if k <= size] if is_joined else [1]:
            each = max(1, MOST_TESTS // len(test))
            tests = features([draw_images(rng, pool, k, each) for pool in test])
            read = class_logits(standardise(tests), weights).argmax(axis=1)
            of_choice.append((read == np.arange(len(test)).repeat(each)).mean())
        accuracies.append(of_choice)
    return np.array(accuracies)
