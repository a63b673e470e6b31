"""The leaderboard page: a tab per dataset, in it a table per setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from dislab.report.html.best import marks
from dislab.report.html.marks import Axis, bar, said
from dislab.report.html.rows import MEANT_BY, Row, Table, score_range
from dislab.report.html.scores import about, columns_of, missing
from dislab.report.html.words import dataset_name, number, score_name
from dislab.report.names import counted
from dislab.runs.config import EXTERNAL, UNPUBLISHED

WIDTH, WIDE = 112, 190  # pixels of a bar; the second where there are few columns
FEW_COLUMNS = 3
DAGGER = "No content block: the class is read from the whole code."


def leaderboard(tables: Sequence[Table], models: Mapping[str, tuple[str, str]], folder: str) -> dict:
    """Return what the template of the leaderboard shows."""
    tabs = {}
    for table in tables:
        tabs.setdefault(table.dataset, []).append(table)
    return {
        "page": "leaderboard.html",
        "title": "Leaderboard",
        "lead": f"{counted(len(models), 'model')} on {counted(len(tabs), 'dataset')}. There is one table per "
        "setting: rows that differ in dataset, image source, protocol, grouping or held-out part are never "
        "ranked together.",
        "tabs": [_tab(dataset, shown, models, folder) for dataset, shown in tabs.items()],
        "choices": {
            "Supervision": _different(row.supervision for table in tables for row in table.rows),
            "Protocol": _different(table.setting[2] for table in tables),
            "Images": _different(source_of(table.source)[0] for table in tables),
        },
        "csv": as_csv(tables),
    }


def _different(values) -> list[str]:
    """Return the different values; none if there is only one, as there is nothing to choose then."""
    different = sorted({value for value in values if value})
    return different if len(different) > 1 else []


def source_of(source: str) -> tuple[str, str]:
    """Return what a badge calls the source of the images, and its tooltip."""
    apart = "Rows of different sources never share a table."
    if source.startswith("rendered"):
        return "drawn images", f"The dataset's grid of factors as dislab draws it ({source}). {apart}"
    if UNPUBLISHED.strip() in source:
        return "other file", f"{source}: a file that is not known to be the published one. {apart}"
    if source == EXTERNAL:
        return "images not known", "Only the codes were given, not the images that they were made from."
    if source == "official":
        return "official images", f"The published file, exactly as published. {apart}"
    if source.startswith("official-v"):
        return "official images", f"The published images, with what dislab draws on them ({source}). {apart}"
    return "own images", f"{source}. {apart}"


def title_of(table: Table) -> str:
    """Return the heading of a table: "Shapes3D, 2,000 steps"."""
    words = counted(table.steps, "step") if table.steps else "no training"
    return f"{dataset_name(table.dataset)}, {'codes of other programs' if table.is_external else words}"


def name_in(table: Table) -> str:
    """Return a table's name in a figure: its title, and the source of its images."""
    return f"{title_of(table)}, {source_of(table.source)[0]}"


def key_of(table: Table) -> str:
    """Return a name for the table's figures that is no other table's."""
    return "-".join(part for part in table.setting if part).replace(" ", "")


def _tab(dataset: str, tables: list[Table], models: Mapping, folder: str) -> dict:
    first, others = columns_of(tables)
    known = {name: better for table in tables for name, better in table.directions.items()}
    wide = len(first) <= FEW_COLUMNS
    columns = [
        {
            "score": score,
            "name": score_name(score),
            "about": about(score, known),
            "better": tables[0].direction(score) or known.get(score, ""),
            "other": score in others,
            "range": None if score in others else _axis(score, known, wide),
        }
        for score in (*first, *others)
    ]
    return {
        "id": f"data-{dataset}",
        "name": dataset_name(dataset),
        "count": sum(len(table.rows) for table in tables),
        "columns": columns,
        "others": len(others),
        "tables": [_table(table, columns, models, folder) for table in tables],
    }


def _axis(score: str, known: Mapping[str, str], wide: bool) -> Axis | None:
    low, high = score_range(score, known)
    return None if low is None or high is None else Axis(low, high, WIDE if wide else WIDTH)


def _table(table: Table, columns: list[dict], models: Mapping, folder: str) -> dict:
    _, source, protocol, hold_out, group_by = table.setting
    badge, meant = source_of(source)
    numbers = sorted({row.first.record["scored_rows"] for row in table.rows})
    scored = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
    seeds = counted(table.n, "seed")
    marked = {column["score"]: marks(table, column["score"]) for column in columns}
    rows = [_row(table, row, columns, marked, models) for row in table.rows]
    return {
        "title": title_of(table),
        "badge": badge,
        "meant": meant,
        "protocol": protocol,
        "meta": [f"{scored} images scored", f"class: {group_by.replace('_', ' ')}"]
        + ([f"trained without, and scored on: {hold_out}"] if hold_out else [])
        + [f"n = {seeds} unless marked"],
        "sorted_by": table.sorted_by,
        "ranked": rows[: len(table.ranked)],
        "references": rows[len(table.ranked) :],
        "dagger": DAGGER if any(cell["dagger"] for row in rows for cell in row["cells"]) else "",
        "missing": missing(table, [column["score"] for column in columns], folder),
    }


def _row(table: Table, row: Row, columns: list[dict], marked: Mapping, models: Mapping) -> dict:
    name, page = models[row.model]
    return {
        "name": name,
        "page": page,
        "supervision": row.supervision,
        "meant": MEANT_BY.get(row.supervision, ""),
        "words": row.words,
        "n": row.n if row.n != table.n else None,
        "title": f"{row.config.key['hyperparameters'] or 'no hyper-parameters'}; seeds "
        f"{', '.join(map(str, row.seeds))}",
        "search": " ".join([row.model, name, row.words, row.supervision, *table.setting]).lower(),
        "cells": [_cell(table, row, column, marked[column["score"]]) for column in columns],
    }


def _cell(table: Table, row: Row, column: Mapping, marked: Mapping[int, str]) -> dict:
    score = column["score"]
    cell, mark = row.cells.get(score), marked.get(id(row), "")
    shown = {"mark": mark, "other": column["other"], "dagger": False, "bar": ""}
    if cell is None:
        because = row.first.record["left_out"].get(score, "")
        reason = "does not apply" if because else "not computed"
        if not row.applies(score):
            reason = "no style block"
        return shown | {"value": None, "reason": reason, "because": because}
    axis = column["range"]
    if axis is not None:
        look = "reference" if row.is_reference else mark
        ends = (table.reference(model, score) for model in ("untrained", "oracle"))
        shown["bar"] = bar(cell, axis, *ends, table.chance(score), look)
    return shown | {
        "value": cell.mean,
        "mean": number(cell.mean) if axis is not None or not cell.is_count else f"{cell.mean:.3g}",
        "std": number(cell.std) if cell.n > 1 else "",
        "n": cell.n if cell.n != row.n else None,
        "said": said(cell),
        "dagger": row.is_of_whole_code(score),
    }


def as_csv(tables: Sequence[Table]) -> str:
    """Return what the leaderboard shows as CSV: a line for each row and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["dataset", "source", "protocol", "hold_out", "group_by", "model", "hyperparameters", "seeds"]
    writer.writerow([*head, "score", "mean", "std", "ci95_low", "ci95_high", "n"])
    for table in tables:
        metrics = set(table.directions)
        for row in table.rows:
            key = [*row.config.key.values(), " ".join(map(str, row.seeds))]
            for score, cell in row.cells.items():
                if score in metrics:
                    numbers = (cell.mean, cell.std, cell.low, cell.high)
                    texts = ["" if value != value else f"{value:.6g}" for value in numbers]
                    writer.writerow([*key, score, *texts, cell.n])
    return text.getvalue()
