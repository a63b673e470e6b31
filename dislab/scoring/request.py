"""Which scores are asked for: names of metrics, with the settings that each is computed by.

A request is a tuple of names as records have them: "mig", "sap@scale=unit", "betavae_score@softtpr2024".
"default" stands for all metrics that apply and are not slow. A named metric that refuses a table has failed;
one that only "default" asked for is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dislab.arguments import keyword_defaults
from dislab.errors import DislabError
from dislab.registry import METRICS, NEEDS, Entry, unknown_name
from dislab.scoring.protocols import (
    DEFAULT_METRIC_PROTOCOL,
    SCALED,
    MetricSettings,
    metric_settings_of,
    named_protocol,
    recorded_name,
)

DEFAULT = "default"


class Asked(NamedTuple):
    """A metric that is asked for, by these settings; it is named, or among the default ones."""

    metric: Entry
    settings: MetricSettings
    is_named: bool


def asked(
    metrics: Iterable[str] | str | None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    metric_settings: Mapping[str, Mapping[str, object]] = {},
    shared: Mapping[str, object] = {},
) -> dict[str, Asked]:
    """Return what is asked for, by the names that the scores get.

    Parameters
    ----------
    metrics : names of scores or of groups of scores, "default", or None for "default". A name may have a
        protocol of its own, as in "sap@scale=unit"; its score then gets the name that a record has.
    metric_protocol : of the others, see `dislab.scoring.protocols`; their scores get plain names.
    metric_settings : name of a score or of a group -> settings of its own.
    shared : settings of all metrics that have them.

    Raises
    ------
    DislabError : a name, a protocol or a setting is wrong.
    """
    if not isinstance(metric_settings, Mapping):
        raise DislabError(f"metric_settings is {metric_settings!r}: it must map names to settings")
    own = {}
    for name, values in metric_settings.items():
        if not isinstance(values, Mapping):
            raise DislabError(f"metric_settings of {name} is {values!r}: it must map settings to values")
        own |= {entry.name: values for entry in METRICS.choose([name])}
    wanted: dict[str, Asked] = {}
    for text in _texts(metrics):
        name, at, protocol = text.partition("@")
        protocol = protocol or metric_protocol
        is_named = name != DEFAULT
        general, entries = shared, METRICS.choose([name]) if is_named else METRICS.default()
        if not is_named:
            protocol, changes = named_protocol(protocol)
            _check_settings(changes)
            general = {**shared, **changes}
        for entry in entries:
            settings = metric_settings_of(entry, protocol, own.get(entry.name, {}), general)
            key = recorded_name(entry.name, settings.protocol) if at else entry.name
            before = wanted.get(key)
            wanted[key] = Asked(entry, settings, is_named or (before is not None and before.is_named))
    unused = own.keys() - {one.metric.name for one in wanted.values()}
    if unused:
        raise DislabError(f"metric_settings names {min(unused)}, which is not among the metrics to compute")
    return wanted


def request(
    metrics: Iterable[str] | str | None, metric_protocol: str = DEFAULT_METRIC_PROTOCOL
) -> tuple[str, ...]:
    """Return the request for the scores that a user names; the arguments and errors are those of `asked`."""
    names: list[str] = []
    for text in _texts(metrics):
        name, _, protocol = text.partition("@")
        wanted = asked([text], metric_protocol)
        if name == DEFAULT:
            names.append(recorded_name(DEFAULT, protocol or metric_protocol))
        else:
            names += [recorded_name(one.metric.name, one.settings.protocol) for one in wanted.values()]
    # The default ones come first: in their order the metrics are computed.
    return tuple(dict.fromkeys(sorted(names, key=lambda name: name.partition("@")[0] != DEFAULT)))


def missing(wanted: Mapping[str, Asked], record: Mapping, again: bool = False) -> dict[str, Asked]:
    """Return what is asked for and a record lacks, by recorded name; `wanted` is what `asked` returns.

    A score is lacking, too, if the text of its metric's file has changed since, or the metric has no text, as
    one that was typed in; `again` asks for all scores.
    A metric that was left out of the record is not missing, unless it refused the table and is named now.
    """
    refused = {name for name, why in record["left_out"].items() if why not in (*NEEDS.values(), SCALED)}
    return {
        name: one
        for name, one in wanted.items()
        if again
        or not one.metric.digest
        or record["metrics"].get(name, {}).get("digest") != one.metric.digest
        or (one.is_named and name in refused)
    }


def _texts(metrics: Iterable[str] | str | None) -> list[str]:
    texts = [DEFAULT] if metrics is None else [metrics] if isinstance(metrics, str) else metrics
    texts = list(texts) if isinstance(texts, Iterable) else [texts]
    if not all(isinstance(text, str) for text in texts):
        raise DislabError(f"metrics is {metrics!r}: it must be names, such as ['mig', 'sap']")
    return texts


def _check_settings(changes: Iterable[str]) -> None:
    """Raise DislabError if no metric has one of the settings."""
    known = {"scale"}.union(*(keyword_defaults(metric.make) for metric in METRICS))
    for setting in changes:
        if setting not in known:
            raise unknown_name("setting of a metric", setting, sorted(known))
