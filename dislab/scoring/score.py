"""Scores of a code table: every metric with its own random stream, settings and failures."""

from __future__ import annotations

import copy
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from dislab.errors import FAILURES, DislabError, DislabWarning, defined_in, in_words
from dislab.kept import kept, torch_threads
from dislab.notebook import html_table
from dislab.registry import METRICS, NEEDS, Entry
from dislab.scoring.class_readout import LEAST_ROWS, number_of_classes
from dislab.scoring.matrices import allows_matrices
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, SCALED, SCALES, MetricSettings
from dislab.scoring.readouts import Standardiser
from dislab.scoring.request import Asked, asked
from dislab.scoring.table import CodeTable, EncoderFailed

if TYPE_CHECKING:
    import pandas as pd

SLOW = "it takes minutes on so many dimensions and factor values: name it to compute it"


class Scores(dict[str, float]):
    """A dict of score name -> float.

    Attributes
    ----------
    details : name -> what a metric returned besides single numbers, such as a curve over k.
    left_out, failed : metric name -> why it does not apply to this table, or its error.
    protocols : name of a score or a detail -> the metric protocol that it was computed by.
    metrics : metric name -> {"direction": "up", "down" or "", "digest": of the text of the metric's file,
        "notes": list of the metric's remarks on this score, if it made any}.
    """

    def __init__(self, *values, details: Mapping | None = None, left_out: Mapping | None = None):
        super().__init__(*values)
        self.details = dict(details or {})
        self.left_out = dict(left_out or {})
        self.failed: dict[str, str] = {}
        self.protocols: dict[str, str] = {}
        self.metrics: dict[str, dict] = {}

    def add(self, other: Scores) -> None:
        """Add the scores of another call, with all that stands beside them."""
        self.update(other)
        for name, values in vars(other).items():
            getattr(self, name).update(values)

    def notes(self) -> list[tuple[str, str]]:
        """Return the remarks of the metrics as lines, each once, with the first metric that made it."""
        notes: dict[str, str] = {}
        for name, about in self.metrics.items():
            for note in about.get("notes", []):
                notes.setdefault(note, name)
        return [
            (name, note if note.startswith(name.partition("@")[0]) else f"{name}: {note}")
            for note, name in notes.items()
        ]

    def _repr_html_(self, caption: str = "Scores") -> str:
        better = {"up": "higher", "down": "lower"}
        lines = [
            (name, f"{value:.4f}", better.get(self.metrics.get(name, {}).get("direction"), ""))
            for name, value in self.items()
        ]
        below = "; ".join(f"{name} is left out: {cause}" for name, cause in self.left_out.items())
        return html_table(caption, ("score", "value", "better"), lines, below)

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame with one row per score and the columns score and value."""
        import pandas as pd

        return pd.DataFrame({"score": list(self), "value": list(self.values())})


def score(
    table: CodeTable,
    metrics: Iterable[str] | str | None = None,
    seed: int = 0,
    *,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    metric_settings: Mapping[str, Mapping[str, object]] = {},
    **shared,
) -> Scores:
    """Return the scores of a code table: `compute` of what `dislab.scoring.request.asked` returns."""
    return compute(asked(metrics, metric_protocol, metric_settings, shared), table, seed)


def compute(
    wanted: Mapping[str, Asked],
    table: CodeTable,
    seed: int,
    progress: Callable[[str], None] = lambda name: None,
) -> Scores:
    """Return the scores that are asked for.

    A metric that does not apply to the table is left out, with the reason in `left_out`; so is a metric that
    refuses the table (DislabError) and is not named. The error of any other metric that fails is in `failed`,
    and the other metrics are still computed. Every metric has its own random stream, so that a score does not
    depend on which others are computed.

    Parameters
    ----------
    wanted : what is asked for, by the names that the scores get.
    progress : called with the name of each metric before it is computed.
    """
    scores, returned = Scores(), {}
    tables = {SCALES[0]: table}
    for name, one in wanted.items():
        entry, settings, is_named = one
        why = lacks(table, one)
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
        if isinstance(result, DislabError) and not is_named:
            scores.left_out[name], scores.metrics[name] = in_words(result, entry.make), entry.about
            continue
        try:
            numbers, details = _taken(entry, result)
        except FAILURES as error:
            scores.failed[name] = in_words(error, entry.make)
            if "read-only" in scores.failed[name]:
                scores.failed[name] += ": what a metric is given is read-only, copy it first (codes.copy())"
            continue
        suffix = name.removeprefix(entry.name)
        numbers, details = ({key + suffix: it for key, it in part.items()} for part in (numbers, details))
        scores |= numbers
        scores.details |= details
        scores.protocols |= dict.fromkeys((*numbers, *details), settings.protocol)
        scores.metrics[name] = entry.about | ({"notes": notes} if notes else {})
    return scores


def lacks(table: CodeTable, one: Asked) -> str | None:
    """Return why a metric does not apply to a table, or None if it applies.

    The reason is a value of NEEDS, SCALED, or SLOW for a metric that is slow there and not named.
    """
    if one.settings.scale != SCALES[0] and {"variances", "reconstruction"} & set(one.metric.needs):
        return SCALED
    if not one.is_named and callable(one.metric.slow) and one.metric.slow(table):
        return SLOW
    return next((NEEDS[need] for need in one.metric.needs if not _has(table, need)), None)


def standardised(table: CodeTable) -> CodeTable:
    """Return the table with every code dimension shifted to mean 0 and scaled to variance 1 over all rows.

    A constant dimension becomes 0.
    """
    other = copy.copy(table)
    mean = np.asarray(table.mean)
    of_codes = Standardiser(mean)
    other.mean = ((mean - of_codes.shift) / of_codes.scale).astype(np.float32)
    if table.logvar is not None:
        deviation = np.where(of_codes.varies, of_codes.scale, 1)
        other.logvar = (np.asarray(table.logvar) - 2 * np.log(deviation)).astype(np.float32)
    return other


def _call(entry: Entry, table: CodeTable, seed: int, settings: MetricSettings) -> tuple[object, list[str]]:
    """Call a metric's function with its own random stream; return its result or error, and its remarks."""
    from threadpoolctl import threadpool_limits

    # A registered name seeds the stream, so that moving or renaming the function changes no score.
    stream = zlib.crc32(METRICS.names_of(entry.make)[0].encode())
    # Classifiers' matrices are small: a second BLAS thread was measured to make them five times as slow on
    # two cores, and the last digits would depend on the number of threads.
    threads = torch_threads()
    with threadpool_limits(limits=1), kept(threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DislabWarning)
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # torch's: the metric owns it
        try:
            result = entry.make(table.to_read(), np.random.default_rng([seed, stream]), **settings.arguments)
        except EncoderFailed:  # rows may be encoded when a metric reads them: not the metric's failure
            raise
        except FAILURES as error:
            result = error
    notes = [str(one.message) for one in caught if issubclass(one.category, DislabWarning)]
    for one in caught:
        if not issubclass(one.category, DislabWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return result, list(dict.fromkeys(notes))


def _taken(entry: Entry, result) -> tuple[dict[str, float], dict[str, list]]:
    """Return the numbers and the lists of a metric's result whose names begin with the metric's.

    Raises
    ------
    Exception : the metric raised it; DislabError if the result is not one that a metric may return.
    """
    if isinstance(result, FAILURES):
        raise result
    if not isinstance(result, Mapping):
        result = {entry.name: result}
    if entry.name not in result:
        names = ", ".join(map(repr, result))
        raise DislabError(f"returned {names} but no '{entry.name}'{defined_in(entry.make)}")
    numbers, details = {}, {}
    for name, value in result.items():
        if name != entry.name and not str(name).startswith(entry.name + "_"):
            continue
        try:
            if isinstance(value, (list, tuple, np.ndarray)) and name != entry.name:
                details[name] = _plain(value)
            else:
                numbers[name] = float(_plain(value))
            is_right = isfinite(numbers.get(name, 0))
        except (TypeError, OverflowError):
            is_right = False
        if not is_right:
            wrong = f"returned {name} = {textwrap.shorten(repr(value), 60)}, which is not a finite number"
            wrong += "" if name == entry.name else " or a list of numbers"
            raise DislabError(wrong + defined_in(entry.make))
    return numbers, details


def _plain(value):
    """Return numbers, and lists of them, as Python's own, which JSON can hold; raise TypeError for others."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError


def _has(table: CodeTable, need: str) -> bool:
    """Return whether a table has what a metric needs, a key of NEEDS."""
    if need in ("factor", "two factors", "quantities"):
        return table.num_varying >= (2 if need == "two factors" else 1)
    if need == "grid":
        return table.full_grid
    if need == "matrices":
        return allows_matrices(table)
    attribute = {"variances": "logvar", "groups": "labels"}.get(need, need)
    if need != "groups" or getattr(table, attribute) is None:
        return getattr(table, attribute) is not None
    if min(number_of_classes(labels) for labels in table.labels.T) < 2:
        return False
    if table.tested is None:  # a readout is trained on half the rows of every group
        return True
    for labels in table.labels.T:
        groups, index = np.unique(labels, return_inverse=True)
        counts = [np.bincount(index[part], minlength=len(groups)) for part in (table.tested, ~table.tested)]
        if np.min(counts) < LEAST_ROWS // 2:
            return False
    return True
