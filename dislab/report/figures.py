"""The figures of studies: functions that draw finished runs with matplotlib, and the tables behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dislab.registry import METRICS
from dislab.report import analysis_figures as analysis
from dislab.report.axes import add_legend, axes_for, not_empty
from dislab.report.curves import (
    accuracy_over_k,
    accuracy_over_k_table,
    evidence_over_k,
    evidence_over_k_table,
)
from dislab.report.frame import (
    SETTING,
    colours_of,
    directions,
    labels_of,
    shown_rows,
    shown_settings,
    spread,
    tidy,
    values_of,
)
from dislab.report.names import DIRECTIONS, label_of
from dislab.runs.finished import Run

if TYPE_CHECKING:
    from dislab.report.axes import Panels


def cost_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `cost` shows: columns row, those of KEY, quantity, mean, std, n."""
    trained = [run for run in runs if run.config.protocol.steps]
    values = []
    for run in trained:
        timings = run.record["timings"]
        milliseconds = 1e3 * timings["encode_seconds"] / run.record["scored_rows"]
        values.append((run, "train_seconds", timings["train_seconds"]))
        values.append((run, "encode_milliseconds_per_image", milliseconds))
    return spread(values_of(values), trained, ["quantity"])


def cost(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw what a model costs: seconds of training, and milliseconds per image at test time.

    Both are as the runs measured them, so they compare only between runs of one machine that did nothing
    else. Mean and standard deviation over seeds.

    Parameters
    ----------
    runs : finished runs of models that are trained.
    ax : two matplotlib axes; by default those of a new figure.
    table : what `cost_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [2].

    Raises
    ------
    DislabError : there is no such run, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> import matplotlib.pyplot as plt
    >>> from dislab.report.figures import cost
    >>> figure, axes = plt.subplots(1, 2)  # doctest: +SKIP
    >>> training, test = cost(dislab.runs_in("results"), ax=axes)  # doctest: +SKIP
    >>> training.set_title("on two cores")  # doctest: +SKIP
    """
    axis_names = {
        "train_seconds": "training, seconds",
        "encode_milliseconds_per_image": "test time, milliseconds per image",
    }
    table = not_empty(cost_table(runs) if table is None else table, "a training")
    labels = labels_of(table, shown_rows(table, runs))
    panels = axes_for(ax, 2, 2, (11, 0.9 + 0.4 * len(labels)), sharey=True)
    for axes, (quantity, axis_name) in zip(panels, axis_names.items(), strict=True):
        shown = table[table["quantity"] == quantity]
        heights = range(len(labels) - 1, -1, -1)
        axes.errorbar(
            shown["mean"], heights, xerr=shown["std"].fillna(0), fmt="o", markersize=5, elinewidth=1
        )
        axes.set_yticks(heights, labels.values(), fontsize=8)
        axes.set(xlabel=axis_name, xscale="log")
        axes.grid(axis="x", alpha=0.3)
    return panels


LEAK = {  # quantity -> its name, marker and colour
    "content_accuracy": ("content, mean", "s", "tab:grey"),
    "style_accuracy": ("style, mean", "o", "tab:orange"),
    "style_accuracy_sampled": ("style, a draw", "D", "tab:blue"),
}


def style_leak_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `style_leak` shows: columns row, those of KEY, quantity, mean, std, n."""
    styled = [run for run in runs if "style_accuracy" in run.scores and "kl_style" in run.record["losses"]]
    values = [
        (run, name, run.scores[name])
        for run in styled
        for name in ("style_accuracy", "style_accuracy_sampled", "content_accuracy")
        if name in run.scores
    ]
    values += [(run, "kl_style", run.record["losses"]["kl_style"]) for run in styled]
    return spread(values_of(values), styled, ["quantity"])


def style_leak(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw how well the class is read from the style, by its posterior mean and by a draw of it.

    It stands beside the content, and against the information in the style: the mean KL to the prior over the
    last tenth of the training, in nats per image. Mean and standard deviation over seeds.

    Parameters
    ----------
    runs : finished runs of models with content and style, with the score style_accuracy.
    ax : two matplotlib axes; by default those of a new figure.
    table : what `style_leak_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [2].

    Raises
    ------
    DislabError : there is no such run, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> from dislab.report.figures import style_leak
    >>> axes = style_leak(dislab.runs_in("results"))  # doctest: +SKIP
    >>> axes[0].figure.savefig("leak.pdf")  # doctest: +SKIP
    """
    table = not_empty(
        style_leak_table(runs) if table is None else table, "style_accuracy and a style with a KL"
    )
    by_accuracy = table[table["quantity"] == "style_accuracy"].sort_values("mean")
    labels = labels_of(by_accuracy, shown_rows(table, runs))
    heights = {row: height for height, row in enumerate(labels)}
    panels = dots, scatter = axes_for(ax, 2, 2, (13, 1.2 + 0.34 * len(labels)))
    information = table[table["quantity"] == "kl_style"].set_index("row")["mean"]
    for quantity, (label, marker, colour) in LEAK.items():
        shown = table[table["quantity"] == quantity]
        look = {"fmt": marker, "color": colour, "markersize": 5, "elinewidth": 1, "label": label}
        dots.errorbar(shown["mean"], shown["row"].map(heights), xerr=shown["std"].fillna(0), **look)
        if quantity != "content_accuracy":
            nats = information.loc[shown["row"]]
            scatter.errorbar(nats, shown["mean"], yerr=shown["std"].fillna(0), **look)
    dots.set_yticks(range(len(labels)), labels.values(), fontsize=8)
    dots.set(xlabel="accuracy of the class, from one image", xlim=(-0.02, 1.02))
    dots.legend(fontsize=8)
    scatter.set(xlabel="KL of the style, nats per image", ylabel="accuracy of the class", ylim=(-0.02, 1.02))
    scatter.set_xscale("log")
    for axes in panels:
        axes.grid(alpha=0.3)
    return panels


def scores_by_model_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `scores_by_model` shows: columns row, those of KEY, score, mean, std, n."""
    table = spread(tidy(runs), runs, ["score"])
    known = directions(run.record["metrics"] for run in runs)
    order = {score: position for position, score in enumerate(known)}
    table = table[table["score"].isin(order)]
    return table.sort_values("score", key=lambda scores: scores.map(order), kind="stable", ignore_index=True)


def scores_by_model(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw every metric's score: a panel per score, in it a dot per model and dataset.

    Lines are one standard deviation over seeds.

    Parameters
    ----------
    runs : finished runs.
    ax : matplotlib axes, one for each score; by default those of a new figure.
    table : what `scores_by_model_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [scores].

    Raises
    ------
    DislabError : no run has a score, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> from dislab.report.figures import scores_by_model
    >>> axes = scores_by_model(dislab.runs_in("results"))  # doctest: +SKIP
    >>> axes[0].figure.savefig("scores.pdf")  # doctest: +SKIP
    """
    table = not_empty(scores_by_model_table(runs) if table is None else table, "a score")
    known = directions(run.record["metrics"] for run in runs)
    row_names, settings = shown_rows(table, runs), shown_settings(table)
    colours = colours_of(settings.values())
    models = list(dict.fromkeys(row_names.values()))
    scores = list(dict.fromkeys(table["score"]))
    columns = min(4, len(scores))
    # Room for the dots of all settings beside one another in each model's line.
    height = 0.9 + len(models) * max(0.22, 0.09 * len(settings))
    size = 2.9 * columns + 1.6, -(-len(scores) // columns) * height + 0.3
    panels = axes_for(ax, len(scores), columns, size, sharey=True)
    shifts = np.linspace(-0.3, 0.3, len(settings)) if len(settings) > 1 else [0]
    for score, axes in zip(scores, panels, strict=True):
        here = table[table["score"] == score]
        for (setting, name), shift in zip(settings.items(), shifts, strict=True):
            shown = here[(here[SETTING] == list(setting)).all(axis=1)]
            heights = np.array([models.index(row_names[row]) for row in shown["row"]]) + shift
            look = {"fmt": "o", "markersize": 4, "elinewidth": 1, "color": colours[name], "label": name}
            axes.errorbar(shown["mean"], heights, xerr=shown["std"].fillna(0), **look)
        axes.set_title(label_of(score), fontsize=9)
        axes.set_xlabel(DIRECTIONS[known[score]], fontsize=7)
        axes.set_yticks(range(len(models)), models, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
        for border in range(len(models) - 1):
            axes.axhline(border + 0.5, color="black", alpha=0.2, linewidth=0.6)
        entry = next((entry for entry in METRICS if entry.name == score.partition("@")[0]), None)
        if entry is not None and entry.low is not None and entry.high is not None:
            margin = 0.03 * (entry.high - entry.low)
            axes.set_xlim(entry.low - margin, entry.high + margin)
        axes.set_ylim(len(models) - 0.5, -0.5)  # the first model on top
    add_legend(ax, panels, *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return panels


@dataclass(frozen=True)
class StudyFigure:
    """A figure that studies may name.

    Attributes
    ----------
    draw : function of finished runs, and of `ax` and `table` by name; it returns the axes that it drew on.
    table : function of finished runs; it returns what is drawn, empty if there is nothing to show.
    needs : metrics of which it needs at least one; none where any will do.
    """

    draw: Callable
    table: Callable[[Sequence[Run]], pd.DataFrame]
    needs: tuple[str, ...] = ()


FIGURES = {
    "accuracy_over_k": StudyFigure(
        accuracy_over_k, accuracy_over_k_table, needs=("content_accuracy", "content_entropy")
    ),
    "evidence_over_k": StudyFigure(evidence_over_k, evidence_over_k_table),
    "cost": StudyFigure(cost, cost_table),
    "style_leak": StudyFigure(style_leak, style_leak_table, needs=("style_accuracy",)),
    "scores_by_model": StudyFigure(scores_by_model, scores_by_model_table),
    "rank_correlation": StudyFigure(analysis.rank_correlation_map, analysis.rank_correlation_table),
    "variance_explained": StudyFigure(analysis.variance_explained_bars, analysis.variance_explained_table),
    "chance_to_beat": StudyFigure(analysis.chance_to_beat_dots, analysis.chance_to_beat_table),
    "trade_off": StudyFigure(analysis.trade_off, analysis.trade_off_table, needs=("mig",)),
    "score_map": StudyFigure(analysis.score_map, analysis.score_map_table, needs=("betavae_score",)),
}
