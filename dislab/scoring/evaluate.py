"""Scores of a representation: `dislab.evaluate` for arrays and encoders, `score` for a code table."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from dislab.data.space import Circle, FactorSpace, parse_groupings
from dislab.errors import DislabError, RunFailed
from dislab.registry import METRICS, NEEDS, Entry
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, metric_settings, protocol_used
from dislab.scoring.table import CodeTable, EncoderFailed


class Scores(dict):
    """A dict of score name -> float.

    Attributes
    ----------
    details : name -> what a metric returned besides single numbers, such as a curve over k.
    left_out, failed : metric name -> why it does not apply to this table, or its error.
    refused : the items of `failed` whose metric refused the table with a reason (DislabError).
    protocols : name of a score or a detail -> the metric protocol that it was computed by.
    """

    def __init__(self, *values, details: Mapping | None = None, left_out: Mapping | None = None):
        super().__init__(*values)
        self.details = dict(details or {})
        self.left_out = dict(left_out or {})
        self.failed: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.protocols: dict[str, str] = {}

    def to_frame(self):
        """Return a pandas DataFrame with one row per score and the columns score and value."""
        import pandas as pd

        return pd.DataFrame({"score": list(self), "value": list(self.values())})


def evaluate(
    encoder: Callable | None = None,
    *,
    codes: np.ndarray | None = None,
    factors: np.ndarray | None = None,
    logvar: np.ndarray | None = None,
    dataset=None,
    metrics: Iterable[str] | None = None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
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
    """Score codes from any framework, or an encoder on a dataset; raise RunFailed if a metric fails.

    Parameters
    ----------
    encoder : callable from images, float32 [B, C, H, W] in [0, 1], to codes [B, D]; it needs `dataset`.
    codes, factors : float [N, D] and int [N, K], instead of an encoder.
    logvar : float [N, D], log-variances of q(z|x) if the codes are means of Normals.
    dataset : a dataset's name, a folder of images, or a Dataset object.
    metrics : names of scores; by default all that apply and are not slow.
    metric_protocol : "locatello2019" or "softtpr2024", see `dislab.scoring.protocols.METRIC_PROTOCOLS`.
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
        if isinstance(dataset, str):
            dataset = dataset_from_text(dataset, source=source, data_dir=data_dir, device=device or "cpu")
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
    given = {"num_train": num_train, "num_test": num_test}
    settings = {name: value for name, value in given.items() if value is not None}
    scores = score(table, metrics, seed, metric_protocol=metric_protocol, **settings)
    for name, cause in scores.failed.items():
        raise RunFailed(f"metric '{name}' failed: {cause}")
    return scores


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raise if an argument of the other calling form of `evaluate` was passed."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise DislabError(f"{name} {why}: leave it out")


def score(
    table: CodeTable,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
    *,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    **settings,
) -> Scores:
    """Return the scores of a code table.

    A metric that does not apply to the table is left out, with the reason in `left_out`; so is a metric that
    refuses the table (DislabError) and was not named. The error of a metric that fails is in `failed`, and
    the other metrics are still computed. Every metric has its own random stream, so that a score does not
    depend on which others are computed.

    Parameters
    ----------
    metrics : names of scores; by default all that are not slow.
    progress : called with the name of each metric before it is computed.
    settings : arguments that replace the metric protocol's, for the metrics that have them.
    """
    changes = metric_settings(metric_protocol)
    entries = METRICS.default() if metrics is None else METRICS.choose(metrics)
    scores, returned = Scores(), {}
    for entry in entries:
        why = lacks(table, entry)
        if why and why != NEEDS["factor"]:  # such a table is refused by the metric, which may draw few rows
            scores.left_out[entry.name] = why
            continue
        function = entry.make
        if function not in returned:
            progress(entry.name)
            try:
                returned[function] = _call(entry, table, seed, changes.get(entry.name, {}) | settings)
            except EncoderFailed:  # rows may be encoded when a metric reads them: not the metric's failure
                raise
            except Exception as error:
                returned[function] = error
        result = returned[function]
        if not isinstance(result, Exception):
            _take(entry, result, scores)
            used = protocol_used(metric_protocol, entry.name)
            new = (name for name in (*scores, *scores.details) if name not in scores.protocols)
            scores.protocols |= dict.fromkeys(new, used)
        elif not isinstance(result, DislabError):
            scores.failed[entry.name] = f"{type(result).__name__}: {result}"
        elif metrics is None:  # a metric that was not named refuses this table
            scores.left_out[entry.name] = str(result)
        else:
            scores.failed[entry.name] = scores.refused[entry.name] = str(result)
    return scores


def _call(entry: Entry, table: CodeTable, seed: int, settings: Mapping):
    """Call a metric's function with its own random stream and those of the settings that it accepts."""
    from threadpoolctl import threadpool_limits

    accepted = inspect.signature(entry.make).parameters
    chosen = {name: value for name, value in settings.items() if name in accepted}
    # A registered name seeds the stream, so that moving or renaming the function changes no score.
    stream = zlib.crc32(METRICS.names_of(entry.make)[0].encode())
    # Classifiers' matrices are small: a second BLAS thread was measured to make them five times as slow on
    # two cores, and the last digits would depend on the number of threads.
    with threadpool_limits(limits=1):
        return entry.make(table, np.random.default_rng([seed, stream]), **chosen)


def _take(entry: Entry, result, scores: Scores) -> None:
    """Add a metric's result to the scores: a number, or the items whose keys begin with its name."""
    if not isinstance(result, Mapping):
        result = {entry.name: result}
    if entry.name not in result:
        scores.failed[entry.name] = f"returned {', '.join(map(repr, result))} but no '{entry.name}'"
        return
    for name, value in result.items():
        if name != entry.name and not name.startswith(entry.name + "_"):
            continue
        if isinstance(value, (list, tuple, np.ndarray)) and name != entry.name:
            scores.details[name] = value.tolist() if isinstance(value, np.ndarray) else list(value)
        elif isinstance(value, (int, float, np.number)) and np.isfinite(value):
            scores[name] = float(value)
        else:
            scores.failed[entry.name] = f"returned {name} = {value!r}, which is not a finite number"


def lacks(table: CodeTable, entry: Entry) -> str | None:
    """Return why a metric does not apply to a table, a value of NEEDS, or None if it applies."""
    return next((NEEDS[need] for need in entry.needs if not _has(table, need)), None)


def _has(table: CodeTable, need: str) -> bool:
    """Return whether a table has what a metric needs, a key of NEEDS."""
    if need in ("factor", "two factors"):
        return np.count_nonzero(np.ptp(table.factors, axis=0)) >= (2 if need == "two factors" else 1)
    if need == "grid":
        return table.full_grid
    attribute = {"variances": "logvar", "groups": "labels"}.get(need, need)
    if need != "groups" or getattr(table, attribute) is None:
        return getattr(table, attribute) is not None
    parts, least = [slice(None)], 4  # a readout is trained on half the rows of every group
    if table.tested is not None:
        parts, least = [table.tested, ~table.tested], 2
    for labels in table.labels.T:
        groups, index = np.unique(labels, return_inverse=True)
        counts = [np.bincount(index[part], minlength=len(groups)) for part in parts]
        if len(groups) < 2 or np.min(counts) < least:
            return False
    return True
