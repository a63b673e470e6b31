"""The figures of studies: each as a picture and as the table that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from dislab.registry import METRICS
from dislab.report.curves import accuracy_over_k, evidence_over_k
from dislab.report.frame import (
    SETTING,
    colours_of,
    directions,
    labels_of,
    names_of_rows,
    names_of_settings,
    spread,
    table_settings,
    tidy,
    values_of,
)
from dislab.report.names import DATASETS, MODELS, label_of
from dislab.runs.finished import Run


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study.

    Attributes
    ----------
    draw : function from finished runs to a table of what is shown, and a matplotlib figure or pictures: file
        name -> a function that returns the content. The table is empty where there is nothing to show.
    needs : metrics of which it needs at least one; none where any will do.
    """

    draw: Callable
    needs: tuple[str, ...] = ()


FIGURES: dict[str, StudyFigure] = {
    "accuracy_over_k": StudyFigure(accuracy_over_k, needs=("content_accuracy", "content_entropy")),
    "evidence_over_k": StudyFigure(evidence_over_k),
}


def register_figure(name: str, needs: Iterable[str] = ()) -> Callable:
    """Register a function as a figure that studies may name, see `StudyFigure`."""

    def add(draw: Callable) -> Callable:
        FIGURES[name] = StudyFigure(draw, tuple(needs))
        return draw

    return add


@register_figure("cost")
def cost(runs: Sequence[Run]):
    """Draw what a model costs: seconds of training, and milliseconds per image at test time.

    Both are as the runs measured them, so they compare only between runs of one machine that did nothing
    else.

    Returns
    -------
    A pandas DataFrame with the columns row, those of KEY, quantity, mean, std, n. And a matplotlib figure.
    """
    trained = [run for run in runs if run.config.protocol.steps]
    values = []
    for run in trained:
        timings = run.record["timings"]
        milliseconds = 1e3 * timings["encode_seconds"] / run.record["scored_rows"]
        values.append((run, "train_seconds", timings["train_seconds"]))
        values.append((run, "encode_milliseconds_per_image", milliseconds))
    table = spread(values_of(values), trained, ["quantity"])
    return table, None if table.empty else _plot_cost(
        table, names_of_rows((run.config for run in trained), MODELS)
    )


def _plot_cost(table: pd.DataFrame, row_names: Mapping[str, str]):
    from matplotlib.figure import Figure

    axis_names = {
        "train_seconds": "training, seconds",
        "encode_milliseconds_per_image": "test time, milliseconds per image",
    }
    labels = labels_of(table, row_names)
    figure = Figure(figsize=(11, 0.9 + 0.4 * len(labels)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (quantity, axis_name) in zip(panels, axis_names.items(), strict=True):
        shown = table[table["quantity"] == quantity]
        heights = range(len(labels) - 1, -1, -1)
        axes.errorbar(
            shown["mean"], heights, xerr=shown["std"].fillna(0), fmt="o", markersize=5, elinewidth=1
        )
        axes.set_yticks(heights, labels.values(), fontsize=8)
        axes.set(xlabel=axis_name, xscale="log")
        axes.grid(axis="x", alpha=0.3)
    return figure


LEAK = {  # quantity -> its name, marker and colour
    "content_accuracy": ("content, mean", "s", "tab:grey"),
    "style_accuracy": ("style, mean", "o", "tab:orange"),
    "style_accuracy_sampled": ("style, a draw", "D", "tab:blue"),
}


@register_figure("style_leak", needs=["style_accuracy"])
def style_leak(runs: Sequence[Run]):
    """Draw how well the class is read from the style, by its posterior mean and by a draw of it.

    It stands beside the content, and against the information in the style: the mean KL to the prior over the
    last tenth of the training, in nats per image.

    Returns
    -------
    A pandas DataFrame with the columns row, those of KEY, quantity, mean, std, n. And a matplotlib figure.
    """
    styled = [run for run in runs if "style_accuracy" in run.scores and "kl_style" in run.record["losses"]]
    values = [
        (run, name, run.scores[name])
        for run in styled
        for name in ("style_accuracy", "style_accuracy_sampled", "content_accuracy")
        if name in run.scores
    ]
    values += [(run, "kl_style", run.record["losses"]["kl_style"]) for run in styled]
    table = spread(values_of(values), styled, ["quantity"])
    return table, None if table.empty else _plot_leak(
        table, names_of_rows((run.config for run in styled), MODELS)
    )


def _plot_leak(table: pd.DataFrame, row_names: Mapping[str, str]):
    from matplotlib.figure import Figure

    by_accuracy = table[table["quantity"] == "style_accuracy"].sort_values("mean")
    labels = labels_of(by_accuracy, row_names)
    heights = {row: height for height, row in enumerate(labels)}
    figure = Figure(figsize=(13, 1.2 + 0.34 * len(labels)), layout="constrained")
    dots, scatter = figure.subplots(1, 2, width_ratios=[1, 1])
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
    for axes in (dots, scatter):
        axes.grid(alpha=0.3)
    return figure


@register_figure("pictures")
def pictures(runs: Sequence[Run]):
    """Collect the pictures of a run of every leaderboard row, that of its first seed.

    Returns
    -------
    A pandas DataFrame with the columns row, those of KEY, seed, picture. And the pictures: file name -> a
    function that returns its content.
    """
    names = names_of_rows(run.config for run in runs)
    first = {run.config.row: run for run in sorted(runs, key=lambda run: run.config.seed, reverse=True)}
    shown = [first[row] for row in names]
    settings = [tuple(run.config.key[column] for column in SETTING) for run in shown]
    setting_names = names_of_settings(settings)
    lines, files = [], {}
    for run, setting in zip(shown, settings, strict=True):
        for path in sorted(run.path.glob("*.png")):
            title = f"{setting_names[setting]} {names[run.config.row]} {path.name}"
            name = re.sub(r"[^\w.=]+", "-", title)
            about = {"row": run.config.row} | run.config.key
            lines.append(about | {"seed": run.config.seed, "picture": name})
            files[name] = partial(run.read, path.name)
    return pd.DataFrame(lines), files


@register_figure("scores_by_model")
def scores_by_model(runs: Sequence[Run]):
    """Draw every metric's score: a panel per score, in it a dot per model and dataset.

    Lines are one standard deviation over seeds.

    Returns
    -------
    A pandas DataFrame with the columns row, those of KEY, score, mean, std, n. And a matplotlib figure.
    """
    table = spread(tidy(runs), runs, ["score"])
    if table.empty:
        return table, None
    known = directions(run.record["metrics"] for run in runs)
    order = {score: position for position, score in enumerate(known)}
    table = table[table["score"].isin(order)]
    table = table.sort_values("score", key=lambda scores: scores.map(order), kind="stable", ignore_index=True)
    names = names_of_rows((run.config for run in runs), MODELS)
    return table, None if table.empty else _plot_scores(table, names, known)


def _plot_scores(table: pd.DataFrame, row_names: Mapping[str, str], known: Mapping[str, str]):
    from matplotlib.figure import Figure

    settings = names_of_settings(table_settings(table), DATASETS)
    colours = colours_of(settings.values())
    models = list(dict.fromkeys(row_names.values()))
    scores = list(dict.fromkeys(table["score"]))
    columns = min(4, len(scores))
    lines = -(-len(scores) // columns)
    # Room for the dots of all settings beside one another in each model's line.
    height = 0.9 + len(models) * max(0.22, 0.09 * len(settings))
    figure = Figure(figsize=(2.9 * columns + 1.6, lines * height + 0.3), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    shifts = np.linspace(-0.3, 0.3, len(settings)) if len(settings) > 1 else [0]
    marks = {"up": "higher is better", "down": "lower is better", "": ""}
    for score, axes in zip(scores, panels, strict=False):
        here = table[table["score"] == score]
        for (setting, name), shift in zip(settings.items(), shifts, strict=True):
            shown = here[(here[SETTING] == list(setting)).all(axis=1)]
            heights = np.array([models.index(row_names[row]) for row in shown["row"]]) + shift
            look = {"fmt": "o", "markersize": 4, "elinewidth": 1, "color": colours[name], "label": name}
            axes.errorbar(shown["mean"], heights, xerr=shown["std"].fillna(0), **look)
        axes.set_title(label_of(score), fontsize=9)
        axes.set_xlabel(marks[known[score]], fontsize=7)
        axes.set_yticks(range(len(models)), models, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
        for border in range(len(models) - 1):
            axes.axhline(border + 0.5, color="black", alpha=0.2, linewidth=0.6)
        entry = next((entry for entry in METRICS if entry.name == score.partition("@")[0]), None)
        if entry is not None and entry.low is not None and entry.high is not None:
            margin = 0.03 * (entry.high - entry.low)
            axes.set_xlim(entry.low - margin, entry.high + margin)
    panels[0].set_ylim(len(models) - 0.5, -0.5)  # shared: the first model on top
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure
