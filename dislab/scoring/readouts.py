"""Readouts: predict the factors from the whole code, by ridge regression and by a small network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dislab.scoring.perceptron import Perceptron
from dislab.scoring.table import CodeTable, Sample, no_factor_varies, varies

Readout = Callable[[np.ndarray], np.ndarray]  # codes [B, D] -> predictions float64 [B, T]
HIDDEN, BATCH, UPDATES, PATIENCE = (128, 128), 256, 3_000, 200  # of the network; the last two in Adam's steps
LEAST_GAIN = 1e-4  # in R², or in loss, that counts as a rise


def factor_targets(table: CodeTable, sample: Sample) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return what a readout must predict in the training and in the test rows: factor k -> float64 [B, T_k].

    T_k is 1 (the value), or 2 for a circular factor (sine and cosine). Factors that do not vary in both sets
    of rows are left out; DislabError is raised if none does.
    """
    targets = {}, {}
    for k, *columns in zip(sample.columns, sample.factors.T, sample.test_factors.T, strict=True):
        both = [_target(table, k, values) for values in columns]
        if all(np.ptp(values, axis=0).max() > 1e-9 for values in both):
            targets[0][k], targets[1][k] = both
    if not targets[0]:
        raise no_factor_varies(f"{len(sample.codes)} training or the {len(sample.test_codes)} test rows")
    return targets


def _target(table: CodeTable, k: int, values: np.ndarray) -> np.ndarray:
    if table.circle is None or table.circle.factor != table.names[k]:
        return values[:, None].astype(np.float64)
    angle = 2 * np.pi * values.astype(np.float64) / table.circle.steps
    return np.column_stack([np.sin(angle), np.cos(angle)])


def relative_losses(predicted: np.ndarray, wanted: dict[int, np.ndarray]) -> dict[int, float]:
    """Return Σ (y - ŷ)² / Σ (y - mean y)² = 1 - R² of every factor.

    `predicted` float64 [B, T] has the columns of all factors in turn, `wanted` those of factor k [B, T_k].
    """
    losses, start = {}, 0
    for k, values in wanted.items():
        error = values - predicted[:, start : start + values.shape[1]]
        losses[k] = (error**2).sum() / ((values - values.mean(axis=0)) ** 2).sum()
        start += values.shape[1]
    return losses


class Standardiser:
    """Shift and scale columns to mean 0 and standard deviation 1 in training rows, float [N, D].

    Columns that are constant there become 0; `varies` is bool [D], the others.
    """

    def __init__(self, train: np.ndarray):
        self.shift = train.mean(axis=0, dtype=np.float64)
        self.varies = varies(train)
        self.scale = np.where(self.varies, train.std(axis=0, dtype=np.float64), np.inf)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the values [B, D] standardised, float64 [B, D], at most 100 from 0."""
        # A row may lie far from all training rows in a dimension that hardly varied there.
        return ((values - self.shift) / self.scale).clip(-100, 100)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return standardised values [B, D] in their own units; those of a constant column are its value."""
        return values * np.where(self.varies, self.scale, 0.0) + self.shift


def ridge(codes: np.ndarray, targets: np.ndarray, penalty: float = 1.0) -> Readout:
    """Return a linear regression on standardised codes: min Σ ‖y - ŷ‖² + penalty ‖W‖², the intercept free."""
    from scipy.linalg import solve

    standardise, middle = Standardiser(codes), targets.mean(axis=0)
    inputs = standardise(codes)
    centre = inputs.mean(axis=0)  # 0 unless values were clipped
    inputs -= centre
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    weights = solve(gram, inputs.T @ (targets - middle), assume_a="pos")
    return lambda new: (standardise(new) - centre) @ weights + middle


def small_network(codes: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Readout:
    """Return a network of two hidden layers of 128 ReLU, from standardised codes to standardised targets.

    Squared error, Adam with a learning rate of 2e-3 and batches of 256, at most 3,000 steps. A tenth of the
    rows is kept aside; training stops when R² there has not risen for 200 steps (five epochs, if that is
    more), and the best weights are kept. With fewer than 100 rows nothing is kept aside: training stops when
    the loss has not fallen for as long.
    """
    standardise, scale = Standardiser(codes), Standardiser(targets)
    inputs, wanted = standardise(codes).astype(np.float32), scale(targets).astype(np.float32)
    num_aside = -(-len(codes) // 10) if len(codes) >= 100 else 0
    num_fitted = len(codes) - num_aside
    random = np.random.RandomState(rng.integers(2**31))
    network = Perceptron(
        (inputs.shape[1], *HIDDEN, wanted.shape[1]),
        random,
        batch_size=min(BATCH, num_fitted),
        learning_rate=2e-3,
        penalty=1e-4,
    )
    rows = random.permutation(len(codes)) if num_aside else np.arange(len(codes))
    aside = inputs[rows[:num_aside]], wanted[rows[:num_aside]]
    order = rows[num_aside:]
    steps = -(-num_fitted // BATCH)  # per epoch
    best, kept, since = -np.inf, network.parameters, 0
    for _ in range(-(-UPDATES // steps)):
        order = order[random.permutation(num_fitted)]
        if not num_aside:  # the rows are one batch: the loss before the step is that of the epoch
            now = -0.5 * np.square(network.outputs(inputs) - wanted).mean() - network.penalty_of(len(inputs))
        network.epoch(inputs, wanted, order, np.subtract)
        if num_aside:
            now = _mean_r_squared(network.outputs(aside[0]), aside[1])
        since = since + 1 if now < best + LEAST_GAIN else 0
        if now > best:
            best, kept = now, network.parameters.copy() if num_aside else network.parameters
        if since > max(5, PATIENCE // steps):
            break
    network.parameters[:] = kept
    return lambda new: scale.undo(network.outputs(standardise(new).astype(np.float32)))


def _mean_r_squared(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean over the columns [B, T] of R², which is 0 for a column that is constant."""
    error, total = (np.square(wanted - middle).sum(axis=0) for middle in (predicted, wanted.mean(axis=0)))
    return (1 - np.divide(error, total, out=np.ones_like(total), where=total > 0)).mean()
