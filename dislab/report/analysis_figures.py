"""The figures of an analysis: which scores agree, what explains them, and whether a choice carries over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dislab.report.analysis import chance_to_beat, models_of, rank_correlation, variance_explained
from dislab.report.figures import register_figure
from dislab.runs.finished import Run

PUBLISHED = {"same data, same score": 0.807, "other data, same score": 0.593}
PUBLISHED |= {"same data, other score": 0.626, "other of both": 0.549}  # Locatello et al. 2019, section 5.6
SHARES = {"method": "tab:blue", "strength": "tab:orange", "seed": "lightgrey"}


@register_figure("rank_correlation")
def draw_rank_correlation(runs: Sequence[Run]):
    """Draw Spearman's correlation of each two scores over all models, a panel per data set.

    Returns
    -------
    The table of `rank_correlation`, and a matplotlib figure.
    """
    models = models_of(runs)
    table = rank_correlation(models).dropna(subset=["spearman"]) if len(models) > 2 else pd.DataFrame()
    return table, None if table.empty else plot_rank_correlation(table)


def plot_rank_correlation(table: pd.DataFrame):
    """Return a matplotlib figure of the table of `rank_correlation`, a heat map per data set."""
    from matplotlib.figure import Figure

    data = list(dict.fromkeys(table["data"]))
    data = data[:-1] if len(data) == 2 else data  # the mean of one data set is the data set
    columns = min(3, len(data))
    lines = -(-len(data) // columns)
    names = list(dict.fromkeys(table["score"]))
    side = 1.6 + 0.42 * len(names)
    figure = Figure(figsize=(columns * side, lines * side + 0.3), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for name, axes in zip(data, panels, strict=False):
        here = table[table["data"] == name].pivot_table("spearman", "score", "other", sort=False)
        here = here.reindex(index=names, columns=names)
        axes.imshow(here, cmap="RdBu", vmin=-1, vmax=1)
        for (i, j), value in np.ndenumerate(here.to_numpy()):
            if not np.isnan(value):
                colour = "white" if abs(value) > 0.6 else "black"
                text = f"{100 * value:.0f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(name, fontsize=9)
    for axes in panels[len(data) :]:
        axes.set_axis_off()
    figure.suptitle("Spearman's rank correlation of scores over models, x 100", fontsize=10)
    return figure


@register_figure("variance_explained")
def draw_variance_explained(runs: Sequence[Run]):
    """Draw the share of each score's variance that is explained by the method, the strength and the seed.

    Returns
    -------
    The table of `variance_explained`, and a matplotlib figure.
    """
    models = models_of(runs)
    table = pd.DataFrame() if models.empty else variance_explained(models)
    return table, None if table.empty else plot_variance_explained(table)


def plot_variance_explained(table: pd.DataFrame):
    """Return a matplotlib figure of the table of `variance_explained`, a panel per data set."""
    from matplotlib.figure import Figure

    data, names = list(dict.fromkeys(table["data"])), list(dict.fromkeys(table["score"]))
    figure = Figure(figsize=(8, 0.8 + len(data) * (0.7 + 0.26 * len(names))), layout="constrained")
    panels = figure.subplots(len(data), 1, squeeze=False, sharex=True).flatten()
    for name, axes in zip(data, panels, strict=True):
        here = table[table["data"] == name].set_index(["score", "by"])
        shares = here["share"].unstack("by").reindex(names)
        method, both = shares["method"].fillna(0), shares["configuration"].fillna(0)
        parts = {"method": method, "strength": both - method, "seed": (1 - both) * shares["method"].notna()}
        left = np.zeros(len(names))
        for part, widths in parts.items():
            axes.barh(names, widths, left=left, color=SHARES[part], label=part)
            left = left + widths.to_numpy()
        ends = here.xs("configuration", level="by").reindex(names)
        known = ends["low"].notna().to_numpy()
        axes.hlines(
            np.flatnonzero(known), ends["low"][known], ends["high"][known], color="black", linewidth=1
        )
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    panels[-1].set_xlabel("share of the variance; lines: 95 % interval of method and strength", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


@register_figure("chance_to_beat")
def draw_chance_to_beat(runs: Sequence[Run]):
    """Draw the chance that a configuration, chosen once, beats a random model when it is trained again.

    Returns
    -------
    The table of `chance_to_beat`, and a matplotlib figure.
    """
    models = models_of(runs)
    table = pd.DataFrame() if models.empty else chance_to_beat(models)
    return table, None if table.empty else plot_chance_to_beat(table)


def plot_chance_to_beat(table: pd.DataFrame):
    """Return a matplotlib figure of the table of `chance_to_beat`, published values as open circles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.9 + 0.36 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.plot(table["chance"], table["which"], "o", color="tab:blue", label="this study")
    known = [PUBLISHED[which] for which in table["which"]]
    axes.plot(known, table["which"], "o", color="black", fillstyle="none", label="Locatello et al. 2019")
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="chance to beat a random model", xlim=(0.3, 1), ylim=(len(table) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure
