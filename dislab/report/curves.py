"""Figures over k, the number of images of a group that are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dislab.report.axes import add_legend, axes_for, not_empty
from dislab.report.frame import SETTING, colours_of, shown_rows, shown_settings, spread, values_of
from dislab.runs.finished import Run

if TYPE_CHECKING:
    from dislab.report.axes import Panels

AXES = {"accuracy": "accuracy", "entropy": "conditional entropy, bits"}
STYLES = {  # block of the code -> marker and dashes
    "content": ("o", "-"),
    "whole code": ("s", "-."),
    "style": ("", ":"),
    "style, a draw": ("", (0, (6, 3))),
}
EVIDENCE = {  # measure of a run's evidence -> name of its axis
    "content_variance": "variance of q(content | group)",
    "log_likelihood": "ln p(images), nats per image",
    "reconstruction": "E ln p(image | codes), nats",
}


def accuracy_over_k_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `accuracy_over_k` shows: columns row, those of KEY, quantity, block, k, mean, std, n.

    The quantity is "accuracy" or "entropy"; the block of the dashed lines is "uninformed".
    """
    curved = [
        run for run in runs if {"content_accuracy_curve", "content_entropy_curve"} & {*run.scores.details}
    ]
    values = []
    for run in curved:
        blocks = run.record["blocks"]
        content = "content" if any(name.startswith("content") for name in blocks) else "whole code"
        for quantity, uninformed in (("accuracy", "chance"), ("entropy", "of_class")):
            lines = [(content, *point) for point in run.scores.details.get(f"content_{quantity}_curve", [])]
            single = {"uninformed": f"content_{quantity}_{uninformed}"}
            if "style" in blocks:
                single |= {"style": f"style_{quantity}", "style, a draw": f"style_{quantity}_sampled"}
            lines += [(block, 1, run.scores[name]) for block, name in single.items() if name in run.scores]
            values += [(run, (quantity, block, int(k)), value) for block, k, value in lines]
    return spread(values_of(values), curved, ["quantity", "block", "k"])


def accuracy_over_k(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw how well the class is read from k joined images: accuracy, and conditional entropy in bits.

    A line per model and block of its code: content, style (its value at k = 1, where nothing is joined) by
    its posterior mean and by a draw, or the whole code of a model without blocks; mean and standard deviation
    over seeds. Dashed: a code that knows nothing, of accuracy 1 / C and entropy H(y) = log2 C. Bouchacourt et
    al. 2017, figure 7.

    Parameters
    ----------
    runs : finished runs with the score content_accuracy or content_entropy.
    ax : matplotlib axes, two for each dataset and other setting; by default those of a new figure.
    table : what `accuracy_over_k_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [panels].

    Raises
    ------
    DislabError : no run has these scores, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> from dislab.report.figures import accuracy_over_k
    >>> axes = accuracy_over_k(dislab.runs_in("results"))  # doctest: +SKIP
    >>> axes[0].figure.savefig("accuracy.pdf")  # doctest: +SKIP
    """
    from matplotlib.lines import Line2D

    table = not_empty(
        accuracy_over_k_table(runs) if table is None else table, "content_accuracy or content_entropy"
    )
    row_names, settings = shown_rows(table, runs), shown_settings(table)
    colours = colours_of(row_names.values())
    panels = axes_for(ax, 2 * len(settings), 2, (11, 3.6 * len(settings)))
    ticks = sorted(set(table["k"]))
    for (setting, title), pair in zip(settings.items(), panels.reshape(-1, 2), strict=True):
        here = table[(table[SETTING] == list(setting)).all(axis=1)]
        pair[0].set_title(title, loc="left", fontsize=10)
        for (quantity, axis_name), axes in zip(AXES.items(), pair, strict=True):
            shown = here[here["quantity"] == quantity]
            for (row, block), line in shown.groupby(["row", "block"], sort=False):
                if block == "uninformed":
                    continue
                k, mean, std = (line[name].to_numpy(float) for name in ("k", "mean", "std"))
                if block.startswith("style"):
                    k = np.array(ticks, float)
                    mean, std = (np.repeat(value, len(ticks)) for value in (mean, std))
                marker, dashes = STYLES[block]
                look = {"marker": marker, "linestyle": dashes, "color": colours[row_names[row]]}
                _line_over_k(axes, k, mean, std, ticks, **look)
            for level in set(shown["mean"][shown["block"] == "uninformed"]):
                axes.axhline(level, color="black", linestyle="--", linewidth=1)
            axes.set(ylabel=axis_name)
            if quantity == "accuracy":
                axes.set_ylim(-0.02, 1.02)
            else:
                axes.set_ylim(bottom=0)
    blocks = set(table["block"])
    legend = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    legend += [
        Line2D([], [], color="grey", marker=marker, linestyle=dashes, markersize=4, label=block)
        for block, (marker, dashes) in STYLES.items()
        if block in blocks
    ]
    legend.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label="chance, H(y)"))
    add_legend(ax, panels, legend, [line.get_label() for line in legend], loc="outside right upper")
    return panels


def evidence_over_k_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what `evidence_over_k` shows: columns row, those of KEY, grouping, k, quantity, mean, std, n."""
    measured = [run for run in runs if run.record["evidence"]]
    return spread(
        values_of(
            (run, (line["grouping"], line["k"], quantity), line[quantity])
            for run in measured
            for line in run.record["evidence"]
            for quantity in EVIDENCE
        ),
        measured,
        ["grouping", "k", "quantity"],
    )


def evidence_over_k(runs: Sequence[Run], ax: Panels = None, table: pd.DataFrame | None = None) -> np.ndarray:
    """Draw what joining k images of a group does, see `dislab.scoring.evidence`.

    The mean variance of the content posterior, and the log-likelihood of an image and its reconstruction
    term, in nats per image; mean and standard deviation over seeds.

    Parameters
    ----------
    runs : finished runs of models with content and style.
    ax : matplotlib axes, three for each dataset and other setting; by default those of a new figure.
    table : what `evidence_over_k_table` returns for these runs, if it is known already.

    Returns
    -------
    The axes, [panels].

    Raises
    ------
    DislabError : there is no such run, or the number of axes is wrong.

    Examples
    --------
    >>> import dislab
    >>> from dislab.report.figures import evidence_over_k
    >>> axes = evidence_over_k(dislab.runs_in("results"))  # doctest: +SKIP
    >>> axes[0].figure.savefig("evidence.pdf")  # doctest: +SKIP
    """
    table = not_empty(evidence_over_k_table(runs) if table is None else table, "content and style")
    row_names, settings = shown_rows(table, runs), shown_settings(table)
    colours = colours_of(row_names.values())
    columns = len(EVIDENCE)
    panels = axes_for(ax, columns * len(settings), columns, (12, 3.4 * len(settings) + 0.5))
    ticks = sorted(set(table["k"]))
    for (setting, title), line_of_panels in zip(settings.items(), panels.reshape(-1, columns), strict=True):
        here = table[(table[SETTING] == list(setting)).all(axis=1)]
        line_of_panels[0].set_title(title, loc="left", fontsize=10)
        for (quantity, axis_name), axes in zip(EVIDENCE.items(), line_of_panels, strict=True):
            shown = here[here["quantity"] == quantity]
            for (row, grouping), line in shown.groupby(["row", "grouping"], sort=False):
                k, mean, std = (line[column].to_numpy(float) for column in ("k", "mean", "std"))
                dashes = "-" if grouping == 1 else (0, (4, grouping))
                name = row_names[row]
                look = {"marker": "o", "linestyle": dashes, "color": colours[name], "label": name}
                _line_over_k(axes, k, mean, std, ticks, **look)
            axes.set(ylabel=axis_name)
            if quantity == "content_variance":
                axes.set_yscale("log")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    add_legend(ax, panels, [*handles.values()], [*handles], loc="outside upper center", ncols=3)
    return panels


def _line_over_k(axes, k, mean, std, ticks: Sequence[int], **look) -> None:
    """Draw a line over k, with a band of one standard deviation."""
    axes.plot(k, mean, markersize=4, **look)
    if np.isfinite(std).any():
        axes.fill_between(k, mean - std, mean + std, color=look["color"], alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="images joined, k")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(True, alpha=0.3)
