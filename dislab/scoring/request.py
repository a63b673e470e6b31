"""Which scores are asked for: names of metrics, with the metric protocol that each is computed by.

A request is a tuple of names as records have them: "mig", "betavae_score@softtpr2024". "default" stands for
all metrics that apply and are not slow. A named metric that refuses a table has failed; one that only
"default" asked for is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dislab.arguments import keyword_defaults
from dislab.registry import METRICS, NEEDS, Entry, unknown_name
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, named_protocol, recorded_name, settings_of
from dislab.scoring.score import SCALED, Scores, score
from dislab.scoring.table import CodeTable

DEFAULT = "default"


class Asked(NamedTuple):
    """A metric that is asked for; it is named, or among the default ones."""

    metric: Entry
    is_named: bool


def request(
    metrics: Iterable[str] | str | None, metric_protocol: str = DEFAULT_METRIC_PROTOCOL
) -> tuple[str, ...]:
    """Return the request for the scores or groups of scores that a user names; None asks for "default".

    A name may have a protocol of its own, as in "sap@scale=unit"; the others get `metric_protocol`.

    Raises
    ------
    DislabError : a name, a protocol or a setting is wrong.
    """
    named_protocol(metric_protocol)
    names = [DEFAULT] if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    asked = {DEFAULT: None} if DEFAULT in names else {}
    for text in names:
        name, _, own = text.partition("@")
        protocol = own or metric_protocol
        if name == DEFAULT:
            _check_of_some(protocol)
            asked[recorded_name(DEFAULT, protocol)] = None
        for metric in [] if name == DEFAULT else METRICS.choose([name]):
            asked[recorded_name(metric.name, settings_of(metric, protocol).protocol)] = None
    return tuple(asked)


def _check_of_some(protocol: str) -> None:
    """Raise DislabError if no metric has a setting that a protocol changes."""
    known = {"scale"}.union(*(keyword_defaults(metric.make) for metric in METRICS))
    for setting in named_protocol(protocol)[1]:
        if setting not in known:
            raise unknown_name("setting of a metric", setting, sorted(known))


def entries(asked: Iterable[str]) -> dict[str, Asked]:
    """Return what a request asks for, by recorded name."""
    wanted: dict[str, Asked] = {}
    for text in asked:
        name, _, protocol = text.partition("@")
        published, changes = named_protocol(protocol or DEFAULT_METRIC_PROTOCOL)
        for metric in METRICS.default() if name == DEFAULT else METRICS.choose([name]):
            recorded = recorded_name(metric.name, settings_of(metric, published, shared=changes).protocol)
            is_named = name != DEFAULT or (recorded in wanted and wanted[recorded].is_named)
            wanted[recorded] = Asked(metric, is_named)
    return wanted


def missing(asked: Iterable[str], record: Mapping, again: bool = False) -> dict[str, Asked]:
    """Return what a request asks for and a record lacks, by recorded name.

    A score is lacking, too, if the text of its metric's file has changed since; `again` asks for all scores.
    A metric that was left out of the record is not missing, unless it refused the table and is named now.
    """
    refused = {name for name, why in record["left_out"].items() if why not in (*NEEDS.values(), SCALED)}
    return {
        name: one
        for name, one in entries(asked).items()
        if again
        or record["metrics"].get(name, {}).get("source") != one.metric.source
        or (one.is_named and name in refused)
    }


def compute(
    wanted: Mapping[str, Asked],
    table: CodeTable,
    seed: int,
    progress: Callable[[str], None] = lambda name: None,
) -> Scores:
    """Return the scores that `entries` or `missing` lists, by their recorded names.

    A metric that was not named and refuses the table is left out; one that was named has then failed.
    """
    scores = score(table, list(wanted), seed, progress)
    for name, why in scores.refused.items():
        if not wanted[name].is_named:
            scores.left_out[name] = why
            scores.metrics[name] = wanted[name].metric.about
            del scores.failed[name]
    return scores
