"""What pages say of a score: which are shown first, what each asks, and which are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dislab.registry import METRICS
from dislab.report.frame import in_order
from dislab.report.html.rows import Table
from dislab.report.html.words import entry_of, score_name, short
from dislab.report.names import DIRECTIONS, HEADLINES, STAND_INS, headline_names
from dislab.scoring.protocols import metric_of

# The columns that a leaderboard shows first, in this order. Modularity is among the other scores of a page.
HEADLINE = tuple(score for score in HEADLINES if score != "modularity")
DRAW = "style_accuracy_sampled"  # joins if there are few columns: it is read together with the mean
FEW = 2
BESIDE = {  # values beside a score that have a column or a line of their own
    DRAW: "Accuracy of the class from one draw of the style code, not from its mean",
    "content_accuracy_k10": "Accuracy of the class from ten images that are joined by their true class",
}


def columns_of(tables: Iterable[Table]) -> tuple[list[str], list[str]]:
    """Return the scores that the tables of a dataset show first, and the others, as records name them."""
    tables = list(tables)
    present = {score for table in tables for row in table.rows for score in row.cells}
    metrics = in_order({name for table in tables for name in table.directions if name in present})
    wanted = [score for score in headline_names(metrics) if score != "modularity"]
    first = [name for score in wanted for name in metrics if name.partition("@")[0] == score]
    if len(first) <= FEW:
        first += [name for name in sorted(present) if name.partition("@")[0] == DRAW]
    return first, [name for name in metrics if name not in first]


def about(score: str, metrics: Mapping[str, str]) -> str:
    """Return what a score asks, its reference, range and direction: the text of its column's tooltip.

    Parameters
    ----------
    metrics : the metrics that records name, with their directions.
    """
    metric = metric_of(score, metrics)
    entry = None if metric is None else entry_of(METRICS, metric.partition("@")[0])
    plain, _, settings = score.partition("@")
    better = DIRECTIONS[metrics.get(metric, "")] or "no direction"
    if plain.startswith("style_accuracy"):
        better += "; chance is the best value"
    if entry is None:
        return f"{plain}: a metric that is not registered here; {better}."
    sentences = [BESIDE.get(plain) or entry.title]
    sentences += [entry.reference] if entry.reference else []
    if entry.low is not None and entry.high is not None:
        better = f"{short(float(entry.low))} to {short(float(entry.high))}, {better}"
    elif entry.low is not None:
        better = f"{short(float(entry.low))} or more, {better}"
    sentences.append(better[0].upper() + better[1:])
    sentences += [f"Computed by {settings}"] if settings else []
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)


def missing(table: Table, shown: Iterable[str], folder: str) -> list[tuple[str, str]]:
    """Return what the line below a table says of the headline scores that none of its rows has.

    Returns
    -------
    Pairs of a sentence and of the command that adds these scores, "" if nothing can.
    """
    present = {name.partition("@")[0] for row in table.rows for name in row.cells}
    stand_ins = {score for score, other in STAND_INS.items() if other in present}
    lacking = [score for score in HEADLINE if score not in present | stand_ins]
    reasons: dict[str, list[str]] = {}
    for score in lacking:
        if score.startswith("style_") and not any(row.has_block("style") for row in table.rows):
            continue  # the cells say it
        left_out = [row.first.record["left_out"].get(score) for row in table.rows]
        reasons.setdefault(next(filter(None, left_out), ""), []).append(score)
    lines = []
    for reason, scores in reasons.items():
        names = ", ".join(score_name(score) for score in scores)
        if reason:
            because = re.sub(r"^it needs", "this needs" if len(scores) == 1 else "these need", reason)
            lines.append((f"Left out: {names} ({because}).", ""))
        else:
            command = f"dislab evaluate {folder} --metrics {','.join(scores)}"
            them = "it is" if len(scores) == 1 else "they are"
            said = f"Not computed here: {names}. Where the runs' folders are, {them} added by"
            lines.append((said, command))
    return lines
