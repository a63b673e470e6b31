"""Figures of what training does and costs: terms of the loss over the steps, seconds, and test time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dislab.errors import RunFailed
from dislab.report.html.chart import NARROW, SHAPES, around, series_class, width_of
from dislab.report.html.figure import Figure, figure, panel, panels_of
from dislab.report.html.leaderboard import key_of, name_in, source_of, title_of
from dislab.report.html.rows import Table
from dislab.report.html.words import model_name
from dislab.report.names import counted

MOST_TERMS = 4  # panels of training curves


def training(tables: Sequence[Table]) -> list[Figure]:
    """Draw the terms of the loss over the steps, of the first seed of each row whose folder is there."""
    shown = []
    for table in tables:
        histories = {}
        for row in table.ranked:
            if row.config.protocol.steps and row.first.path.is_dir():
                try:
                    history = row.first.history
                except (RunFailed, ValueError):
                    continue
                if "step" in history and len(history) > 1:
                    histories[id(row)] = (row, history)
        if histories:
            shown.append(_training(table, list(histories.values())))
    return shown


def _training(table: Table, histories: Sequence[tuple]) -> Figure:
    count: dict[str, int] = {}
    for _, history in histories:
        for term in history.columns:
            if term != "step" and np.isfinite(history[term]).any():
                count[term] = count.get(term, 0) + 1
    # The loss of a model of groups is that of a group: the terms are per image and compare better.
    terms = sorted(count, key=lambda term: (term == "loss", -count[term], term))[:MOST_TERMS]
    several = len({row.model for row, _ in histories}) < len(histories)
    names = [model_name(row.model) + (f", {row.words}" if several else "") for row, _ in histories]

    def draw(width: int) -> tuple[list[str], float]:
        columns = min(len(terms), 1 if width == NARROW else 4)
        boxes, height = panels_of(width, len(terms), columns, 190, 52)
        parts: list[str] = []
        for term, box in zip(terms, boxes, strict=True):
            lines = [(n, h["step"], h[term]) for n, (_, h) in enumerate(histories) if term in h]
            finite = np.concatenate([values[np.isfinite(values)] for *_, values in lines])
            last = max(steps.max() for _, steps, _ in lines)
            drawn = panel(box, (0, last), around(np.clip(finite, None, np.quantile(finite, 0.99))))
            drawn.text(box[0] - 44, box[1] - 10, term.replace("_", " "), "strong")
            drawn.y_axis(most=4)
            drawn.x_axis("step", most=4)
            for number, steps, values in lines:
                keep = np.isfinite(values) & (values <= drawn.y.high)
                if keep.any():
                    look, shape = series_class(number), SHAPES[number % 6]
                    drawn.line(steps[keep], values[keep], look)
                    drawn.mark(shape, steps[keep].iloc[-1], values[keep].iloc[-1], f"mark {look}", 3.4)
            parts += drawn.parts
        return parts, height

    lines = [["model", "seed", "step", *terms]]
    for row, history in histories:
        for _, line in history.iterrows():
            numbers = [f"{line[term]:.6g}" if term in line else "" for term in terms]
            lines.append([row.model, row.seeds[0], int(line["step"]), *numbers])
    return figure(
        f"training-{key_of(table)}",
        f"Training: {title_of(table)}",
        f"Terms of the loss as they were logged, {source_of(table.source)[0]}, nats",
        "One line per row, its first seed, if its folder is there. The highest 1 % of a panel is cut.",
        draw,
        lines,
        [(SHAPES[n % 6], series_class(n), name) for n, name in enumerate(names)],
    )


def cost(tables: Sequence[Table]) -> list[Figure]:
    """Draw what a model costs: seconds of training, and milliseconds per image at test time."""
    tables = [t for t in tables if any(row.config.protocol.steps for row in t.ranked)][: len(SHAPES)]
    models = list(dict.fromkeys(r.model for t in tables for r in t.ranked if r.config.protocol.steps))
    points = []  # table, model, seconds, milliseconds, number of runs
    for number, table in enumerate(tables):
        for row in table.ranked:
            times = [run.record["timings"] for run in row.runs]
            if row.config.protocol.steps and all(time["train_seconds"] > 0 for time in times):
                seconds = float(np.mean([time["train_seconds"] for time in times]))
                encode = np.mean([time["encode_seconds"] for time in times])
                points.append(
                    (number, row.model, seconds, 1e3 * encode / row.first.record["scored_rows"], row.n)
                )
    if len(points) < 2:
        return []
    titles = ("training, seconds", "test time, milliseconds per image")

    def draw(width: int) -> tuple[list[str], float]:
        narrow = width == NARROW
        room = min(max(width_of(model_name(m)) for m in models) + 16, 130)
        height = 24 * len(models)
        parts: list[str] = []
        for side, title in enumerate(titles):
            values = [point[2 + side] for point in points]
            each = width - room if narrow else (width - room - 40) / 2
            left = room if narrow or side == 0 else room + each + 40
            top = 40 + (height + 76 if narrow and side else 0)
            drawn = panel(
                (left + 8, top, left + each - 8, top + height), around(values, True), (0, len(models)), True
            )
            drawn.text(left + 8, top - 22, f"{title} (log scale)", "strong")
            drawn.x_rules(most=4)
            for place, model in enumerate(models):
                y = len(models) - place - 0.5
                drawn.rule(left + 8, drawn.y(y), left + each - 8, drawn.y(y), "grid")
                if narrow or side == 0:
                    drawn.text(left - 4, drawn.y(y) + 4, model_name(model), "", "end")
                for number, of_model, *numbers in points:
                    if of_model == model:
                        look = f"mark {series_class(number)}"
                        drawn.mark(SHAPES[number], numbers[side], y, look)
            parts += drawn.parts
        return parts, (2 * (height + 76) if narrow else height + 76)

    lines = [["table", "model", "train_seconds", "encode_milliseconds_per_image", "n"]]
    lines += [[name_in(tables[number]), *rest] for number, *rest in points]
    machines = {
        run.record["environment"].get("system", "") for t in tables for r in t.ranked for run in r.runs
    }
    return [
        figure(
            "cost",
            "Time and cost",
            "A mark per row: mean over its seeds",
            f"As the runs measured it, on {counted(len(machines), 'system')}: times compare between runs of "
            "one machine that did nothing else.",
            draw,
            lines,
            [(SHAPES[n], series_class(n), name_in(table)) for n, table in enumerate(tables)],
        )
    ]
