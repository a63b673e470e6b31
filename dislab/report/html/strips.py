"""Figures of scores by model: every seed of the runs here, and published values beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dislab.report.html.beside import source_name
from dislab.report.html.chart import NARROW, Panel, Scale, width_of
from dislab.report.html.figure import Figure, figure
from dislab.report.html.leaderboard import key_of, source_of, title_of
from dislab.report.html.rows import Row, Table, score_range
from dislab.report.html.scores import columns_of
from dislab.report.html.words import dataset_name, model_name, number, score_name
from dislab.report.names import counted
from dislab.report.published import published

FEWEST_ROWS = 3
MOST_PANELS = 6
LINE = 25  # pixels of a row of a strip plot
METHOD_LINE = 19  # of a method among published values
PREFERRED = "factorvae_score"  # the score that most papers print


def strips(tables: Sequence[Table]) -> list[Figure]:
    """Return a strip plot of each table, and of each dataset the published values beside ours."""
    shown = [_strip(table) for table in tables if len(table.ranked) >= FEWEST_ROWS]
    for dataset in dict.fromkeys(table.dataset for table in tables):
        shown += _beside(dataset, [table for table in tables if table.dataset == dataset])
    return shown


def _strip(table: Table) -> Figure:
    scores = [score for score in columns_of([table])[0] if len(table.cells(score)) > 1][:MOST_PANELS]
    models = [row.model for row in table.rows]
    names = [
        model_name(row.model) + (f", {row.words}" if models.count(row.model) > 1 else "")
        for row in table.rows
    ]

    def draw(width: int) -> tuple[list[str], float]:
        narrow = width == NARROW
        room = min(max(map(width_of, names)) + 12, 0.34 * width if narrow else 260)
        columns = 1 if narrow else len(scores)
        each = (width - room - 20 * (columns - 1)) / columns
        height = LINE * len(table.rows)
        parts: list[str] = []
        for index, score in enumerate(scores):
            left = room + (0 if narrow else index * (each + 20))
            top = 34 + (index * (height + 62) if narrow else 0)
            drawn = _axis(table, score, (left, left + each), (top, top + height))
            drawn.text(left, top - 12, score_name(score), "strong")
            for place, (row, name) in enumerate(zip(table.rows, names, strict=True)):
                y = top + LINE * (place + 0.5)
                if narrow or index == 0:
                    drawn.text(room - 10, y + 4, name, "minor" if row.is_reference else "", "end")
                _seeds(drawn, row, score, y)
            parts += drawn.parts
        return parts, (len(scores) * (height + 62) if narrow else height + 62)

    lines = [["model", "hyperparameters", "score", "mean", "ci95_low", "ci95_high", "values_of_seeds"]]
    for row in table.rows:
        for score in scores:
            if score in row.cells:
                cell = row.cells[score]
                values = " ".join(f"{value:.6g}" for value in cell.values)
                lines.append(
                    [
                        row.model,
                        row.config.key["hyperparameters"],
                        score,
                        cell.mean,
                        cell.low,
                        cell.high,
                        values,
                    ]
                )
    return figure(
        f"scores-{key_of(table)}",
        f"Scores by model: {title_of(table)}",
        f"{source_of(table.source)[0].capitalize()}, protocol {table.setting[2]}; oracle and untrained below",
        "Small dots: seeds. Filled: mean of at least two seeds with its 95 % interval; hollow: one seed. "
        + ("Lower is better for the style." if any(s.startswith("style") for s in scores) else ""),
        draw,
        lines,
        [
            ("circle", "s1", "mean, 95 % interval"),
            ("circle", "s1 open", "one seed"),
            ("circle", "quiet", "reference point"),
        ],
    )


def _axis(table: Table, score: str, xs: tuple[float, float], ys: tuple[float, float]) -> Panel:
    """Return a panel with the axis of a score: its range, or what its values need."""
    low, high = score_range(score, table.directions)
    if low is None or high is None:
        values = [cell.mean for row in table.rows if (cell := row.cells.get(score))]
        low, high = min(values), max(values)
    drawn = Panel(Scale(low, high, xs[0] + 5, xs[1] - 5), Scale(0, 1, ys[1], ys[0]))
    drawn.x_rules(most=3)
    return drawn


def _seeds(drawn: Panel, row: Row, score: str, y: float) -> None:
    drawn.rule(drawn.x.start, y, drawn.x.end, y, "grid")
    cell = row.cells.get(score)
    if cell is None:
        return
    look = "quiet" if row.is_reference else "s1"
    if cell.n > 1:
        low, high = (min(max(value, drawn.x.low), drawn.x.high) for value in (cell.low, cell.high))
        x, width = drawn.x(low), max(drawn.x(high) - drawn.x(low), 1)
        drawn.parts.append(
            f'<rect class="area {look}" x="{x}" y="{y - 5:g}" width="{width:.1f}" height="10" rx="2"/>'
        )
        for value in cell.values:
            drawn.parts.append(f'<circle class="mark seed {look}" cx="{drawn.x(value)}" cy="{y:g}" r="2.4"/>')
    hollow = "" if cell.n > 1 else " open"
    drawn.parts.append(f'<circle class="mark {look}{hollow}" cx="{drawn.x(cell.mean)}" cy="{y:g}" r="4"/>')


# Published values beside ours ------------------------------------------------------------------------


class Value(NamedTuple):
    """A published value of a method."""

    mean: float
    std: float
    source: str


def _beside(dataset: str, tables: Sequence[Table]) -> list[Figure]:
    """Draw every model, published and here, by the score of which most is published."""
    values = published()
    values = values[
        (values["dataset"] == dataset) & ~values["table"].str.contains("training steps|accumulation")
    ]
    here = {score for table in tables for row in table.ranked for score in row.cells}
    counts = values["metric"].value_counts()
    scores = [score for score in counts.index if score in here and counts[score] >= FEWEST_ROWS]
    if not scores:
        return []
    score = PREFERRED if PREFERRED in scores else scores[0]
    values = values[values["metric"] == score]
    methods: dict[str, list[Value]] = {}
    supervision: dict[str, str] = {}
    for _, line in values.iterrows():
        source = source_name(line["source_title"], str(line["source_year"]))
        methods.setdefault(line["method"], []).append(Value(line["value"], line["std"], source))
        supervision.setdefault(line["method"], line["supervision"] or "Not said")
    ours = [row for table in tables for row in table.ranked if score in row.cells]
    for row in ours:
        methods.setdefault(row.model, [])
        supervision[row.model] = row.supervision or supervision.get(row.model, "Not said")
    heads = {
        "groups": "Groups or pairs",
        "pairs": "Groups or pairs",
        "few labels": "Few labels",
        "no labels": "No labels",
    }
    sections: dict[str, list[str]] = {}
    for method in sorted(methods, key=lambda m: -_median(m, methods, ours, score)):
        sections.setdefault(heads.get(supervision[method], "Supervision not said"), []).append(method)
    sections = dict(
        sorted(
            sections.items(),
            key=lambda item: [*heads.values()].index(item[0]) if item[0] in heads.values() else 9,
        )
    )

    def draw(width: int) -> tuple[list[str], float]:
        names = [model_name(method) for method in methods]
        room = min(max(map(width_of, names)) + 16, 0.42 * width)
        total = METHOD_LINE * len(methods) + 30 * len(sections)
        axis = Panel(Scale(0, 1, room, width - 14), Scale(0, 1, 30 + total, 24))
        axis.x_rules([0, 0.25, 0.5, 0.75, 1])
        axis.x_rules([0, 0.25, 0.5, 0.75, 1], above=True)
        y = 24.0
        for title, inside in sections.items():
            axis.text(0, y + 20, title, "strong minor")
            y += 30
            for method in inside:
                _method(
                    axis, method, methods[method], [r for r in ours if r.model == method], score, y + 8, room
                )
                y += METHOD_LINE
        return axis.parts, total + 56

    lines = [["method", "supervision", "origin", "mean", "std_or_ci95", "n_or_source"]]
    for method, of_method in methods.items():
        lines += [[method, supervision[method], "published", v.mean, v.std, v.source] for v in of_method]
    for row in ours:
        cell = row.cells[score]
        interval = "" if cell.n == 1 else f"{cell.low:.6g} to {cell.high:.6g}"
        lines.append([row.model, supervision[row.model], "here", cell.mean, interval, cell.n])
    steps = sorted({table.steps for table in tables})
    sources = {source_of(table.source)[0] for table in tables}
    return [
        figure(
            f"published-{dataset}",
            f"Every model, published and here: {score_name(score)} on {dataset_name(dataset)}",
            f"{counted(sum(map(len, methods.values())), 'published value')} from "
            f"{counted(values['source_title'].nunique(), 'source')}; here {', '.join(sorted(sources))}",
            "One mark per published value: two marks of one model are two sources or two sizes. Here: "
            f"{' and '.join(f'{n:,}' for n in steps)} steps; published training is mostly far longer, and "
            "protocols differ. Bold: models of this report.",
            draw,
            lines,
            [
                ("diamond", "s2 open", "published, ± 1 std"),
                ("circle", "s1", "here, 95 % interval"),
                ("circle", "s1 open", "here, one seed"),
            ],
        )
    ]


def _median(method: str, methods: dict, ours: Sequence[Row], score: str) -> float:
    values = [value.mean for value in methods[method]]
    return float(np.median(values or [row.cells[score].mean for row in ours if row.model == method]))


def _method(
    axis: Panel, method: str, values: Sequence[Value], rows: Sequence[Row], score: str, y: float, room: float
) -> None:
    axis.rule(axis.x.start, y, axis.x.end, y, "grid")
    axis.text(room - 10, y + 4, model_name(method), "strong" if rows else "", "end")
    for row in rows:
        cell = row.cells[score]
        if cell.n > 1:
            x, width = axis.x(cell.low), max(axis.x(cell.high) - axis.x(cell.low), 1)
            axis.parts.append(
                f'<rect class="area s1" x="{x}" y="{y - 4:g}" width="{width:.1f}" height="8" rx="2"/>'
            )
    for value in values:
        if value.std == value.std:
            low, high = axis.x(max(value.mean - value.std, 0)), axis.x(min(value.mean + value.std, 1))
            axis.rule(low, y, high, y, "spread s2")
    for value in values:
        axis.parts.append(
            f'<path class="mark s2 open" d="M{axis.x(value.mean)} {y - 4.6:g}l4.6 4.6l-4.6 4.6l-4.6 -4.6z">'
            f"<title>{number(value.mean)}</title></path>"
        )
    for row in rows:
        cell = row.cells[score]
        hollow = "" if cell.n > 1 else " open"
        axis.parts.append(f'<circle class="mark s1{hollow}" cx="{axis.x(cell.mean)}" cy="{y:g}" r="4"/>')
