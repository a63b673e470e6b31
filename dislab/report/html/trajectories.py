"""Figures over the length of training, and over the number of joined images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dislab.report.frame import half_width
from dislab.report.html.beside import source_name
from dislab.report.html.chart import NARROW, SHAPES, around, series_class
from dislab.report.html.figure import Figure, figure, panel, panels_of
from dislab.report.html.leaderboard import key_of, source_of, title_of
from dislab.report.html.rows import Row, Table
from dislab.report.html.scores import HEADLINE
from dislab.report.html.words import dataset_name, model_name, number, score_name
from dislab.report.published import published

FEWEST_LENGTHS = 3  # that a source gives of a score
MOST_PANELS = 4
CURVE = "content_accuracy_curve"
MOST_LINES = 4
MATCHED = "(parameter-matched)"  # methods of another size, with their own names


def lengths(tables: Sequence[Table]) -> list[Figure]:
    """Draw published scores over the steps of training, and ours on top."""
    values = published()
    values = values[values["table"].str.contains("training steps") & values["steps"].notna()]
    shown = []
    for dataset in dict.fromkeys(table.dataset for table in tables):
        of_dataset = values[values["dataset"] == dataset]
        rows = [(table, row) for table in tables if table.dataset == dataset for row in table.ranked]
        for model in dict.fromkeys(row.model for _, row in rows):
            mine = [(table, row) for table, row in rows if row.model == model and table.steps]
            lines = of_dataset[of_dataset["method"] == model]
            counts = lines["metric"].value_counts()
            scores = [s for s in HEADLINE if counts.get(s, 0) >= FEWEST_LENGTHS]
            scores = [s for s in scores if any(s in row.cells for _, row in mine)][:MOST_PANELS]
            if scores:
                shown.append(_length(dataset, model, scores, mine, of_dataset))
    return shown


def _length(dataset: str, model: str, scores: list[str], mine: list[tuple[Table, Row]], values) -> Figure:
    lines = values[values["method"] == model].sort_values("steps")
    others = [m for m in values["method"].unique() if m != model and MATCHED not in m]
    steps = [*values["steps"].astype(int), *(table.steps for table, _ in mine)]
    ends = around(steps, log=True)

    def draw(width: int) -> tuple[list[str], float]:
        columns = 2 if width == NARROW else len(scores)
        boxes, height = panels_of(width, len(scores), min(columns, len(scores)), 150, 30, 18)
        parts: list[str] = []
        for score, box in zip(scores, boxes, strict=True):
            drawn = panel(box, ends, (0, 1), True)
            drawn.text(box[0] - 26, box[1] - 10, score_name(score), "strong")
            drawn.y_axis([0, 0.5, 1])
            drawn.x_axis(
                "training steps", [s for s in (100, 1000, 10_000, 100_000) if ends[0] <= s <= ends[1]]
            )
            for method in others:
                line = values[(values["method"] == method) & (values["metric"] == score)].sort_values("steps")
                if len(line) > 1:
                    drawn.line([*line["steps"].astype(int)], [*line["value"]], "pale")
            line = lines[lines["metric"] == score]
            xs, means = [*line["steps"].astype(int)], np.asarray(line["value"], float)
            deviation = np.nan_to_num(np.asarray(line["std"], float))
            drawn.band(xs, np.clip(means - deviation, 0, 1), np.clip(means + deviation, 0, 1), "s2")
            drawn.line(xs, means, "s2")
            for x, y in zip(xs, means, strict=True):
                drawn.mark("diamond", x, y, "mark s2 open", 3.6)
            for table, row in mine:
                cell = row.cells.get(score)
                if cell is not None and cell.n > 1:
                    drawn.band([table.steps], [cell.low], [cell.high], "s1")
            for table, row in mine:
                cell = row.cells.get(score)
                if cell is not None:
                    drawn.mark("circle", table.steps, cell.mean, f"mark s1{'' if cell.n > 1 else ' open'}")
            parts += drawn.parts
        return parts, height

    csv = [["score", "method", "origin", "steps", "mean", "std", "ci95_low", "ci95_high", "n"]]
    for score in scores:
        for _, line in values[values["metric"] == score].iterrows():
            csv.append(
                [score, line["method"], "published", line["steps"], line["value"], line["std"], "", "", ""]
            )
        for table, row in mine:
            if score in row.cells:
                cell = row.cells[score]
                csv.append(
                    [score, model, "here", table.steps, cell.mean, cell.std, cell.low, cell.high, cell.n]
                )
    titles = {source_name(line["source_title"], str(line["source_year"])) for _, line in lines.iterrows()}
    images = {source_of(table.source)[0] for table, _ in mine}
    return figure(
        f"length-{dataset}-{model}",
        f"Training length: {model_name(model)} on {dataset_name(dataset)}",
        f"Scores over the steps of training; here {', '.join(sorted(images))}",
        f"Published: {', '.join(sorted(titles))}, study of convergence; band of one standard deviation. "
        f"Grey: {', '.join(map(model_name, others))}. Supervision and images differ: see the model's page.",
        draw,
        csv,
        [
            ("diamond", "s2 open", "published, ± 1 std"),
            ("circle", "s1", "here, 95 % interval"),
            ("circle", "s1 open", "here, one seed"),
        ],
    )


def curves(model: str, tables: Sequence[Table]) -> list[Figure]:
    """Draw how well the class is read from the content of k joined images, if a model has a content block."""
    shown = []
    for table in tables:
        curved = [row for row in table.ranked if all(CURVE in run.record["details"] for run in row.runs)]
        mine = [row for row in curved if row.model == model and row.has_block("content")]
        whole = [row for row in curved if not row.has_block("content")]
        order = sorted(whole, key=lambda row: -row.cells["content_accuracy"].mean)
        if mine:
            shown.append(_curve(model, table, mine[: MOST_LINES - 1] + order[:1]))
    return shown


def _curve(model: str, table: Table, rows: Sequence[Row]) -> Figure:
    lines = []
    for row in rows:
        points = np.array([run.record["details"][CURVE] for run in row.runs], float)
        mean, n = points[:, :, 1].mean(0), len(points)
        half = half_width(points[:, :, 1].std(0, ddof=1), n) if n > 1 else np.full(len(mean), np.nan)
        lines.append((row, points[0, :, 0], mean, np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)))
    lowest = min(np.nanmin([*mean, *low]) for _, _, mean, low, _ in lines)
    floor = max(np.floor(lowest * 10) / 10, 0)
    ks = sorted({int(k) for _, xs, *_ in lines for k in xs})
    names = [
        (row.words or model_name(row.model)) if row.model == model else f"{model_name(row.model)}, whole code"
        for row, *_ in lines
    ]

    def draw(width: int) -> tuple[list[str], float]:
        right = width - 12
        drawn = panel((38, 16, right, 290), (ks[0], ks[-1]), (floor, 1), True)
        drawn.y_axis()
        drawn.x_axis("images joined, k (log scale)", ks)
        for index, (row, xs, mean, low, high) in enumerate(lines):
            look = series_class(index)
            if len(row.runs) > 1:
                drawn.band(xs, low, high, look)
            drawn.line(xs, mean, look)
            for x, y in zip(xs, mean, strict=True):
                drawn.mark(SHAPES[index], x, y, f"mark {look}{'' if len(row.runs) > 1 else ' open'}")
        return drawn.parts, 336

    csv = [["model", "hyperparameters", "k", "mean", "ci95_low", "ci95_high", "n"]]
    for row, *columns in lines:
        for values in zip(*columns, strict=True):
            csv.append(
                [row.model, row.config.key["hyperparameters"], *(f"{v:.6g}" for v in values), len(row.runs)]
            )
    return figure(
        f"curve-{key_of(table)}",
        "Accuracy of the class over the number of images",
        f"{title_of(table)}, {source_of(table.source)[0]}; content of {model_name(model)}"
        + (
            ", beside the whole code of the best model without a content block"
            if names[-1].endswith("whole code")
            else ""
        ),
        "Content joined by the model; images grouped by their true class for k > 1, never ranked with k = 1. "
        "Band: 95 % interval over seeds; hollow: one seed.",
        draw,
        csv,
        [
            (SHAPES[i], series_class(i), f"{name}: {number(mean[0])} at k = {ks[0]}")
            for i, (name, (_, _, mean, *_)) in enumerate(zip(names, lines, strict=True))
        ],
        width="half",
    )
