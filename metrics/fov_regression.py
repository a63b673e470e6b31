"""R² of the factors of variation from the whole code, by a linear and by a small nonlinear readout."""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.readouts import factor_targets, relative_losses, ridge, small_network
from dislab.scoring.table import CodeTable, spread


@register_metric(
    "fov_regression",
    title="R² of the factors of variation from the whole code (small network, all training rows)",
    high=1.0,
    needs=("factor",),
)
def fov_regression(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_train: int | None = None,
    num_test: int = 5_000,
    max_train: int = 50_000,
) -> dict:
    """Return R² on test rows of readouts from the whole code, with few and with many training rows.

    A factor's target is its value; a circular one's are its sine and cosine. There are two readouts: `ridge`,
    and `small_network`, which predicts all factors at once. R² is 1 - Σ (y - ŷ)² / Σ (y - mean y)² over the
    test rows, for a circular factor over sine and cosine too; it is below 0 if the mean would have been the
    better answer. A factor whose values have no order, such as a car's number, is regressed on its value too.
    Training and test rows are disjoint.

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
        rows, and are left out if there are no more than that.
    fov_regression_per_factor, fov_regression_linear_100_per_factor, ... : lists, None for a factor with a
        single value.
    fov_regression_training_rows : how many "all" were.

    Raises
    ------
    DislabError : no factor varies, or there are fewer than 6 rows.
    """
    if num_train is not None and not (isinstance(num_train, int) and num_train >= 1):
        raise DislabError(f"num_train is {num_train!r}: it must be a whole number, 1 or more")
    num_test = min(num_test, len(table) // 3)
    if num_test < 2:
        raise DislabError(f"it needs at least 6 rows, not {len(table)}")
    if num_train is None:
        num_train = min(max_train, len(table) - num_test)
    sample = table.draw(rng, num_train, num_test, distinct=True)
    fitted, wanted = factor_targets(table, sample)
    codes, targets = sample.codes, np.hstack([*fitted.values()])
    sizes = {str(size): size for size in (100, 1_000) if size < len(codes)} | {"all": len(codes)}
    scores = {}
    for suffix, size in sizes.items():
        examples = codes[:size], targets[:size]
        readouts = {"linear": ridge(*examples), "mlp": small_network(*examples, rng)}
        for kind, readout in readouts.items():
            name = "fov_regression" if (kind, suffix) == ("mlp", "all") else f"fov_regression_{kind}_{suffix}"
            losses = np.array([*relative_losses(readout(sample.test_codes), wanted).values()])
            scores[name] = 1 - losses.mean()
            scores[name + "_per_factor"] = spread(1 - losses, list(wanted), len(table.names))
    return scores | {"fov_regression_training_rows": len(codes)}
