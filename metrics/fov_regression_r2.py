"""R² of the factors by the regression of Soft TPR, and how few training rows come near to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dislab.errors import DislabError
from dislab.progress import say
from dislab.registry import register_metric
from dislab.scoring.readouts import Readout, Standardiser
from dislab.scoring.table import CodeTable, no_factor_varies, spread

# Training rows -> (most epochs, epochs without a lower validation loss after which training stops). More rows
# than 10,000 have OF_ALL, other numbers what the next smaller one has.
SCHEDULES = {100: (50, 11), 250: (50, 11), 500: (40, 11), 1_000: (30, 7), 10_000: (20, 5)}
OF_ALL = (10, 3)
WIDTHS = ((256, 512), (256, 512), (128, 256))  # of which those of the layers are drawn: d1, d2, d3
SEEDS = 5  # networks that share the widths that were drawn
BATCH, LEARNING_RATE = 64, 1e-4
SECONDS = 5e-3  # per step of a network, on one core


@register_metric(
    "fov_regression_r2",
    title="R² of the factors of variation by the regression of Soft TPR, all training rows",
    reference="Sun et al. 2024 (Soft TPR), appendix C.2; network of Schott et al. 2022",
    high=1.0,
    slow=True,
    needs=("factor",),
)
def fov_regression_r2(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    num_test: int = 1_000,
    num_validation: int = 5_000,
    max_train: int = 50_000,
    num_networks: int = 1,
    as_published: bool = False,
) -> dict:
    """Return R² on test rows of a deep readout from the whole code, for several numbers of training rows.

    The targets of row i are its factors' values, value / (size - 1), of categorical factors too. A network of
    five hidden layers (d1, d2, d2, d2, d3 ReLU; d1 and d2 are 256 or 512, d3 is 128 or 256) predicts all.
    Its loss is the sum over factors of the squared error, by Adam with a learning rate of 1e-4 and batches of
    64; see SCHEDULES for the epochs. The last weights are kept. R² of a factor is 1 - mse / variance, with
    the variance of all rows of the table: (s + 1) / (12 (s - 1)) for the s values of a factor on a full grid.
    A circular factor is regressed on its value, which `fov_regression` does not do.

    Training, validation and test rows are disjoint, and codes are standardised by the training rows.
    `as_published` does what the authors' code does: "all" trains on every row, test rows included; where
    there are fewer than 17,850 rows, as of Cars3D, the sets of 100, 250 and 500 may hold test rows; R² is the
    mean over test batches of 64, the last of which, of 40, counts as much; codes are not standardised. Rows
    are then drawn even if the rows of a table are taken in order.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_test, num_validation : rows, at most a third of the table each.
    max_train : bound on "all" training rows, so that a table of 480,000 rows takes minutes; not of
        `as_published`.
    num_networks : networks whose R² are averaged (10 in the paper); every five share the widths drawn.
    as_published : see above.

    Returns
    -------
    fov_regression_r2 : mean R² over factors, of all training rows.
    fov_regression_r2_100, ..._250, ..._500, ..._1000, ..._10000 : the same of so many rows, which are the
        first of the training rows; left out if there are no more than that.
    fov_regression_r2_efficiency_100, ... : R² of so many rows over that of all, as in the paper's tables;
        left out if the latter is not above 0.
    fov_regression_r2_per_factor, fov_regression_r2_100_per_factor, ... : lists, None for a factor with a
        single value.
    fov_regression_r2_training_rows : how many "all" were.

    Raises
    ------
    DislabError : no factor varies; there are fewer than 6 rows, or of `as_published` fewer than 17,000.
    """
    if as_published:
        sizes, validation, test = published_rows(len(table), rng)
    else:
        sizes, validation, test = disjoint_rows(table, rng, num_validation, num_test, max_train)
    columns = np.flatnonzero(np.ptp(table.factors, axis=0))
    if not len(columns):
        raise no_factor_varies(f"{len(table)} rows of the table")
    targets = table.factors[:, columns] / (np.array(table.sizes)[columns] - 1)
    variance = targets.var(axis=0)
    batch = BATCH if as_published else None
    steps = sum(-(-len(rows) // BATCH) * schedule(len(rows))[0] for rows in sizes.values())
    if (hours := SECONDS * steps * num_networks / 3600) > 0.5:
        say(f"fov_regression_r2 takes some {hours:.1f} hours: {num_networks} networks of {steps:,} steps")
    found: dict[str, list[np.ndarray]] = {suffix: [] for suffix in sizes}
    for number in range(num_networks):
        if number % SEEDS == 0:
            widths = [int(rng.choice(choices)) for choices in WIDTHS]
        for suffix, rows in sizes.items():
            standardise = np.asarray if as_published else Standardiser(table.mean[rows])
            parts = [
                (standardise(table.mean[some]).astype(np.float32), targets[some])
                for some in (rows, validation, test)
            ]
            predicted = trained(parts[0], parts[1], widths, rng)(parts[2][0])
            found[suffix].append(r_squared(parts[2][1], predicted, variance, batch))
    scores = {}
    for suffix, networks in found.items():
        name = "fov_regression_r2" if suffix == "all" else f"fov_regression_r2_{suffix}"
        per_factor = np.mean(networks, axis=0)
        scores[name] = per_factor.mean()
        scores[name + "_per_factor"] = spread(per_factor, columns, len(table.names))
    of_all = scores["fov_regression_r2"]
    if of_all > 0:
        for suffix in (suffix for suffix in sizes if suffix != "all"):
            scores[f"fov_regression_r2_efficiency_{suffix}"] = scores[f"fov_regression_r2_{suffix}"] / of_all
    return scores | {"fov_regression_r2_training_rows": len(sizes["all"])}


def r_squared(
    wanted: np.ndarray, predicted: np.ndarray, variance: np.ndarray, batch: int | None = None
) -> np.ndarray:
    """Return 1 - mse / variance of every factor, float64 [K].

    Parameters
    ----------
    wanted, predicted : targets and predictions [B, K].
    variance : of each factor, [K].
    batch : None takes the mean error of all rows; a number, the mean over so many rows at a time of R².
    """
    error = np.square(predicted.astype(np.float64) - wanted)
    starts = range(0, len(error), batch or len(error))
    parts = [error[start : start + (batch or len(error))].mean(axis=0) for start in starts]
    return 1 - np.mean(parts, axis=0) / variance


# The rows ------------------------------------------------------------------------------------------


def disjoint_rows(
    table: CodeTable, rng: np.random.Generator, num_validation: int, num_test: int, max_train: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the training rows of each size, and rows for validation and for testing, all disjoint."""
    num_validation, num_test = (min(number, len(table) // 3) for number in (num_validation, num_test))
    if num_test < 2:
        raise DislabError(f"it needs at least 6 rows, not {len(table)}")
    num_train = min(max_train, len(table) - num_validation - num_test)
    rows, test = table.split(rng, num_train + num_validation, num_test, distinct=True)
    train, validation = rows[:num_train], rows[num_train:]
    sizes = {str(size): train[:size] for size in SCHEDULES if size < num_train}
    return sizes | {"all": train}, validation, test


def published_rows(
    num_rows: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return rows as the authors' code draws them: "all" are all rows, those of validation and test too."""
    lengths = {"10000": 10_000, "validation": 5_000, "test": 1_000, "1000": 1_000}
    small = {"500": 500, "250": 250, "100": 100}
    if num_rows < sum(lengths.values()):
        raise DislabError(f"the published rows are 17,000 or more, not {num_rows}: leave as_published out")
    groups = [lengths | small] if num_rows >= sum((lengths | small).values()) else [lengths, small]
    sets = {}
    for group in groups:
        ends = np.cumsum([*group.values()])
        sets |= dict(zip(group, np.split(rng.permutation(num_rows), ends)[:-1], strict=True))
    validation, test = sets.pop("validation"), sets.pop("test")
    return (
        {name: sets[name] for name in sorted(sets, key=int)} | {"all": np.arange(num_rows)},
        validation,
        test,
    )


# The network ---------------------------------------------------------------------------------------


def schedule(num_rows: int) -> tuple[int, int]:
    """Return the most epochs, and those without a lower validation loss after which training stops."""
    if num_rows > max(SCHEDULES):
        return OF_ALL
    return SCHEDULES[max((size for size in SCHEDULES if size <= num_rows), default=min(SCHEDULES))]


def trained(
    examples: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    widths: list[int],
    rng: np.random.Generator,
) -> Readout:
    """Return the network, a function from codes float32 [B, D] to predictions float32 [B, K].

    Parameters
    ----------
    examples, validation : codes float32 [N, D] and targets [N, K].
    widths : d1, d2, d3, see `fov_regression_r2`.
    """
    import torch
    from torch import nn

    (codes, targets), (others, wanted) = (
        [torch.from_numpy(array.astype(np.float32)) for array in pair] for pair in (examples, validation)
    )
    first, middle, last = widths
    sizes = [codes.shape[1], first, middle, middle, middle, last, targets.shape[1]]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**31)))
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    epochs, patience = schedule(len(codes))
    best, since = np.inf, 0
    for _ in range(epochs):
        for rows in torch.from_numpy(rng.permutation(len(codes))).split(BATCH):
            loss = (network(codes[rows]) - targets[rows]).square().sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            now = float((network(others) - wanted).square().sum(dim=1).mean())
        best, since = (now, 0) if now < best else (best, since + 1)
        if since >= patience:
            break
    return lambda new: network(torch.from_numpy(new)).detach().numpy()
