"""Metric protocols: how scores are computed, and how they are named in records."""

from __future__ import annotations

from dislab.registry import unknown_name

# Numbers of images of one group whose evidence is joined, in scores and in figures.
IMAGES = (1, 2, 3, 5, 10)

# What a protocol of scoring changes, by the name of a metric's function; the functions' own defaults are the
# protocol of Locatello et al. 2019.
METRIC_PROTOCOLS: dict[str, dict[str, dict[str, object]]] = {
    "locatello2019": {},
    # As the code that comes with Soft TPR (NeurIPS 2024) scores: fewer points, regression without a penalty.
    "softtpr2024": {
        "betavae_score": {"num_train": 5_000, "num_test": 5_000, "penalised": False},
        "dci": {"num_train": 2_000, "num_test": 2_000},
        "dci_fast": {"num_train": 2_000, "num_test": 2_000},
    },
}
DEFAULT_METRIC_PROTOCOL = "locatello2019"


def metric_settings(name: str) -> dict[str, dict[str, object]]:
    """What a named metric protocol changes; an unknown name is answered with the nearest one."""
    if name not in METRIC_PROTOCOLS:
        raise unknown_name("metric protocol", name, METRIC_PROTOCOLS)
    return METRIC_PROTOCOLS[name]


def protocol_used(metric_protocol: str, function: str) -> str:
    """The protocol to record with a metric's scores: the named one where it changes their settings."""
    return metric_protocol if function in metric_settings(metric_protocol) else DEFAULT_METRIC_PROTOCOL


def recorded_name(score: str, metric_protocol: str) -> str:
    """A score's name in runs and leaderboards: betavae_score@softtpr2024 stands beside betavae_score."""
    return score if metric_protocol == DEFAULT_METRIC_PROTOCOL else f"{score}@{metric_protocol}"
