"""Viewpoint error: by how many degrees is the view of unseen objects missed, when read from the code?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.readouts import small_network
from dislab.scoring.table import CodeTable


@register_metric(
    "median_angular_error_degrees",
    title="Median error of the viewpoint read from the code, on unseen photographs (degrees)",
    reference="Tulsiani & Malik 2015 (MedErr, Acc π/6)",
    low=0.0,
    high=180.0,
    direction="down",
    needs=("viewpoint",),
)
def median_angular_error_degrees(
    table: CodeTable, rng: np.random.Generator, *, max_train: int = 50_000, max_test: int = 5_000
) -> dict:
    """Return the median angle, in degrees, of the rotation between the viewpoint read and the true one.

    A viewpoint is the rotation R = Rz(theta) Rx(elevation - 90°) Rz(-azimuth), as in the projection of Xiang
    et al. 2014; theta is the rotation in the plane of the image. The error is the angle of R_read R_trueᵀ
    (Tulsiani & Malik 2015: ‖log(R_readᵀ R_true)‖ / √2). The network of `fov_regression` is fitted to sine and
    cosine of azimuth and of theta, and to the elevation. It is tested on the rows that the dataset tests
    readouts on; a dataset without these, or codes that no dataset is named for, on a fifth of the rows: every
    row must show another object.

    Parameters
    ----------
    table : codes [N, D] with the viewpoint of each row, see `CodeTable`.
    max_train, max_test : bounds on the training and test rows.

    Returns
    -------
    median_angular_error_degrees : in [0, 180].
    median_angular_error_degrees_in_line : with theta 0 in both, of azimuth and elevation alone.
    median_angular_error_degrees_azimuth : of the azimuth alone; a code that knows nothing has 90.
    median_angular_error_degrees_accuracy_30, median_angular_error_degrees_accuracy_15 : share of the test
        rows with an error below 30 and 15 degrees.
    median_angular_error_degrees_test_rows : their number.

    Raises
    ------
    DislabError : there are too few rows.
    """
    angles = table.viewpoint
    train, test = _split(table, rng)
    train, test = rng.permutation(train)[:max_train], rng.permutation(test)[:max_test]
    if len(train) < 2 or not len(test):
        raise DislabError(f"it needs rows to fit to and to test on, not {len(train)} and {len(test)}")
    azimuth, elevation, theta = np.radians(angles[train]).T
    targets = np.column_stack([np.sin(azimuth), np.cos(azimuth), elevation, np.sin(theta), np.cos(theta)])
    predicted = small_network(table.mean[train], targets, rng)(table.mean[test])
    read = np.degrees(
        [
            np.arctan2(predicted[:, 0], predicted[:, 1]),
            predicted[:, 2].clip(-np.pi / 2, np.pi / 2),
            np.arctan2(predicted[:, 3], predicted[:, 4]),
        ]
    ).T
    errors = rotation_between(read, angles[test])
    in_line = rotation_between(read * [1, 1, 0], angles[test] * [1, 1, 0])
    of_azimuth = np.abs((read[:, 0] - angles[test][:, 0] + 180) % 360 - 180)
    name = "median_angular_error_degrees"
    return {
        name: np.median(errors),
        f"{name}_in_line": np.median(in_line),
        f"{name}_azimuth": np.median(of_azimuth),
        f"{name}_accuracy_30": np.mean(errors < 30),
        f"{name}_accuracy_15": np.mean(errors < 15),
        f"{name}_test_rows": len(test),
    }


def rotation_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angle of the rotation between viewpoints [B, 3] in degrees, in [0, 180], float64 [B]."""
    from scipy.spatial.transform import Rotation

    turned, true = (
        Rotation.from_euler("zxz", angles * [-1, 1, 1] - [0, 90, 0], degrees=True) for angles in (one, other)
    )
    return np.degrees((turned * true.inv()).magnitude())


def _split(table: CodeTable, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if table.tested is not None:
        return np.flatnonzero(~table.tested), np.flatnonzero(table.tested)
    rows = rng.permutation(len(table))
    return np.split(rows, [len(rows) - -(-len(rows) // 5)])
