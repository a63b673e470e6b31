"""Pose error: by how many degrees is the angle of unseen objects missed, when read from the code?"""

from __future__ import annotations

import numpy as np

from dislab.data.space import Circle
from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.readouts import ridge, small_network
from dislab.scoring.settings import check_counts
from dislab.scoring.table import CodeTable


@register_metric(
    "pose_error",
    title="Median error of the angle read from the code, on unseen objects (degrees)",
    low=0.0,
    high=180.0,
    direction="down",
    needs=("circle",),
)
def pose_error(
    table: CodeTable, rng: np.random.Generator, *, max_train: int = 50_000, max_test: int = 5_000
) -> dict:
    """Return the median absolute angular difference, in degrees, between the read angle and the true one.

    The readouts of `fov_regression` are fitted to sine and cosine of the circular factor; the angle is that
    of the point that they predict. A fifth of the instances is drawn for the test, and none of their rows is
    trained on. An instance is all images of a car; if no factor names the object, all rows that agree in
    every other factor. If the angle has a meaning for one value of a factor only (the heart of dSprites),
    only those rows are used. The split by instances is drawn even if the rows of a table are taken in order.

    Parameters
    ----------
    table : codes [N, D], factors [N, K] and a circular factor.
    max_train, max_test : bounds on the training and test rows, drawn from those of their instances.

    Returns
    -------
    pose_error : of the small network, in [0, 180]; a code that knows nothing has 90.
    pose_error_linear : of ridge regression.
    pose_error_mean : the mean in place of the median, which shows a few angles that are off by 180.
    pose_error_test_instances : how many instances were kept for the test.

    Raises
    ------
    DislabError : there are fewer than two instances, or the circular factor does not vary.
    """
    check_counts(max_train=max_train, max_test=max_test)
    train, test, num_instances = split_by_instance(table, table.circle, rng)
    train, test = rng.permutation(train)[:max_train], rng.permutation(test)[:max_test]
    turns = table.factors[:, table.names.index(table.circle.factor)] / table.circle.steps
    angles = 2 * np.pi * turns
    if np.ptp(turns[train] % 1) == 0:
        raise DislabError(
            f"it needs angles that vary, but '{table.circle.factor}' is constant in {len(train)} rows"
        )
    examples = table.mean[train], np.column_stack([np.sin(angles[train]), np.cos(angles[train])])
    errors = [
        angular_difference(np.arctan2(*readout(table.mean[test]).T), angles[test])
        for readout in (small_network(*examples, rng), ridge(*examples))
    ]
    return {
        "pose_error": np.median(errors[0]),
        "pose_error_linear": np.median(errors[1]),
        "pose_error_mean": np.mean(errors[0]),
        "pose_error_test_instances": num_instances,
    }


def angular_difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the absolute difference of angles in radians [B], the shorter way round, in degrees."""
    return np.abs((np.degrees(one - other) + 180) % 360 - 180)


def split_by_instance(
    table: CodeTable, circle: Circle, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the rows for training and for testing, by instance, and the number of test instances."""
    rows = np.arange(len(table))
    if circle.only is not None:
        name, value = circle.only
        rows = np.flatnonzero(table.factors[:, table.names.index(name)] == value)
    if circle.instance is None:
        columns = [k for k, name in enumerate(table.names) if name != circle.factor]
    else:
        columns = [table.names.index(circle.instance)]
    instance = np.zeros(len(rows), dtype=np.int64)
    for k in columns:  # numbered anew at every factor, so that their product cannot overflow
        combined = instance * table.sizes[k] + table.factors[rows, k]
        instance = np.unique(combined, return_inverse=True)[1].reshape(-1)
    num_instances = int(instance.max(initial=-1)) + 1
    if num_instances < 2:
        raise DislabError(
            f"it needs images of at least two instances, one of them unseen in training, but the {len(rows)} "
            f"rows with an angle have {num_instances}"
        )
    num_test = -(-num_instances // 5)
    unseen = np.zeros(num_instances, dtype=bool)
    unseen[rng.permutation(num_instances)[:num_test]] = True
    return rows[~unseen[instance]], rows[unseen[instance]], num_test
