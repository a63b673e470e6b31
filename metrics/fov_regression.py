"""Regression of the factors of variation from the whole code, by a linear and by a small nonlinear readout.

The readouts and their targets also serve `pose_error` and `dcies`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable

Readout = Callable[[np.ndarray], np.ndarray]  # codes [B, D] -> predictions float64 [B, T]
HIDDEN, BATCH, UPDATES, PATIENCE = (128, 128), 256, 3_000, 200  # of the network; the last two in Adam's steps


@register_metric(
    "fov_regression",
    title="R² of the factors of variation from the whole code (small network, all training rows)",
    high=1.0,
)
def fov_regression(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int | None = None,
    num_test: int = 5_000,
    max_train: int = 50_000,
) -> dict:
    """R² on test rows of readouts from the whole code to every factor, with few and with many training rows.

    A factor's target is its value; a circular one's are its sine and cosine. There are two readouts: `ridge`,
    and `small_network`, which predicts all factors at once. R² is 1 - Σ (y - ŷ)² / Σ (y - mean y)² over the
    test rows, for a circular factor over sine and cosine too; it is below 0 where the mean would have been
    the better answer. A factor whose values have no order, such as a car's number, is regressed on its value
    all the same. Training and test rows are disjoint.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : training rows; None is all but the test rows, at most `max_train`.
    num_test : test rows, at most a third of the table.
    max_train : bound on "all" training rows, so that a table of 480,000 rows takes seconds.

    Returns
    -------
    fov_regression : mean R² over factors of the network with all training rows; at most 1.
    fov_regression_linear_100, fov_regression_linear_1000, fov_regression_linear_all, fov_regression_mlp_100,
        fov_regression_mlp_1000 : the same for the other readouts; 100 and 1,000 are the first of the training
        rows, and are left out where there are no more than that.
    fov_regression_per_factor, fov_regression_linear_100_per_factor, ... : lists, None for a factor with a
        single value.
    fov_regression_training_rows : how many "all" were.

    Raises
    ------
    DislabError : no factor varies, or there are fewer than 6 rows.
    """
    num_test = min(num_test, len(table) // 3)
    if num_test < 2:
        raise DislabError(f"fov_regression needs at least 6 rows, not {len(table)}")
    if num_train is None:
        num_train = min(max_train, len(table) - num_test)
    train, test = distinct_rows(table, rng, num_train, num_test)
    fitted, wanted = factor_targets(table, train, test, "fov_regression")
    sizes = {str(size): size for size in (100, 1_000) if size < len(train)} | {"all": len(train)}
    scores = {}
    for suffix, size in sizes.items():
        examples = table.mean[train[:size]], np.hstack([*fitted.values()])[:size]
        readouts = {"linear": ridge(*examples), "mlp": small_network(*examples, rng)}
        for kind, readout in readouts.items():
            name = "fov_regression" if (kind, suffix) == ("mlp", "all") else f"fov_regression_{kind}_{suffix}"
            losses = relative_losses(readout(table.mean[test]), wanted)
            scores[name] = 1 - np.mean([*losses.values()])
            scores[name + "_per_factor"] = [
                1 - losses[k] if k in losses else None for k in range(len(table.names))
            ]
    return scores | {"fov_regression_training_rows": len(train)}


def distinct_rows(
    table: CodeTable, rng: np.random.Generator, num_train: int, num_test: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """As `table.split`, but the rows of a full grid too are drawn without replacement.

    A row that is drawn twice is its own nearest neighbour, and one that is both in training and in test
    measures memory.
    """
    if len(table) < num_train + num_test:
        num_train = max(1, len(table) * num_train // (num_train + num_test))
        num_test = min(num_test, len(table) - num_train)
    rows = np.arange(len(table)) if table.ordered else rng.permutation(len(table))
    return rows[:num_train], rows[num_train : num_train + num_test]


def factor_targets(
    table: CodeTable, train: np.ndarray, test: np.ndarray, metric: str
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """What a readout shall predict in the training and in the test rows: factor k -> float64 [B, T_k].

    T_k is 1 (the value), or 2 for a circular factor (sine and cosine). Factors that do not vary in both sets
    of rows are left out.
    """
    targets = {}, {}
    for k in range(len(table.names)):
        both = [_target(table, k, rows) for rows in (train, test)]
        if all(np.ptp(values, axis=0).max() > 1e-9 for values in both):
            targets[0][k], targets[1][k] = both
    if not targets[0]:
        raise DislabError(
            f"{metric} needs a factor that varies, but all are constant in the {len(train)} training or the "
            f"{len(test)} test rows"
        )
    return targets


def _target(table: CodeTable, k: int, rows: np.ndarray) -> np.ndarray:
    values = table.factors[rows, k].astype(np.float64)
    if table.circle is None or table.circle.factor != table.names[k]:
        return values[:, None]
    angle = 2 * np.pi * values / table.circle.steps
    return np.column_stack([np.sin(angle), np.cos(angle)])


def relative_losses(predicted: np.ndarray, wanted: dict[int, np.ndarray]) -> dict[int, float]:
    """Σ (y - ŷ)² / Σ (y - mean y)² = 1 - R² of every factor; `predicted` has the factors' columns in turn."""
    losses, start = {}, 0
    for k, values in wanted.items():
        error = values - predicted[:, start : start + values.shape[1]]
        losses[k] = (error**2).sum() / ((values - values.mean(axis=0)) ** 2).sum()
        start += values.shape[1]
    return losses


class Standardiser:
    """Shift and scale of every column of the training rows; columns that are constant there become 0.

    Parameters
    ----------
    train : float [N, D].
    """

    def __init__(self, train: np.ndarray):
        self.shift = train.mean(axis=0, dtype=np.float64)
        std = train.std(axis=0, dtype=np.float64)
        varies = std > 1e-6 * np.abs(self.shift)  # a constant has a standard deviation of rounding only
        self.scale = np.where(varies, std, np.inf)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Float64 [B, D] of values [B, D]."""
        # Clipped: a row may lie far from all training rows in a dimension that hardly varied there.
        return ((values - self.shift) / self.scale).clip(-100, 100)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """The values [B, D] in their own units; those of a constant column are its value."""
        return values * np.where(np.isinf(self.scale), 0.0, self.scale) + self.shift


def ridge(codes: np.ndarray, targets: np.ndarray, penalty: float = 1.0) -> Readout:
    """Linear regression on the standardised codes: min Σ ‖y - ŷ‖² + penalty ‖W‖², the intercept free.

    Parameters
    ----------
    codes, targets : float [N, D] and [N, T], the training rows.
    """
    standardise, middle = Standardiser(codes), targets.mean(axis=0)
    inputs = standardise(codes)
    centre = inputs.mean(axis=0)  # 0 but for what was clipped
    inputs -= centre
    weights = ridge_weights(inputs.T @ inputs, inputs.T @ (targets - middle), penalty)
    return lambda new: (standardise(new) - centre) @ weights + middle


def ridge_weights(gram: np.ndarray, moment: np.ndarray, penalty: float) -> np.ndarray:
    """W = (XᵀX + penalty I)⁻¹ XᵀY, float64 [D, T], of gram = XᵀX and moment = XᵀY."""
    from scipy.linalg import solve

    return solve(gram + penalty * np.eye(len(gram)), moment, assume_a="pos")


def small_network(codes: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Readout:
    """A network of two hidden layers of 128 ReLU, from standardised codes to standardised targets.

    Squared error, Adam with a learning rate of 2e-3 and batches of 256, at most 3,000 steps. A tenth of the
    rows is kept aside; training stops when R² there has not risen for 200 steps (five epochs, if that is
    more), and the best weights are kept. With fewer than 100 rows nothing is kept aside.

    Parameters
    ----------
    codes, targets : float [N, D] and [N, T], the training rows.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    standardise, scale = Standardiser(codes), Standardiser(targets)
    early_stopping = len(codes) >= 100
    fitted = len(codes) - -(-len(codes) // 10) if early_stopping else len(codes)
    steps = -(-fitted // BATCH)  # per epoch
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        batch_size=min(BATCH, fitted),
        learning_rate_init=2e-3,
        max_iter=-(-UPDATES // steps),
        early_stopping=early_stopping,
        n_iter_no_change=max(5, PATIENCE // steps),
        random_state=int(rng.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound on the steps is meant
        wanted = scale(targets)
        network.fit(
            standardise(codes).astype(np.float32),
            (wanted if wanted.shape[1] > 1 else wanted[:, 0]).astype(np.float32),
        )

    def predict(new: np.ndarray) -> np.ndarray:
        predicted = network.predict(standardise(new).astype(np.float32))
        return scale.undo(predicted.reshape(len(new), -1))

    return predict
