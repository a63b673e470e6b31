"""Scores of a code table: every metric with its own random stream, settings and failures."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from dislab.errors import DislabError, DislabWarning, defined_in, in_words
from dislab.registry import METRICS, NEEDS, Entry
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, SCALES, Settings, settings_of
from dislab.scoring.table import CodeTable, EncoderFailed

SCALED = "scale=unit changes the densities of q(z|x)"


class Scores(dict):
    """A dict of score name -> float.

    Attributes
    ----------
    details : name -> what a metric returned besides single numbers, such as a curve over k.
    left_out, failed : metric name -> why it does not apply to this table, or its error.
    refused : the items of `failed` whose metric refused the table with a reason (DislabError).
    protocols : name of a score or a detail -> the metric protocol that it was computed by.
    metrics : metric name -> {"direction": "up", "down" or "", "source": digest of the metric's file}, and
        under "notes" a list of its remarks on this score, if it made any.
    """

    def __init__(self, *values, details: Mapping | None = None, left_out: Mapping | None = None):
        super().__init__(*values)
        self.details = dict(details or {})
        self.left_out = dict(left_out or {})
        self.failed: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.protocols: dict[str, str] = {}
        self.metrics: dict[str, dict] = {}

    def notes(self) -> list[tuple[str, str]]:
        """Return the remarks of the metrics, each once with the name of the first metric that made it."""
        notes: dict[str, str] = {}
        for name, about in self.metrics.items():
            for note in about.get("notes", []):
                notes.setdefault(note, name)
        return [(name, note) for note, name in notes.items()]

    def to_frame(self):
        """Return a pandas DataFrame with one row per score and the columns score and value."""
        import pandas as pd

        return pd.DataFrame({"score": list(self), "value": list(self.values())})


def score(
    table: CodeTable,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
    *,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    metric_settings: Mapping[str, Mapping[str, object]] = {},
    **shared,
) -> Scores:
    """Return the scores of a code table.

    A metric that does not apply to the table is left out, with the reason in `left_out`; so is a metric that
    refuses the table (DislabError) and was not named. The error of a metric that fails is in `failed`, and
    the other metrics are still computed. Every metric has its own random stream, so that a score does not
    depend on which others are computed.

    Parameters
    ----------
    metrics : names of scores, which may have a protocol of their own, as in "sap@scale=unit"; by default all
        that are not slow.
    progress : called with the name of each metric before it is computed.
    metric_protocol : of the metrics whose names have none, see `dislab.scoring.protocols`.
    metric_settings : name of a score or of a group -> settings of its own.
    shared : settings of all metrics that have them.

    Raises
    ------
    DislabError : a name, a protocol or a setting is wrong.
    """
    chosen = _chosen(metrics, metric_protocol, metric_settings, shared)
    scores, returned = Scores(), {}
    tables = {SCALES[0]: table}
    for name, (entry, settings) in chosen.items():
        why = lacks(table, entry)
        if settings.scale != SCALES[0] and {"variances", "reconstruction"} & set(entry.needs):
            why = SCALED
        if why and why != NEEDS["factor"]:  # such a table is refused by the metric, which may draw few rows
            scores.left_out[name], scores.metrics[name] = why, entry.about
            continue
        call = entry.make, settings.protocol
        if call not in returned:
            progress(name)
            if settings.scale not in tables:
                tables[settings.scale] = standardised(table)
            returned[call] = _call(entry, tables[settings.scale], seed, settings)
        result, notes = returned[call]
        if not isinstance(result, Exception):
            _take(entry, name, result, scores)
            scores.metrics[name] = entry.about | ({"notes": notes} if notes else {})
            new = (other for other in (*scores, *scores.details) if other not in scores.protocols)
            scores.protocols |= dict.fromkeys(new, settings.protocol)
        elif not isinstance(result, DislabError):
            scores.failed[name] = in_words(result, entry.make)
        elif metrics is None:  # a metric that was not named refuses this table
            scores.left_out[name], scores.metrics[name] = str(result), entry.about
        else:
            scores.failed[name] = scores.refused[name] = str(result)
    return scores


def _chosen(
    metrics: Iterable[str] | None, metric_protocol: str, metric_settings: Mapping, shared: Mapping
) -> dict[str, tuple[Entry, Settings]]:
    """Return the metrics to compute with their settings, by the names that their scores get."""
    own = {}
    for name, values in metric_settings.items():
        if not isinstance(values, Mapping):
            raise DislabError(f"metric_settings of {name} is {values!r}: it must map settings to values")
        own |= {entry.name: values for entry in METRICS.choose([name])}
    names = [entry.name for entry in METRICS.default()] if metrics is None else metrics
    chosen = {}
    for text in [names] if isinstance(names, str) else names:
        name, at, protocol = text.partition("@")
        for entry in METRICS.choose([name]):
            settings = settings_of(entry, protocol or metric_protocol, own.get(entry.name, {}), shared)
            chosen[entry.name + at + protocol] = entry, settings
    unused = own.keys() - {entry.name for entry, _ in chosen.values()}
    if unused:
        raise DislabError(f"metric_settings names {min(unused)}, which is not among the metrics to compute")
    return chosen


def lacks(table: CodeTable, entry: Entry) -> str | None:
    """Return why a metric does not apply to a table, a value of NEEDS, or None if it applies."""
    return next((NEEDS[need] for need in entry.needs if not _has(table, need)), None)


def standardised(table: CodeTable) -> CodeTable:
    """Return the table with every code dimension shifted to mean 0 and scaled to variance 1 over all rows.

    A constant dimension becomes 0.
    """
    other = copy.copy(table)
    mean = np.asarray(table.mean, np.float64)
    deviation = np.where(np.ptp(mean, axis=0) > 0, mean.std(axis=0), 1)
    other.mean = ((mean - mean.mean(axis=0)) / deviation).astype(np.float32)
    other.mean[:, np.ptp(mean, axis=0) == 0] = 0
    if table.logvar is not None:
        other.logvar = (np.asarray(table.logvar) - 2 * np.log(deviation)).astype(np.float32)
    return other


def _call(entry: Entry, table: CodeTable, seed: int, settings: Settings) -> tuple[object, list[str]]:
    """Call a metric's function with its own random stream; return its result or error, and its remarks."""
    from threadpoolctl import threadpool_limits

    # A registered name seeds the stream, so that moving or renaming the function changes no score.
    stream = zlib.crc32(METRICS.names_of(entry.make)[0].encode())
    # Classifiers' matrices are small: a second BLAS thread was measured to make them five times as slow on
    # two cores, and the last digits would depend on the number of threads.
    with threadpool_limits(limits=1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DislabWarning)
        try:
            result = entry.make(table, np.random.default_rng([seed, stream]), **settings.arguments)
        except EncoderFailed:  # rows may be encoded when a metric reads them: not the metric's failure
            raise
        except Exception as error:
            result = error
    notes = [str(one.message) for one in caught if issubclass(one.category, DislabWarning)]
    for one in caught:
        if not issubclass(one.category, DislabWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return result, list(dict.fromkeys(notes))


def _take(entry: Entry, recorded: str, result, scores: Scores) -> None:
    """Add a metric's result to the scores: a number, or the items whose keys begin with its name.

    `recorded` is the metric's name among the scores, which may have a protocol: "sap@scale=unit".
    """
    suffix = recorded.removeprefix(entry.name)
    if not isinstance(result, Mapping):
        result = {entry.name: result}
    if entry.name not in result:
        got = ", ".join(map(repr, result))
        scores.failed[recorded] = f"returned {got} but no '{entry.name}'{defined_in(entry.make)}"
        return
    for name, value in result.items():
        if name != entry.name and not name.startswith(entry.name + "_"):
            continue
        if isinstance(value, (list, tuple, np.ndarray)) and name != entry.name:
            scores.details[name + suffix] = value.tolist() if isinstance(value, np.ndarray) else list(value)
        elif isinstance(value, (int, float, np.number)) and np.isfinite(value):
            scores[name + suffix] = float(value)
        else:
            wrong = f"returned {name} = {value!r}, which is not a finite number"
            scores.failed[recorded] = wrong + defined_in(entry.make)


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
