"""The figures of studies: of the finished runs, each as a picture and as the table that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dislab.registry import METRICS
from dislab.report import leaderboard
from dislab.runs.run import Run, load


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study.

    Attributes
    ----------
    draw : function from finished runs to a table of what is shown and a matplotlib figure, or files of
        pictures by the name that each gets; the table is empty where there is nothing to show.
    needs : metrics of which it needs at least one; none where any will do.
    """

    draw: Callable
    needs: tuple[str, ...] = ()


FIGURES: dict[str, StudyFigure] = {}


def register_figure(name: str, needs: Iterable[str] = ()) -> Callable:
    """Register a function as a figure that studies may name, see `StudyFigure`."""

    def add(draw: Callable) -> Callable:
        FIGURES[name] = StudyFigure(draw, tuple(needs))
        return draw

    return add


# In a figure's table, beside what it shows: the key of a leaderboard's row, and mean, std and n over seeds.
SETTING = leaderboard.KEY[:5]  # what is compared only within: dataset, source, protocol, hold_out, group_by


def rows_of(found: Iterable[Run]) -> dict[tuple[str, ...], list[Run]]:
    """The runs that differ in their seed only, by the row of the leaderboard that they make."""
    rows: dict[tuple[str, ...], list[Run]] = {}
    for run in found:
        rows.setdefault(leaderboard.row_key(run), []).append(run)
    return rows


def names_of_rows(rows: Mapping[tuple[str, ...], list[Run]]) -> dict[tuple[str, ...], str]:
    """How a figure calls each row: its model, with the hyper-parameters that vary among that model's rows,
    but for values that more than half of these rows have."""
    values: dict[str, dict[str, list]] = {}
    for key, runs_of_row in {key[len(SETTING) :]: of_row for key, of_row in rows.items()}.items():
        for name, value in runs_of_row[0].config["hyperparameters"].items():
            values.setdefault(key[0], {}).setdefault(name, []).append(value)
    names = {}
    for key, runs_of_row in rows.items():
        config = runs_of_row[0].config
        varied = [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in config["hyperparameters"].items()
            if 2 * values[config["model"]][name].count(value) <= len(values[config["model"]][name])
        ]
        names[key] = " ".join([config["model"], *varied])
    return names


def names_of_settings(settings: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """How a figure calls each setting: dataset and source, and what else varies."""
    settings = list(dict.fromkeys(settings))
    varies = [len({setting[column] for setting in settings}) > 1 for column in range(len(SETTING))]
    # Datasets have their own groupings: these are said where one dataset has several.
    grouped = len({(setting[0], setting[4]) for setting in settings}) > len(
        {setting[0] for setting in settings}
    )
    names = {}
    for setting in settings:
        dataset, source, protocol, held_out, group_by = setting
        parts = [f"{dataset} ({source})"]
        parts += [f"protocol {protocol}"] if varies[2] else []
        parts += [f"without {held_out}" if held_out else "nothing held out"] if varies[3] else []
        parts += [f"grouped by {group_by}"] if grouped else []
        names[setting] = ", ".join(parts)
    return names


def _key_of(key: tuple[str, ...]) -> dict[str, str]:
    """The key of a leaderboard's row as columns of a figure's table."""
    return dict(zip(leaderboard.KEY, key, strict=True))


def _labels(keys: Iterable[tuple[str, ...]], row_names: Mapping[tuple[str, ...], str]) -> dict[tuple, str]:
    """What stands beside each row where all settings are in one panel."""
    keys = list(dict.fromkeys(keys))
    settings = names_of_settings(key[: len(SETTING)] for key in keys)
    several = len(settings) > 1
    return {key: row_names[key] + (f"\n{settings[key[: len(SETTING)]]}" if several else "") for key in keys}


def _line_over_k(axes, k, mean, std, ticks: Sequence[int], **look) -> None:
    """A line over the number of images that are joined, with a band of one standard deviation."""
    axes.plot(k, mean, markersize=4, **look)
    if np.isfinite(std).any():
        axes.fill_between(k, mean - std, mean + std, color=look["color"], alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="images joined, k")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(True, alpha=0.3)


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation (ddof 1; NaN for one value) and number."""
    values = np.asarray(values, np.float64)
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    return {"mean": values.mean(), "std": std, "n": len(values)}


def _colours(names: Iterable[str]) -> dict[str, tuple]:
    import matplotlib

    names = list(dict.fromkeys(names))
    if len(names) <= 10:
        return dict(zip(names, matplotlib.colormaps["tab10"].colors, strict=False))
    return dict(zip(names, matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names))), strict=True))


@register_figure("accuracy_over_k", needs=["content_accuracy", "content_entropy"])
def accuracy_over_k(found: Sequence[Run]):
    """How well the class is read from k joined images: accuracy, and conditional entropy in bits, over k.

    A line per model and block of its code: content, style (its value at k = 1, where nothing is joined) by
    its posterior mean and by a draw, or the whole code of a model without blocks; mean and standard deviation
    over seeds. Dashed: a code that knows nothing, of accuracy 1 / C and entropy H(y) = log2 C. Bouchacourt et
    al. 2017, figure 7.

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns quantity ("accuracy", "entropy"),
    block, k, mean, std, n; for the dashed lines the block is "uninformed". And a matplotlib figure.
    """
    rows = rows_of(
        run for run in found if {"content_accuracy_curve", "content_entropy_curve"} & {*run.scores.details}
    )
    lines = []
    for key, runs_of_row in rows.items():
        # (Read anew, so that the codes are not kept in memory.)
        blocks = load(runs_of_row[0].path).codes.blocks
        block = "content" if any(name.startswith("content") for name in blocks) else "whole code"
        for quantity, uninformed in (("accuracy", "chance"), ("entropy", "of_class")):

            def add(block: str, k: int, values: list[float], key=key, quantity=quantity) -> None:
                if values:
                    place = _key_of(key)
                    lines.append(place | {"quantity": quantity, "block": block, "k": k} | _spread(values))

            curves = [dict(run.scores.details.get(f"content_{quantity}_curve", [])) for run in runs_of_row]
            for k in sorted({k for curve in curves for k in curve}):
                add(block, k, [curve[k] for curve in curves if k in curve])
            scores = [run.scores for run in runs_of_row]
            for kind, ending in (("style", ""), ("style, a draw", "_sampled")):
                name = f"style_{quantity}{ending}"
                if "style" in blocks:
                    add(kind, 1, [s[name] for s in scores if name in s])
            name = f"content_{quantity}_{uninformed}"
            add("uninformed", 1, [s[name] for s in scores if name in s])
    table = pd.DataFrame(lines)
    return table, None if table.empty else _plot_over_k(table, names_of_rows(rows))


def _plot_over_k(table: pd.DataFrame, row_names: Mapping[tuple[str, ...], str]):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    settings = names_of_settings(table[SETTING].itertuples(index=False, name=None))
    colours = _colours(row_names.values())
    styles = {
        "content": ("o", "-"),
        "whole code": ("s", "-."),
        "style": ("", ":"),
        "style, a draw": ("", (0, (6, 3))),
    }
    axis_names = {"accuracy": "accuracy", "entropy": "conditional entropy, bits"}
    figure = Figure(figsize=(11, 3.6 * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), 2, squeeze=False)
    ticks = sorted(set(table["k"]))
    for (setting, title), pair in zip(settings.items(), panels, strict=True):
        here = table[(table[SETTING] == list(setting)).all(axis=1)]
        pair[0].set_title(title, loc="left", fontsize=10)
        for (quantity, axis_name), axes in zip(axis_names.items(), pair, strict=True):
            shown = here[here["quantity"] == quantity]
            for (*key, block), line in shown.groupby([*leaderboard.KEY, "block"], sort=False):
                if block == "uninformed":
                    continue
                k, mean, std = (line[name].to_numpy(float) for name in ("k", "mean", "std"))
                if block.startswith("style"):
                    k, mean, std = (
                        np.array(ticks, float),
                        *(np.repeat(value, len(ticks)) for value in (mean, std)),
                    )
                colour, (marker, dashes) = colours[row_names[tuple(key)]], styles[block]
                look = {"marker": marker, "linestyle": dashes, "color": colour}
                _line_over_k(axes, k, mean, std, ticks, **look)
            for level in set(shown["mean"][shown["block"] == "uninformed"]):
                axes.axhline(level, color="black", linestyle="--", linewidth=1)
            axes.set(ylabel=axis_name)
            if quantity == "accuracy":
                axes.set_ylim(-0.02, 1.02)
            else:
                axes.set_ylim(bottom=0)
    shown = set(table["block"])
    legend = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    legend += [
        Line2D([], [], color="grey", marker=marker, linestyle=dashes, markersize=4, label=block)
        for block, (marker, dashes) in styles.items()
        if block in shown
    ]
    legend.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label="chance, H(y)"))
    figure.legend(handles=legend, loc="outside right upper", fontsize=8)
    return figure


@register_figure("evidence_over_k")
def evidence_over_k(found: Sequence[Run]):
    """What joining k images of a group does, over k: the mean variance of the content posterior, and the
    log-likelihood of an image and its reconstruction term, nats per image; mean and standard deviation over
    seeds. Of models with content and style (`dislab.evidence`).

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns grouping, k, quantity, mean, std,
    n. And a matplotlib figure.
    """
    rows = rows_of(run for run in found if (run.path / "evidence.csv").is_file())
    lines = []
    for key, runs_of_row in rows.items():
        place = _key_of(key)
        joined = pd.concat([pd.read_csv(run.path / "evidence.csv") for run in runs_of_row])
        for (grouping, k), same in joined.groupby(["grouping", "k"]):
            where = place | {"grouping": grouping, "k": k}
            lines += [where | {"quantity": name} | _spread(same[name]) for name in EVIDENCE]
    table = pd.DataFrame(lines)
    return table, None if table.empty else _plot_evidence(table, names_of_rows(rows))


EVIDENCE = {  # the columns of evidence.csv that are shown, and the names of their axes
    "content_variance": "variance of q(content | group)",
    "log_likelihood": "ln p(images), nats per image",
    "reconstruction": "E ln p(image | codes), nats",
}


def _plot_evidence(table: pd.DataFrame, row_names: Mapping[tuple[str, ...], str]):
    from matplotlib.figure import Figure

    settings = names_of_settings(table[SETTING].itertuples(index=False, name=None))
    colours = _colours(row_names.values())
    figure = Figure(figsize=(12, 3.4 * len(settings) + 0.5), layout="constrained")
    panels = figure.subplots(len(settings), len(EVIDENCE), squeeze=False)
    ticks = sorted(set(table["k"]))
    for (setting, title), line_of_panels in zip(settings.items(), panels, strict=True):
        here = table[(table[SETTING] == list(setting)).all(axis=1)]
        line_of_panels[0].set_title(title, loc="left", fontsize=10)
        for (quantity, axis_name), axes in zip(EVIDENCE.items(), line_of_panels, strict=True):
            shown = here[here["quantity"] == quantity]
            for (*key, grouping), line in shown.groupby([*leaderboard.KEY, "grouping"], sort=False):
                name = row_names[tuple(key)]
                k, mean, std = (line[column].to_numpy(float) for column in ("k", "mean", "std"))
                dashes = "-" if grouping == 1 else (0, (4, grouping))
                look = {"marker": "o", "linestyle": dashes, "color": colours[name], "label": name}
                _line_over_k(axes, k, mean, std, ticks, **look)
            axes.set(ylabel=axis_name)
            if quantity == "content_variance":
                axes.set_yscale("log")
    handles = {
        label: handle
        for axes in panels.flatten()
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, fontsize=8)
    return figure


@register_figure("cost")
def cost(found: Sequence[Run]):
    """What a model costs: seconds of training, and milliseconds per image at test time, both as measured by
    the runs, so that they compare only between runs of one machine that did nothing else.

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns quantity, mean, std, n. And a
    matplotlib figure.
    """
    rows = rows_of(run for run in found if run.config["protocol"]["steps"])
    lines = []
    for key, runs_of_row in rows.items():
        place = _key_of(key)
        records = [run.record for run in runs_of_row]
        values = {
            "train_seconds": [record["timings"]["train_seconds"] for record in records],
            "encode_milliseconds_per_image": [
                1e3 * record["timings"]["encode_seconds"] / record["scored_rows"] for record in records
            ],
        }
        lines += [place | {"quantity": name} | _spread(seconds) for name, seconds in values.items()]
    table = pd.DataFrame(lines)
    return table, None if table.empty else _plot_cost(table, names_of_rows(rows))


def _plot_cost(table: pd.DataFrame, row_names: Mapping[tuple[str, ...], str]):
    from matplotlib.figure import Figure

    axis_names = {
        "train_seconds": "training, seconds",
        "encode_milliseconds_per_image": "test time, milliseconds per image",
    }
    names = _labels(table[leaderboard.KEY].itertuples(index=False, name=None), row_names)
    figure = Figure(figsize=(11, 0.9 + 0.4 * len(names)), layout="constrained")
    for axes, (quantity, axis_name) in zip(
        figure.subplots(1, 2, sharey=True), axis_names.items(), strict=True
    ):
        shown = table[table["quantity"] == quantity]
        places = range(len(names) - 1, -1, -1)
        axes.barh(places, shown["mean"], xerr=shown["std"].fillna(0), color="tab:blue", height=0.6)
        axes.set_yticks(places, names.values(), fontsize=8)
        axes.set(xlabel=axis_name, xscale="log")
        axes.grid(axis="x", alpha=0.3)
    return figure


@register_figure("style_leak", needs=["style_accuracy"])
def style_leak(found: Sequence[Run]):
    """How well the class is read from the style, by its posterior mean and by a draw of it, beside the
    content and against the information in the style (mean KL to the prior, nats per image).

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns quantity, mean, std, n. And a
    matplotlib figure.
    """
    rows = rows_of(run for run in found if "style_accuracy" in run.scores and "kl_style" in run.history)
    lines = []
    for key, runs_of_row in rows.items():
        place = _key_of(key)
        values = {
            name: [run.scores[name] for run in runs_of_row if name in run.scores]
            for name in ("style_accuracy", "style_accuracy_sampled", "content_accuracy")
        }
        # Of the last tenth of the training, whose single batches differ.
        values["kl_style"] = [
            run.history["kl_style"].tail(max(1, len(run.history) // 10)).mean() for run in runs_of_row
        ]
        lines += [place | {"quantity": name} | _spread(those) for name, those in values.items() if those]
    table = pd.DataFrame(lines)
    return table, None if table.empty else _plot_leak(table, names_of_rows(rows))


LEAK = {  # quantity -> its name, marker and colour
    "content_accuracy": ("content, mean", "s", "tab:grey"),
    "style_accuracy": ("style, mean", "o", "tab:orange"),
    "style_accuracy_sampled": ("style, a draw", "D", "tab:blue"),
}


def _plot_leak(table: pd.DataFrame, row_names: Mapping[tuple[str, ...], str]):
    from matplotlib.figure import Figure

    of_rows = table.set_index(leaderboard.KEY)
    by_accuracy = of_rows[of_rows["quantity"] == "style_accuracy"].sort_values("mean")
    order = _labels(by_accuracy.index, row_names)
    figure = Figure(figsize=(13, 1.2 + 0.34 * len(order)), layout="constrained")
    dots, scatter = figure.subplots(1, 2, width_ratios=[1, 1])
    information = of_rows[of_rows["quantity"] == "kl_style"]["mean"]
    for quantity, (label, marker, colour) in LEAK.items():
        shown = of_rows[of_rows["quantity"] == quantity]
        places = [list(order).index(key) for key in shown.index]
        look = {"fmt": marker, "color": colour, "markersize": 5, "elinewidth": 1, "label": label}
        dots.errorbar(shown["mean"], places, xerr=shown["std"].fillna(0), **look)
        if quantity != "content_accuracy":
            nats = information.loc[shown.index]
            scatter.errorbar(nats, shown["mean"], yerr=shown["std"].fillna(0), **look)
    dots.set_yticks(range(len(order)), order.values(), fontsize=8)
    dots.set(xlabel="accuracy of the class, from one image", xlim=(-0.02, 1.02))
    dots.legend(fontsize=8)
    scatter.set(xlabel="KL of the style, nats per image", ylabel="accuracy of the class", ylim=(-0.02, 1.02))
    scatter.set_xscale("log")
    for axes in (dots, scatter):
        axes.grid(alpha=0.3)
    return figure


@register_figure("pictures")
def pictures(found: Sequence[Run]):
    """The pictures of a run of every leaderboard row, that of its first seed, in one folder.

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns seed, picture. And the pictures:
    file name -> Path.
    """
    rows = rows_of(found)
    names = names_of_rows(rows)
    settings = names_of_settings(key[: len(SETTING)] for key in rows)
    lines, files = [], {}
    for key, runs_of_row in rows.items():
        run = min(runs_of_row, key=lambda run: run.config["seed"])
        beginning = f"{settings[key[: len(SETTING)]]} {names[key]}"
        for path in sorted(run.path.glob("*.png")):
            name = re.sub(r"[^\w.=]+", "-", f"{beginning} {path.name}")
            place = _key_of(key)
            lines.append(place | {"seed": run.config["seed"], "picture": name})
            files[name] = path
    return pd.DataFrame(lines), files


@register_figure("scores_by_model")
def scores_by_model(found: Sequence[Run]):
    """Every metric's score: a panel per score, in it a dot per model and dataset, with the standard deviation
    over seeds.

    Returns
    -------
    A pandas DataFrame with the key of a leaderboard's row and the columns score, mean, std, n. And a
    matplotlib figure.
    """
    if not found:
        return pd.DataFrame(), None
    rows = rows_of(found)
    lines = []
    for score in leaderboard.main_scores(leaderboard.tabulate(found)):
        for key, runs_of_row in rows.items():
            values = [run.scores[score] for run in runs_of_row if score in run.scores]
            if values:
                place = _key_of(key)
                lines.append(place | {"score": score} | _spread(values))
    table = pd.DataFrame(lines)
    return table, None if table.empty else _plot_scores(table, names_of_rows(rows))


def _plot_scores(table: pd.DataFrame, row_names: Mapping[tuple[str, ...], str]):
    from matplotlib.figure import Figure

    settings = names_of_settings(table[SETTING].itertuples(index=False, name=None))
    colours = _colours(settings.values())
    models = list(dict.fromkeys(row_names.values()))
    scores = list(dict.fromkeys(table["score"]))
    columns = min(4, len(scores))
    lines = -(-len(scores) // columns)
    # Room for the dots of all settings beside one another in each model's line.
    height = 0.9 + len(models) * max(0.22, 0.09 * len(settings))
    figure = Figure(figsize=(2.9 * columns + 1.6, lines * height + 0.3), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    shift = dict(
        zip(settings, np.linspace(-0.3, 0.3, len(settings)) if len(settings) > 1 else [0], strict=True)
    )
    marks = {"up": "higher is better", "down": "lower is better", "": ""}
    for score, axes in zip(scores, panels, strict=False):
        here = table[table["score"] == score]
        for setting, name in settings.items():
            shown = here[(here[SETTING] == list(setting)).all(axis=1)]
            places = [
                models.index(row_names[key])
                for key in shown[leaderboard.KEY].itertuples(index=False, name=None)
            ]
            axes.errorbar(
                shown["mean"],
                np.array(places) + shift[setting],
                xerr=shown["std"].fillna(0),
                fmt="o",
                markersize=4,
                elinewidth=1,
                color=colours[name],
                label=name,
            )
        axes.set_title(score, fontsize=9)
        axes.set_xlabel(marks[leaderboard.direction(score)], fontsize=7)
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
