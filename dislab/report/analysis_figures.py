"""The figures of an analysis: which scores agree, what explains them, and whether a choice carries over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dislab.report.analysis import (
    SAME_OR_OTHER,
    chance_to_beat,
    models_of,
    rank_correlation,
    variance_explained,
)
from dislab.report.axes import add_legend, axes_for, not_empty
from dislab.report.frame import colours_of, names_of_rows
from dislab.report.names import label_of
from dislab.runs.finished import Run

if TYPE_CHECKING:
    from dislab.report.axes import Panels

# Locatello et al. 2019, section 5.6, as we remember it.
PUBLISHED = dict(zip(SAME_OR_OTHER, (0.807, 0.593, 0.626, 0.549), strict=True))
SHARES = {"method": "tab:blue", "strength": "tab:orange", "seed": "lightgrey"}


def rank_correlation_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `rank_correlation_map` shows: see `dislab.report.analysis.rank_correlation`."""
    table = rank_correlation(models_of(runs)).dropna(subset=["spearman"])
    one = table["data"].nunique() == 2  # the mean over one data set says nothing more
    return table[table["data"] != "mean"] if one else table


def rank_correlation_map(
    runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None
) -> np.ndarray:
    """Draw Spearman's correlation of each two scores over all models as a heat map, a panel per data set.

    Parameters
    ----------
    runs : finished runs of models that are trained.
    ax : matplotlib axes, one for each data set and one for their mean; by default those of a new figure.
    table : what `rank_correlation_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [panels].

    Raises
    ------
    DislabError : there are no such runs, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> from dislab.report.figures import FIGURES
    >>> axes = FIGURES["rank_correlation"].draw(dislab.runs_in("results"))  # doctest: +SKIP
    """
    table = not_empty(
        rank_correlation_table(runs) if table is None else table, "scores to compare with others"
    )
    data, names = list(dict.fromkeys(table["data"])), list(dict.fromkeys(table["score"]))
    columns, side = min(3, len(data)), 1.8 + 0.42 * len(names)
    size = (columns * side, -(-len(data) // columns) * side)
    panels = axes_for(ax, len(data), columns, size)
    for name, axes in zip(data, panels, strict=True):
        here = table[table["data"] == name].pivot_table("spearman", "score", "other", sort=False)
        here = here.reindex(index=names, columns=names)
        axes.imshow(here, cmap="RdBu", vmin=-1, vmax=1)
        for (i, j), value in np.ndenumerate(here.to_numpy()):
            if not np.isnan(value):
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
        labels = [label_of(score) for score in names]
        axes.set_xticks(range(len(names)), labels, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), labels, fontsize=7)
        axes.set_title(f"{name}: Spearman x 100", fontsize=9)
    return panels


def variance_explained_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `variance_explained_bars` shows: see `dislab.report.analysis.variance_explained`."""
    return variance_explained(models_of(runs))


def variance_explained_bars(
    runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None
) -> np.ndarray:
    """Draw the share of each score's variance that the method, the strength and the seed explain.

    Lines are the 95 % interval of method and strength together, where there are several seeds.

    Parameters
    ----------
    runs : finished runs of models that are trained.
    ax : matplotlib axes, one for each data set; by default those of a new figure.
    table : what `variance_explained_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [panels].

    Raises
    ------
    DislabError : there are no such runs, or the number of axes is wrong.
    """
    table = not_empty(variance_explained_table(runs) if table is None else table, "scores of several models")
    data, names = list(dict.fromkeys(table["data"])), list(dict.fromkeys(table["score"]))
    size = (8, 0.8 + len(data) * (0.7 + 0.26 * len(names)))
    panels = axes_for(ax, len(data), 1, size, sharex=True)
    for name, axes in zip(data, panels, strict=True):
        here = table[table["data"] == name].set_index(["score", "by"])
        shares = here["share"].unstack("by").reindex(names)
        method, both = shares["method"].fillna(0), shares["configuration"].fillna(0)
        parts = {"method": method, "strength": both - method, "seed": (1 - both) * shares["method"].notna()}
        left = np.zeros(len(names))
        for part, widths in parts.items():
            axes.barh([label_of(score) for score in names], widths, left=left, color=SHARES[part], label=part)
            left = left + widths.to_numpy()
        ends = here.xs("configuration", level="by").reindex(names)
        known = ends["low"].notna().to_numpy()
        axes.hlines(
            np.flatnonzero(known), ends["low"][known], ends["high"][known], color="black", linewidth=1
        )
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    panels[-1].set_xlabel("share of the variance", fontsize=8)
    where = {"loc": "outside upper center", "ncols": 3}
    add_legend(ax, panels, *panels[0].get_legend_handles_labels(), **where)
    return panels


def chance_to_beat_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `chance_to_beat_dots` shows: see `dislab.report.analysis.chance_to_beat`."""
    return chance_to_beat(models_of(runs))


def chance_to_beat_dots(
    runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None
) -> np.ndarray:
    """Draw the chance that a configuration, chosen once, beats a random model when it is trained again.

    Parameters
    ----------
    runs : finished runs of models that are trained, with several seeds.
    ax : matplotlib axes; by default those of a new figure.
    table : what `chance_to_beat_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [1].

    Raises
    ------
    DislabError : there are no such runs, or the number of axes is wrong.
    """
    table = not_empty(chance_to_beat_table(runs) if table is None else table, "several seeds")
    panels = axes_for(ax, 1, 1, (6.5, 0.9 + 0.36 * len(table)))
    axes = panels[0]
    axes.plot(table["chance"], table["which"], "o", color="tab:blue", label="this study")
    known = [PUBLISHED[which] for which in table["which"]]
    axes.plot(known, table["which"], "o", color="black", fillstyle="none", label="Locatello et al. 2019")
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="chance to beat a random model", xlim=(0.3, 1), ylim=(len(table) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return panels


# Sweeps --------------------------------------------------------------------------------------------

AGAINST = ("elbo", "total_correlation")  # of `trade_off`


def trade_off_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `trade_off` shows: model, hyper-parameters, seed, mig, and what it stands against."""
    lines = [
        {"name": name, "seed": run.config.seed}
        | {score: run.scores.get(score) for score in ("mig", *AGAINST)}
        for run, name in _named(runs)
        if "mig" in run.scores and any(score in run.scores for score in AGAINST)
    ]
    return pd.DataFrame(lines)


def trade_off(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw MIG against ELBO and total correlation, a point per run (Chen et al. 2018, figure 4).

    Parameters
    ----------
    runs : finished runs with the scores mig, and elbo or total_correlation.
    ax : two matplotlib axes; by default those of a new figure.
    table : what `trade_off_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [2].

    Raises
    ------
    DislabError : there are no such runs, or the number of axes is wrong.
    """
    table = not_empty(
        trade_off_table(runs) if table is None else table, "the scores mig, and elbo or total_correlation"
    )
    panels = axes_for(ax, len(AGAINST), 2, (10, 4.2), sharey=True)
    colours = colours_of(table["name"])
    for axes, score in zip(panels, AGAINST, strict=True):
        for name, here in table.groupby("name", sort=False):
            axes.plot(here[score], here["mig"], "o", color=colours[name], label=name, markersize=4)
        axes.set_xlabel(label_of(score))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label_of("mig"))
    add_legend(ax, panels, *panels[0].get_legend_handles_labels(), loc="outside right upper")
    return panels


def _named(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    names = names_of_rows(run.config for run in runs)
    return [(run, names[run.config.row]) for run in runs]


def score_map_table(runs: Sequence[Run], score: str = "betavae_score") -> pd.DataFrame:
    """Return what `score_map` shows: latents, beta, beta_norm, and the mean of the score over seeds.

    beta_norm = beta x latents / pixels, the number of all values of an image (Higgins et al. 2017, eq. 7).
    """
    lines = []
    for run in runs:
        values = run.config.hyperparameters
        if score in run.scores and {"latents", "beta"} <= values.keys():
            norm = values["beta"] * values["latents"] / np.prod(run.record["image_shape"])
            lines.append((values["latents"], values["beta"], norm, run.scores[score]))
    table = pd.DataFrame(lines, columns=["latents", "beta", "beta_norm", score])
    swept = table["latents"].nunique() > 1 and table["beta"].nunique() > 1
    return table.groupby(["latents", "beta", "beta_norm"], as_index=False).mean() if swept else table[:0]


def score_map(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw the BetaVAE score over the size of the code and beta (Higgins et al. 2017, figure 6).

    Each cell says its normalised beta, see `score_map_table`.

    Parameters
    ----------
    runs : finished runs with the score betavae_score, which differ in `latents` and in `beta`.
    ax : matplotlib axes; by default those of a new figure.
    table : what `score_map_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [1].

    Raises
    ------
    DislabError : there are no such runs, or the number of axes is wrong.
    """
    table = not_empty(
        score_map_table(runs) if table is None else table, "betavae_score over several latents and beta"
    )
    cells = table.pivot_table("betavae_score", "latents", "beta")
    norms = table.pivot_table("beta_norm", "latents", "beta")
    panels = axes_for(ax, 1, 1, (1.5 + 0.9 * cells.shape[1], 1.2 + 0.7 * cells.shape[0]))
    axes = panels[0]
    shown = axes.imshow(cells, cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(cells.to_numpy()):
        if not np.isnan(value):
            text, colour = f"{value:.2f}\n({norms.iat[i, j]:.2g})", "black" if value > 0.6 else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(cells.shape[1]), [f"{beta:g}" for beta in cells.columns])
    axes.set_yticks(range(cells.shape[0]), cells.index)
    axes.set(xlabel="beta (in brackets: normalised)", ylabel="latents")
    axes.figure.colorbar(shown, ax=axes, label=label_of("betavae_score"))
    return panels
