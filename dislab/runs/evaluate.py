"""`dislab.evaluate`: score the codes of any framework, or an encoder on a dataset, and record the scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dislab.data.arrays import as_factors
from dislab.data.dataset import Dataset
from dislab.data.load import check_factors_file, load_dataset
from dislab.data.space import Circle, FactorSpace, parse_groupings
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.registry import METRICS, MODELS, NAME
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL
from dislab.scoring.request import asked
from dislab.scoring.score import Scores, compute
from dislab.scoring.table import CodeTable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def evaluate(
    encoder: object = None,
    *,
    codes: ArrayLike | None = None,
    factors: ArrayLike | str | Path | None = None,
    logvar: ArrayLike | None = None,
    dataset: str | Path | Dataset | None = None,
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
    group_by: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
    circle: Circle | None = None,
    source: str = "auto",
    data_dir: str | Path | None = None,
    device: str | None = None,
    max_rows: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
) -> Scores:
    """Score codes from any framework, or an encoder on a dataset; with a name, also record the scores.

    A remark of a metric on its score is a `dislab.DislabWarning`.

    Raises
    ------
    DislabError : an argument is wrong.
    RunFailed : a metric failed, or the record cannot be written.

    Parameters
    ----------
    encoder : callable from images, float32 [B, C, H, W] in [0, 1], to codes [B, D], or to a pair (mean,
        logvar) of such arrays, or to a Normal; or a transformer of scikit-learn. It needs `dataset`.
        "Codes and encoders of your own" in docs/metrics.md lists all that it may return.
    codes, factors : float [N, D] and int [N, K], instead of an encoder. With a dataset these are its factors,
        and may be left out if there is a code for each of its images, in their order. With a folder of
        images, factors is also the path of their CSV file, see `dislab.from_folder`. Without a dataset,
        factors may be real numbers if all `metrics` are scores that take them, such as mcc_pearson.
    logvar : float [N, D], log-variances of q(z|x) if the codes are means of Normals.
    dataset : a dataset's name, a folder of images, or a Dataset object. With codes it is the dataset
        that they are codes of, and brings names, sizes, groups and circle of its factors.
    metrics : names of scores; by default all that apply and are not slow. A name may have settings of its
        own: "sap@scale=unit".
    metric_protocol : "locatello2019", "softtpr2024", "vansteenkiste2019" or settings, see
        `dislab.scoring.protocols`.
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
    name : what tables call these codes. Their scores become a record in the results folder `out`, with the
        source "external", beside those of dislab's own runs; it needs a dataset. Seeds of one name are
        one row. Codes of the same name and seed replace those before, with a warning.
    out : the results folder, "results" by default.

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
    arguments = {"num_train": num_train, "num_test": num_test, "scale": scale}
    shared = {name: value for name, value in arguments.items() if value is not None}
    wanted = asked(metrics, metric_protocol, metric_settings or {}, shared)
    if name is not None:
        check_external(name, dataset)
    elif out is not None:
        raise DislabError("out is for a record, which needs a name: name=TEXT")
    factors_file = factors if isinstance(factors, str | Path) else None
    if factors_file is not None:
        if dataset is None:
            raise DislabError(f"factors is the path '{factors}': a CSV file is of a dataset=FOLDER")
        check_factors_file(str(dataset) if isinstance(dataset, Path) else dataset, factors_file)
        factors = None
    if encoder is None and (codes is None or (factors is None and dataset is None)):
        raise DislabError("evaluate needs codes=[N, D] with factors=[N, K], or an encoder with dataset=NAME")
    if encoder is not None and (codes is not None or factors is not None or dataset is None):
        raise DislabError("give an encoder with dataset=NAME, or codes=[N, D] with factors=[N, K]: not both")
    if isinstance(dataset, str | Path):
        where = {"source": source, "data_dir": data_dir, "device": device or "cpu"}
        dataset = load_dataset(dataset, factors=factors_file, **where)
    if encoder is not None:
        from dislab.scoring.encoding import choose_rows, encode

        of_codes = {"logvar": logvar, "factor_names": factor_names, "circle": circle, "shuffle": not shuffle}
        _refuse(of_codes, "is for codes=[N, D], and an encoder is given")
        if max_rows is not None and not (isinstance(max_rows, int) and max_rows >= 1):
            raise DislabError(f"max_rows is {max_rows!r}: it must be a whole number, 1 or more")
        rows = choose_rows(dataset, max_rows, seed)
        groupings = parse_groupings(group_by, dataset.group_by)
        # A named metric may need some of the rows only; all metrics together, and a record, need all rows.
        on_demand = metrics is not None and name is None
        table = encode(encoder, dataset, rows, blocks=blocks, group_by=groupings, on_demand=on_demand)
    else:
        of_encoder = {"device": device, "max_rows": max_rows}
        _refuse(of_encoder, "is for an encoder, and codes=[N, D] are given")
        options = {"logvar": logvar, "blocks": blocks, "ordered": not shuffle}
        if dataset is None:
            of_dataset = {"data_dir": data_dir, "source": source != "auto"}
            _refuse(of_dataset, "is for a dataset, and none is given")
            real = all("quantities" in one.metric.needs for one in wanted.values())
            factors = factors if real else as_factors(factors, _name_others())
            options |= {"names": factor_names, "circle": circle, "real_factors": real}
            table = CodeTable(codes, factors, **options)
            groupings = parse_groupings(group_by, table.names[:1])
        else:
            _refuse({"factor_names": factor_names, "circle": circle}, "is known, because a dataset is given")
            table, rows = table_of_dataset(dataset, codes, factors, **options)
            groupings = parse_groupings(group_by, dataset.group_by)
        if table.sizes:
            table.labels = FactorSpace(table.names, table.sizes, table.factors).labels_of(groupings)
    scores = compute(wanted, table, seed)
    for name, cause in scores.failed.items():
        raise RunFailed(f"metric '{name}' failed: {cause}")
    for _, line in scores.notes():
        warnings.warn(line, DislabWarning, stacklevel=2)
    if name is not None:
        from dislab.runs.external import write_external
        from dislab.runs.images import source_of

        images = source_of(dataset) if encoder is not None else ""
        write_external(name, dataset, groupings, table, rows, scores, seed, out or "results", images)
    return scores


def _name_others() -> str:
    """Return which scores of factors take real numbers, for the error of those that do not."""
    names = ", ".join(entry.name for entry in METRICS if "quantities" in entry.needs)
    return f", or ask for none but scores that take real numbers: {names}"


def check_external(name: object, dataset: object) -> None:
    """Raise DislabError if codes cannot be recorded under this name, or their dataset is not said."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DislabError(f"name is {name!r}: write letters, digits, _ and -, at most 100")
    if name in MODELS:
        raise DislabError(f"name is '{name}', which is a model of dislab: choose another for your codes")
    if dataset is None:
        raise DislabError(
            f"'{name}' needs a dataset: say of which the codes are, dataset=NAME (--dataset NAME)"
        )


def table_of_dataset(dataset: Dataset, codes, factors, **options) -> tuple[CodeTable, np.ndarray]:
    """Return the code table of codes of a dataset, and their rows int64 [N].

    Rows of a dataset that is no full grid are not known if factors are given: they are then counted from 0.

    Parameters
    ----------
    factors : None if there is a code for each image that is scored, in their order.
    options : of `CodeTable`.

    Raises
    ------
    DislabError : codes or factors are not those of this dataset.
    """
    space, rows, tested = dataset.space, None, None
    if factors is None:
        rows = dataset.evaluation_rows()
        if len(codes) != len(rows):
            raise DislabError(
                f"there are {len(codes):,} codes and {len(rows):,} images of {dataset.name}: give their "
                "factors, or a code for each image in the order of the dataset"
            )
        factors, tested = space.factors(rows), dataset.is_test(rows)
    table = CodeTable(
        codes, factors, names=space.names, sizes=space.sizes, circle=space.circle, tested=tested, **options
    )
    most = table.factors.max(axis=0)
    for name, size, value in zip(space.names, space.sizes, most, strict=True):
        if value >= size:
            raise DislabError(f"factor {name} of {dataset.name} has the values 0 to {size - 1}, not {value}")
    if rows is None:
        rows = space.rows(table.factors) if space.is_grid else np.arange(len(table))
    table.full_grid = space.is_grid and len(rows) == len(space) == len(np.unique(rows))
    return table, rows


def _refuse(arguments: Mapping[str, object], why: str) -> None:
    """Raise if an argument of the other calling form of `evaluate` was passed."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise DislabError(f"{name} {why}: leave it out")
