"""What the scores of content and style share: the rows and draws of classes, and a classifier of codes."""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabWarning
from dislab.scoring.perceptron import Perceptron
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable, rows_by_value

# A classifier's time grows with draws times classes: 300 classes take 10 seconds, 10,000 would take hours.
MOST_CLASSES = 300
LEAST_ROWS = 4  # of a class: two to test the classifier, one to fit it, and one that says when to stop


def class_dims(table: CodeTable, block: str) -> list[slice]:
    """Return the code dimensions of a block, "content" or "style", for each grouping.

    A grouping's own content is the block content_1, content_2, …; in a table that lacks it, it is the block
    "content", or else the whole code.
    """
    whole = table.blocks.get(block, slice(None))
    return [table.blocks.get(f"{block}_{number + 1}", whole) for number in range(table.labels.shape[1])]


def number_of_classes(labels: np.ndarray) -> int:
    """Return how many of the classes of labels [N] are read: those of LEAST_ROWS rows, or MOST_CLASSES."""
    return min(np.count_nonzero(np.unique(labels, return_counts=True)[1] >= LEAST_ROWS), MOST_CLASSES)


def parted(
    table: CodeTable, labels: np.ndarray, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of each class of labels [N] that a classifier is trained on, and those that test it.

    The table marks the latter as `tested`, or else they are a random half of the class. Classes of fewer than
    LEAST_ROWS rows are left out, and of more than MOST_CLASSES classes so many are drawn; a DislabWarning
    says so.
    """
    classes = rows_by_value(np.unique(labels, return_inverse=True)[1])
    large = [rows for rows in classes if len(rows) >= LEAST_ROWS]
    if len(large) < len(classes):
        small = f"{len(classes) - len(large):,} of the {len(classes):,}"
        text = f"{small} classes have fewer than {LEAST_ROWS} rows and are not read"
        warnings.warn(text, DislabWarning, stacklevel=2)
        classes = large
    if len(classes) > MOST_CLASSES:
        text = f"{MOST_CLASSES} of the {len(classes):,} classes are read, drawn at random"
        warnings.warn(text, DislabWarning, stacklevel=2)
        chosen = np.sort(rng.choice(len(classes), MOST_CLASSES, replace=False))
        classes = [classes[number] for number in chosen]
    train, test = [], []
    for rows in classes:
        rows = rng.permutation(rows)
        half = len(rows) // 2
        if table.tested is not None:
            rows = rows[np.argsort(table.tested[rows], kind="stable")]
            half = np.count_nonzero(~table.tested[rows])
        train.append(rows[:half])
        test.append(rows[half:])
    return train, test


def draw_images(rng, pool: np.ndarray, num_images: int, num_draws: int) -> np.ndarray:
    """Return rows [num_draws, num_images] of the pool, different ones within a draw if it has enough.

    The pool is dealt out and reshuffled when it is used up, so that all images are used equally often.
    """
    if len(pool) < num_images:
        return rng.choice(pool, size=(num_draws, num_images))
    hands = len(pool) // num_images
    packs = rng.permuted(np.tile(pool, (-(-num_draws // hands), 1)), axis=1)
    return packs[:, : hands * num_images].reshape(-1, num_images)[:num_draws]


def product_of_normals(
    mean: np.ndarray,
    logvar: np.ndarray | None,
    rows: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return the mean of the product of Normals, Σ_i μ_i / σ_i² / Σ_i 1 / σ_i² per dimension, [B, D].

    Parameters
    ----------
    mean : float [N, D].
    logvar : float [N, D]; None gives all images the same precision.
    rows : int [B, k], the Normals of each product.
    rng : return a draw of the product instead of its mean, for which the precisions are needed.
    """
    from scipy.special import logsumexp, softmax

    if logvar is None:
        return mean[rows].mean(axis=1)
    means = (softmax(-logvar[rows], axis=1) * mean[rows]).sum(axis=1)
    if rng is None:
        return means
    # No product is wider than that, but the draws must stay finite whatever the numbers are.
    deviation = np.exp(np.minimum(-0.5 * logsumexp(-logvar[rows], axis=1), 40))
    return means + deviation * rng.standard_normal(means.shape, dtype=np.float32)


def cross_entropy(logits: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean of -ln p(class) in nats, of logits float [B, C] and classes int [B]."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(classes)), classes]).mean()


def best_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """Return the divisor of the logits with the least cross-entropy (Guo et al. 2017).

    A classifier of features of K images is too sure of features of k < K: log-odds of Normals grow with the
    number of images, and T = K / k is right if they have equal variances. This one number, fitted on rows
    kept aside, corrects that; the accuracy does not change.
    """
    from scipy.optimize import minimize_scalar

    def at(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), classes)

    return np.exp(minimize_scalar(at, bounds=(-3, 7), options={"xatol": 0.01}).x)


class Classifier:
    """A network of one hidden layer of 256 ReLU, trained by Adam 1e-3 with batches of 256; best epoch kept.

    Parameters
    ----------
    train, kept_aside : (features float [B, D], classes int [B]); training stops when the cross-entropy on
        `kept_aside` has not improved for `patience` epochs.
    """

    def __init__(self, train: tuple, kept_aside: tuple, rng, patience: int = 10, max_epochs: int = 200):
        features, classes = train
        self._standardise = Standardiser(features)
        inputs, aside = (self._inputs(part[0]) for part in (train, kept_aside))
        num_classes = int(classes.max()) + 1
        seed, size = rng.integers(2**31), len(classes)
        random = np.random.RandomState(seed)
        # Two classes have one output, the log-odds of the second.
        self._network = network = Perceptron(
            (inputs.shape[1], 256, num_classes if num_classes > 2 else 1),
            random,
            batch_size=min(256, size),
            learning_rate=1e-3,
        )
        residual = softmax_residual if num_classes > 2 else sigmoid_residual
        order = random.permutation(size)
        best, since = np.inf, 0
        for epoch in range(max_epochs):
            network.epoch(inputs, classes, order, residual)
            if epoch == 0:  # all others have the same batches
                order = np.random.RandomState(seed).permutation(size)
            now = cross_entropy(self._logits(aside), kept_aside[1])
            since = 0 if now < best - 1e-4 else since + 1
            if now < best:
                best, kept = now, network.parameters.copy()
            if since == patience:
                break
        network.parameters[:] = kept

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return logits of the classes, float64 [B, C], of features [B, D]."""
        return self._logits(self._inputs(features))

    def _inputs(self, features: np.ndarray) -> np.ndarray:
        return self._standardise(features).astype(np.float32)

    def _logits(self, inputs: np.ndarray) -> np.ndarray:
        logits = self._network.outputs(inputs).astype(np.float64)
        return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits


def softmax_residual(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the slopes of -ln p(class) by the outputs, float32 [B, C], p being their softmax."""
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    outputs[np.arange(len(classes)), classes] -= 1
    return outputs


def sigmoid_residual(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the slopes of -ln p(class) by the outputs, float32 [B, 1], the log-odds of class 1."""
    from scipy.special import expit

    return expit(outputs) - classes[:, None].astype(np.float32)
