"""`dislab.evaluate`: score the codes of any framework, or an encoder on a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dislab.data.space import Circle, FactorSpace, parse_groupings
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL
from dislab.scoring.score import Scores, score
from dislab.scoring.table import CodeTable


def evaluate(
    encoder: Callable | None = None,
    *,
    codes: np.ndarray | None = None,
    factors: np.ndarray | None = None,
    logvar: np.ndarray | None = None,
    dataset=None,
    metrics: Iterable[str] | None = None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    metric_settings: Mapping[str, Mapping[str, object]] | None = None,
    scale: str = "raw",
    seed: int = 0,
    shuffle: bool = True,
    num_train: int | None = None,
    num_test: int | None = None,
    factor_names: Sequence[str] | None = None,
    blocks: Mapping[str, slice] | None = None,
    group_by: str | Sequence | None = None,
    circle: Circle | None = None,
    source: str = "auto",
    data_dir=None,
    device: str | None = None,
    max_rows: int | None = None,
) -> Scores:
    """Score codes from any framework, or an encoder on a dataset.

    A remark of a metric on its score is a `dislab.DislabWarning`.

    Raises
    ------
    DislabError : an argument is wrong.
    RunFailed : a metric failed.

    Parameters
    ----------
    encoder : callable from images, float32 [B, C, H, W] in [0, 1], to codes [B, D], or to a pair (mean,
        logvar) of such arrays, or to a Normal; or a transformer of scikit-learn. It needs `dataset`.
        "Codes and encoders of your own" in docs/metrics.md lists all that it may return.
    codes, factors : float [N, D] and int [N, K], instead of an encoder.
    logvar : float [N, D], log-variances of q(z|x) if the codes are means of Normals.
    dataset : a dataset's name, a folder of images, or a Dataset object.
    metrics : names of scores; by default all that apply and are not slow. A name may have settings of its
        own: "sap@scale=unit".
    metric_protocol : "locatello2019", "softtpr2024" or settings, see `dislab.scoring.protocols`.
    metric_settings : settings of single metrics, such as {"sap": {"continuous_factors": True}}; the keyword
        arguments of a metric's function say which it has.
    scale : "unit" standardises every code dimension first, for metrics that depend on the scale of the codes.
        Such scores have a protocol of their own, and are not those of a published protocol.
    seed : decides every random draw.
    shuffle : whether rows are sampled; False takes the rows of `codes` in their order, first num_train, then
        num_test.
    num_train, num_test : numbers of points, for the metrics that have them; by default the metric protocol's.
    factor_names : names of the columns of `factors`.
    blocks : named slices of the code dimensions, such as {"content": slice(0, 10), "style": slice(10, 20)}.
    group_by : factor name(s) whose combined value is the class of the content and style scores (a list of
        lists for several groupings); by default the dataset's own, or the first column of `factors`.
    circle : a `dislab.Circle` that names the circular factor of `factors`, for pose_error; a dataset brings
        its own.
    source, data_dir, device : as for `dislab.load_dataset`.
    max_rows : encode this many randomly chosen rows instead of the whole dataset.

    Examples
    --------
    >>> import dislab, numpy as np
    >>> factors = np.random.default_rng(0).integers(0, 4, size=(2000, 2))
    >>> dislab.evaluate(codes=factors.astype(float), factors=factors, metrics=["mig"])["mig"] > 0.9
    True
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise DislabError(f"seed is {seed!r}: it must be a whole number, 0 or more")
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if encoder is not None:
        from dislab.data.own import dataset_from_text
        from dislab.scoring.encoding import choose_rows, encode

        if codes is not None or factors is not None or dataset is None:
            raise DislabError(
                "give an encoder with dataset=NAME, or codes=[N, D] with factors=[N, K]: not both"
            )
        of_codes = {"logvar": logvar, "factor_names": factor_names, "circle": circle, "shuffle": not shuffle}
        _refuse(of_codes, "is for codes=[N, D], and an encoder is given")
        if max_rows is not None and not (isinstance(max_rows, int) and max_rows >= 1):
            raise DislabError(f"max_rows is {max_rows!r}: it must be a whole number, 1 or more")
        if isinstance(dataset, str | Path):
            dataset = dataset_from_text(
                str(dataset), source=source, data_dir=data_dir, device=device or "cpu"
            )
        rows = choose_rows(dataset, max_rows, seed)
        groupings = parse_groupings(group_by, dataset.group_by)
        # A named metric may need some of the rows only; all metrics together need all rows.
        on_demand = metrics is not None
        table = encode(encoder, dataset, rows, blocks=blocks, group_by=groupings, on_demand=on_demand)
    else:
        if codes is None or factors is None:
            raise DislabError(
                "evaluate needs codes=[N, D] with factors=[N, K], or an encoder with dataset=NAME"
            )
        of_encoder = {"dataset": dataset, "data_dir": data_dir, "device": device, "max_rows": max_rows}
        _refuse(of_encoder | {"source": source != "auto"}, "is for an encoder, and codes=[N, D] are given")
        options = {"logvar": logvar, "names": factor_names, "blocks": blocks, "circle": circle}
        table = CodeTable(codes, factors, **options, ordered=not shuffle)
        space = FactorSpace(table.names, table.sizes, table.factors)
        table.labels = space.labels_of(parse_groupings(group_by, table.names[:1]))
    arguments = {"num_train": num_train, "num_test": num_test, "scale": scale}
    shared = {name: value for name, value in arguments.items() if value is not None}
    scores = score(
        table, metrics, seed, metric_protocol=metric_protocol, metric_settings=metric_settings or {}, **shared
    )
    for name, cause in scores.failed.items():
        raise RunFailed(f"metric '{name}' failed: {cause}")
    for _, line in scores.notes():
        warnings.warn(line, DislabWarning, stacklevel=2)
    return scores


def _refuse(arguments: Mapping[str, object], why: str) -> None:
    """Raise if an argument of the other calling form of `evaluate` was passed."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise DislabError(f"{name} {why}: leave it out")
