"""Metric protocols: how scores are computed, and how they are named in records."""

from __future__ import annotations

from dislab.registry import unknown_name

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
    # The scoring of the code of Soft TPR (NeurIPS 2024): fewer points, regression without a penalty.
    "softtpr2024": {
        "betavae_score": {"num_train": 5_000, "num_test": 5_000, "penalised": False},
        **{score: {"num_train": 2_000, "num_test": 2_000} for score in DCI},
    },
}
DEFAULT_METRIC_PROTOCOL = "locatello2019"


def metric_settings(name: str) -> dict[str, dict[str, object]]:
    """Return the settings that a metric protocol changes; raise if the name is unknown."""
    if name not in METRIC_PROTOCOLS:
        raise unknown_name("metric protocol", name, METRIC_PROTOCOLS)
    return METRIC_PROTOCOLS[name]


def protocol_used(metric_protocol: str, score: str) -> str:
    """Return the protocol to record with a score: the named one if it changes the score's settings."""
    return metric_protocol if score in metric_settings(metric_protocol) else DEFAULT_METRIC_PROTOCOL


def recorded_name(score: str, metric_protocol: str) -> str:
    """Return a score's name in runs and leaderboards, such as betavae_score or betavae_score@softtpr2024."""
    return score if metric_protocol == DEFAULT_METRIC_PROTOCOL else f"{score}@{metric_protocol}"
