"""Metric protocols: by which settings a score is computed, and how that is named in records.

A protocol is written as a text: the name of a published one, settings that a user changed, or both:

    locatello2019                 the defaults of the metrics' functions
    softtpr2024
    vansteenkiste2019             abstract visual reasoning only
    batch_size=32                 the first with another setting
    softtpr2024+batch_size=32

If a score was computed by another protocol than the default, its name in a record says so: sap@scale=unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dislab.arguments import choices_of, converted, keyword_defaults
from dislab.errors import DislabError
from dislab.registry import Entry, unknown_name

# Numbers of images of one class whose evidence is joined, in scores and in figures.
IMAGES = (1, 2, 3, 5, 10)

DCI = [
    f"dci{way}_{part}"
    for way in ("", "_fast")
    for part in ("disentanglement", "completeness", "informativeness")
]

# The settings that a metric protocol changes, by the name of a score. The defaults of the metrics' functions
# are the protocol of Locatello et al. 2019.
METRIC_PROTOCOLS: dict[str, dict[str, dict[str, object]]] = {
    "locatello2019": {},
    # The scoring of the code of Soft TPR (NeurIPS 2024): fewer points, regression without a penalty, and test
    # rows among those that the regression of factors is trained on. Its reasoning has two networks per code.
    "softtpr2024": {
        "betavae_score": {"num_train": 5_000, "num_test": 5_000, "penalised": False},
        **{score: {"num_train": 2_000, "num_test": 2_000} for score in DCI},
        "fov_regression_r2": {"num_networks": 10, "as_published": True},
        "wren_accuracy": {
            "training": "softtpr2024",
            "matrices": "easy3",
            "num_test": 1_000,
            "num_networks": 2,
        },
    },
    # Ten networks per code, 100,000 steps of 32 new matrices each; 100 batches to validate and 100 to test.
    "vansteenkiste2019": {
        "wren_accuracy": {
            "training": "vansteenkiste2019",
            "num_train": 3_200_000,
            "num_validation": 3_200,
            "num_test": 3_200,
            "num_networks": 10,
        },
    },
}
DEFAULT_METRIC_PROTOCOL = "locatello2019"
SCALES = ("raw", "unit")  # a setting of every metric: "unit" standardises every code dimension first
SCALED = "scale=unit changes the densities of q(z|x)"  # why a metric of these does not apply


class MetricSettings(NamedTuple):
    """The settings by which a metric is called."""

    protocol: str  # the text that names them, in its shortest form
    arguments: dict[str, object]  # of the metric's function that are not its defaults
    scale: str  # one of SCALES


def named_protocol(protocol: str) -> tuple[str, dict[str, str]]:
    """Return the name of the published protocol that a text names, and the settings that it changes.

    Raises
    ------
    DislabError : there is no protocol of that name.
    """
    if not isinstance(protocol, str):
        raise DislabError(
            f"metric protocol {protocol!r}: choose {', '.join(METRIC_PROTOCOLS)}, or write settings"
        )
    name, changes = DEFAULT_METRIC_PROTOCOL, {}
    for position, part in enumerate(protocol.split("+")):
        setting, sign, value = part.partition("=")
        if sign:
            changes[setting.strip()] = value.strip()
        elif position == 0:
            name = part
        else:
            raise DislabError(f"metric protocol '{protocol}': write NAME+SETTING=VALUE, '{part}' has no =")
    if name not in METRIC_PROTOCOLS:
        raise unknown_name("metric protocol", name, METRIC_PROTOCOLS)
    return name, changes


def metric_settings_of(
    entry: Entry, protocol: str, own: Mapping[str, object] = {}, shared: Mapping[str, object] = {}
) -> MetricSettings:
    """Return the settings by which a metric is called.

    Parameters
    ----------
    protocol : a text, see above.
    own : settings of this metric that replace the protocol's.
    shared : settings of all metrics that have them; the others ignore them.

    Raises
    ------
    DislabError : the protocol or one of its settings, or of `own`, is unknown, or a value is wrong.
    """
    name, changes = named_protocol(protocol)
    defaults = {"scale": SCALES[0]} | keyword_defaults(entry.make)
    published = METRIC_PROTOCOLS[name].get(entry.name, {})
    choices = {"scale": SCALES} | choices_of(entry.make)
    chosen = {}
    for setting, value in (shared | changes | dict(own)).items():
        if setting in defaults:
            what = f"{entry.name}: {setting}"
            chosen[setting] = converted(what, value, defaults[setting], choices.get(setting))
        elif setting not in shared:
            raise unknown_name(f"setting of {entry.name}", setting, defaults)
    usual = defaults | published
    changed = {setting: chosen[setting] for setting in sorted(chosen) if chosen[setting] != usual[setting]}
    words = [name] if published else []
    # In 1e+20 the + would separate two settings.
    words += [f"{setting}={value}".replace("e+", "e") for setting, value in changed.items()]
    arguments = {**published, **changed}
    scale = arguments.pop("scale", SCALES[0])
    return MetricSettings("+".join(words) or DEFAULT_METRIC_PROTOCOL, arguments, scale)


def recorded_name(score: str, protocol: str) -> str:
    """Return a score's name in runs and leaderboards, such as betavae_score or betavae_score@softtpr2024."""
    return score if protocol == DEFAULT_METRIC_PROTOCOL else f"{score}@{protocol}"


def protocol_of(recorded: str) -> str:
    """Return the protocol in a score's name in runs and leaderboards."""
    return recorded.partition("@")[2] or DEFAULT_METRIC_PROTOCOL


def metric_of(score: str, metrics: Iterable[str]) -> str | None:
    """Return the metric that a score, or a value beside one, comes from; None if it is not among `metrics`.

    content_entropy_k10 comes from content_entropy. All names are as records have them.
    """
    name, _, protocol = score.partition("@")
    homes = []
    for metric in metrics:
        plain, _, other = metric.partition("@")
        if protocol == other and (name == plain or name.startswith(f"{plain}_")):
            homes.append(metric)
    return max(homes, key=len, default=None)
