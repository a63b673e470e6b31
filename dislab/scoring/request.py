"""Which scores are asked for: names of metrics, with the metric protocol that each is computed by.

A request is a tuple of names as records have them: "mig", "betavae_score@softtpr2024". "default" stands for
all metrics that apply and are not slow. A named metric that refuses a table has failed; one that only
"default" asked for is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dislab.registry import METRICS, NEEDS, Entry
from dislab.scoring.evaluate import Scores, score
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, metric_settings, protocol_used, recorded_name
from dislab.scoring.table import CodeTable

DEFAULT = "default"


class Asked(NamedTuple):
    """A metric that is asked for, by its metric protocol; it is named, or among the default ones."""

    metric: Entry
    protocol: str
    is_named: bool


def request(
    metrics: Iterable[str] | str | None, metric_protocol: str = DEFAULT_METRIC_PROTOCOL
) -> tuple[str, ...]:
    """Return the request for the scores or groups of scores that a user names; None asks for "default"."""
    metric_settings(metric_protocol)
    names = [DEFAULT] if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    asked = [recorded_name(DEFAULT, metric_protocol)] if DEFAULT in names else []
    for metric in METRICS.choose(name for name in names if name != DEFAULT):
        asked.append(recorded_name(metric.name, protocol_used(metric_protocol, metric.name)))
    return tuple(dict.fromkeys(asked))


def entries(asked: Iterable[str]) -> dict[str, Asked]:
    """Return what a request asks for, by recorded name."""
    wanted: dict[str, Asked] = {}
    for text in asked:
        name, _, protocol = text.partition("@")
        for metric in METRICS.default() if name == DEFAULT else METRICS.choose([name]):
            used = protocol_used(protocol or DEFAULT_METRIC_PROTOCOL, metric.name)
            recorded = recorded_name(metric.name, used)
            is_named = name != DEFAULT or (recorded in wanted and wanted[recorded].is_named)
            wanted[recorded] = Asked(metric, used, is_named)
    return wanted


def missing(asked: Iterable[str], record: Mapping) -> dict[str, Asked]:
    """Return what a request asks for and a record lacks, by recorded name.

    A metric that was left out of the record is not missing, unless it refused the table and is named now.
    """
    refused = {name for name, why in record["left_out"].items() if why not in NEEDS.values()}
    return {
        name: one
        for name, one in entries(asked).items()
        if name not in record["scores"]
        and (one.metric.name not in record["left_out"] or (one.is_named and one.metric.name in refused))
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
    whole = Scores()
    for protocol in dict.fromkeys(one.protocol for one in wanted.values()):
        named = {one.metric.name: one.is_named for one in wanted.values() if one.protocol == protocol}
        scores = score(table, named, seed, progress, metric_protocol=protocol)
        names = {name: recorded_name(name, used) for name, used in scores.protocols.items()}
        whole |= {names[name]: value for name, value in scores.items()}
        whole.details |= {names[name]: value for name, value in scores.details.items()}
        whole.protocols |= {names[name]: used for name, used in scores.protocols.items()}
        refused = {name: why for name, why in scores.refused.items() if not named[name]}
        whole.left_out |= scores.left_out | refused
        whole.failed |= {name: why for name, why in scores.failed.items() if name not in refused}
    return whole
