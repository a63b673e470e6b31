"""Finished runs as tidy pandas frames, from which every table and figure is made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from dislab.registry import METRICS
from dislab.report.names import DATASETS, MODELS
from dislab.runs.config import RunConfig
from dislab.runs.finished import Run
from dislab.scoring.protocols import metric_of

# What a table says of a row, the runs that differ in the seed only; `row` is the digest that identifies it.
KEY = ["dataset", "source", "protocol", "hold_out", "group_by", "model", "hyperparameters"]
SETTING = KEY[:5]  # rows are compared only within one of these
MOST_COLOURS = 10


def tidy(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one line per run and score: columns row, seed, score, value."""
    return values_of((run, name, value) for run in runs for name, value in run.record["scores"].items())


def values_of(values: Iterable[tuple[Run, object, float]]) -> pd.DataFrame:
    """Return one line per value: columns row, seed, score, value.

    Parameters
    ----------
    values : each with its run, and with what tells it from other values of this run.
    """
    lines = [(run.row, run.record["config"]["seed"], which, value) for run, which, value in values]
    return pd.DataFrame(lines, columns=["row", "seed", "score", "value"])


def spread(values: pd.DataFrame, runs: Iterable[Run], columns: Sequence[str]) -> pd.DataFrame:
    """Return mean, standard deviation (ddof 1, NaN for one seed) and number n over the seeds.

    Parameters
    ----------
    values : see `values_of`; its scores are names, or tuples of as many parts as there are `columns`.
    runs : that the values are of.
    columns : names for these parts.

    Returns
    -------
    A DataFrame with the columns row, those of KEY, `columns`, mean, std, n; a line for each mean.
    """
    groups = values.groupby(["row", "score"], sort=False)["value"]
    table = groups.agg(mean="mean", std="std", n="count").reset_index()
    names = table.pop("score")
    parts = pd.DataFrame(list(names) if len(columns) > 1 else {columns[0]: names}, columns=columns)
    keys = keys_of(runs).reindex(table["row"]).reset_index(drop=True)
    return pd.concat([table[["row"]], keys, parts, table[["mean", "std", "n"]]], axis=1)


def half_width(std, n):
    """Return the half-width of the 95 % interval of a mean (Student's t), NaN for n = 1.

    Parameters
    ----------
    std, n : standard deviation (ddof 1) and number of values; numbers, or arrays or frames of one shape.
    """
    from scipy.special import stdtrit

    different, index = np.unique(n, return_inverse=True)  # a quantile takes long, and few n differ
    quantile = np.where(different > 1, stdtrit(different - 1, 0.975), np.nan)
    return quantile[index].reshape(np.shape(n)) * std / np.sqrt(n)


def keys_of(runs: Iterable[Run]) -> pd.DataFrame:
    """Return the columns of KEY; the index is the row."""
    first = {run.row: run for run in runs}
    return pd.DataFrame.from_dict(
        {row: run.config.key for row, run in first.items()}, orient="index", columns=KEY
    )


def names_of_rows(configs: Iterable[RunConfig], models: Mapping[str, str] = {}) -> dict[str, str]:
    """Return how tables call each row: its model, with the hyper-parameters that vary among its rows.

    A value that more than half of a model's rows have is not named.

    Parameters
    ----------
    models : display names of models, see `dislab.report.names`; a model that has none keeps its own.
    """
    rows = {config.row: config for config in configs}
    distinct = {(config.model, config.key["hyperparameters"]): config for config in rows.values()}
    values: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for config in distinct.values():
        for name, value in config.hyperparameters.items():
            values[config.model, name][value] += 1
    names = {}
    for row, config in rows.items():
        varied = [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in config.hyperparameters.items()
            if 2 * values[config.model, name][value] <= values[config.model, name].total()
        ]
        names[row] = " ".join([models.get(config.model, config.model), *varied])
    return names


def names_of_settings(
    settings: Iterable[tuple[str, ...]], datasets: Mapping[str, str] = {}
) -> dict[tuple[str, ...], str]:
    """Return how tables call each setting: dataset and source, and what else varies.

    Parameters
    ----------
    settings : texts in the order of SETTING.
    datasets : display names of datasets, see `dislab.report.names`.
    """
    settings = list(dict.fromkeys(settings))
    varies = [len({setting[column] for setting in settings}) > 1 for column in range(len(SETTING))]
    # Each dataset has its own default groups: they are said where one dataset has several.
    grouped = len({(setting[0], setting[4]) for setting in settings}) > len(
        {setting[0] for setting in settings}
    )
    names = {}
    for setting in settings:
        dataset, source, protocol, held_out, group_by = setting
        parts = [f"{datasets.get(dataset, dataset)} ({source})"]
        parts += [f"protocol {protocol}"] if varies[2] else []
        parts += [f"without {held_out}" if held_out else "nothing held out"] if varies[3] else []
        parts += [f"grouped by {group_by}"] if grouped else []
        names[setting] = ", ".join(parts)
    return names


def table_settings(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the setting of every line of a table that has the columns of SETTING."""
    return list(table[SETTING].itertuples(index=False, name=None))


def shown_rows(table: pd.DataFrame, runs: Iterable[Run]) -> dict[str, str]:
    """Return how figures call each row of a table: row -> text."""
    rows = set(table["row"])
    return names_of_rows((run.config for run in runs if run.row in rows), MODELS)


def shown_settings(table: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Return how figures call each setting of a table that has the columns of SETTING."""
    return names_of_settings(table_settings(table), DATASETS)


def labels_of(table: pd.DataFrame, row_names: Mapping[str, str]) -> dict[str, str]:
    """Return the label of each row of a table where all settings share a panel: row -> text."""
    settings = shown_settings(table)
    several = len(settings) > 1
    return {
        row: row_names[row] + (f"\n{settings[setting]}" if several else "")
        for row, setting in zip(table["row"], table_settings(table), strict=True)
    }


def colours_of(names: Iterable[str]) -> dict[str, tuple]:
    """Return a colour for each of the names."""
    import matplotlib

    names = list(dict.fromkeys(names))
    if len(names) <= MOST_COLOURS:
        return dict(zip(names, matplotlib.colormaps["tab10"].colors, strict=False))
    steps = [0.05 + 0.9 * number / (len(names) - 1) for number in range(len(names))]
    return dict(zip(names, matplotlib.colormaps["turbo"](steps), strict=True))


# Scores --------------------------------------------------------------------------------------------


def directions(of_runs: Iterable[Mapping[str, Mapping]]) -> dict[str, str]:
    """Return whether "up" or "down" is better for the score of each metric, "" where neither is.

    The directions are those that records have in `metrics`, so a plug-in's metric need not be loaded. The
    registered metrics come first, in the order of the registry.
    """
    recorded = {name: about for metrics in of_runs for name, about in metrics.items()}
    return {name: recorded[name]["direction"] for name in in_order(recorded)}


def direction(score: str, known: Mapping[str, str]) -> str:
    """Return the direction of a score, or of a value beside one; `known` is what `directions` returns."""
    return known.get(metric_of(score, known), "")


def has_block(blocks: Iterable[str], kind: str) -> bool:
    """Return whether one of the blocks of a code is of this kind: "content", or one of several, content_1."""
    return any(block.partition("_")[0] == kind for block in blocks)


def applies(score: str, blocks: Iterable[str]) -> bool:
    """Return whether a score says of a code with these blocks what its name says.

    If there is no block "style", the scores of the style were read from the whole code.
    """
    return not score.startswith("style_") or has_block(blocks, "style")


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of scores, the registered ones first and in the order of the registry."""
    order = {entry.name: position for position, entry in enumerate(METRICS)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def remarks(made: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line on the metrics of which another version than the one registered here made scores.

    Parameters
    ----------
    made : name of a metric -> digest of a version -> number of scores that it made.
    """
    here = {entry.name: entry.digest for entry in METRICS if entry.digest}
    texts = []
    for name, numbers in made.items():
        number, registered = sum(numbers.values()), here.get(name.partition("@")[0])
        others = 0 if registered is None else number - numbers.get(registered, 0)
        texts += [f"{name} ({others} of {number})"] if others else []
    if not texts:
        return []
    return [
        f"scores that another version of the metric computed: {', '.join(texts)}; `dislab evaluate` computes "
        "them again where the runs' folders are"
    ]
