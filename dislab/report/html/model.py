"""A model's page: what it is, its scores here beside published ones, and its pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dislab.report.html.about import About, about_model
from dislab.report.html.beside import Published, difference, published_of, source_name
from dislab.report.html.best import rank
from dislab.report.html.leaderboard import source_of
from dislab.report.html.marks import Axis, here_and_published
from dislab.report.html.pictures import MOST_BYTES, pictures_of
from dislab.report.html.rows import MEANT_BY, Cell, Row, Table, score_range
from dislab.report.html.scores import HEADLINE, about
from dislab.report.html.trajectories import curves
from dislab.report.html.words import dataset_name, number, score_name, short
from dislab.report.published import published
from dislab.scoring.protocols import metric_of

WIDTH = 130  # pixels of the axis
JOINED = "content_accuracy_k10"
TASKS = (  # a heading, what stands beside it, and its scores
    (
        "Disentanglement",
        "all factors of the dataset, scores of the whole code",
        [name for name in HEADLINE if "accuracy" not in name],
    ),
    ("Class accuracy", "from the code of one image, k = 1", ["content_accuracy", "style_accuracy"]),
    ("Class accuracy, grouped", "from ten images that are joined by their true class, k = 10", [JOINED]),
)
MORE = "Other scores that are published"


def model_page(name: str, tables: Sequence[Table], out: Path, pictures: str) -> tuple[dict, list[str]]:
    """Return what the template of a model's page shows, and a line for each picture that is damaged.

    Parameters
    ----------
    pictures : "one" or "all", see `write_report`.
    """
    entries = entries_of(name, tables)
    rows = list({id(row): row for table in tables for row in table.rows if row.model == name}.values())
    if pictures == "all":
        mine = [(table, row) for table in tables for row in table.rows if row.model == name]
        # Codes of another program stand in several tables.
        shown = {run.path: (title_of(table, row), row, run) for table, row in mine for run in row.runs}
        groups, damaged = pictures_of(shown.values())
    else:
        pictured = _pictured(entries, tables)
        shown = [(title_of(table, row), row, row.first) for table, row in pictured]
        groups, damaged = pictures_of(shown, MOST_BYTES)
    supervision = next((row.supervision for row in rows), "")
    return {
        "about": About() if all(row.is_external for row in rows) else about_model(name),
        "supervision": supervision,
        "meant": MEANT_BY.get(supervision, ""),
        "hyperparameters": _hyperparameters(name, rows),
        "optimiser": _optimiser(rows),
        "runs": _links(rows, out),
        "tasks": _tasks(name, entries),
        "elsewhere": _elsewhere(name, entries),
        "figures": curves(name, [table for table, _ in entries]),
        "pictures": groups,
        "folded": pictures == "all",
        "several": len(rows) > len(entries),
    }, damaged


def entries_of(name: str, tables: Sequence[Table]) -> list[tuple[Table, Row]]:
    """Return the rows of a model that its page shows: of each dataset and source, one.

    It is the first of the model's rows in the table with the longest training, nothing held out if there is
    such a one, and most seeds.
    """
    chosen: dict[tuple[str, str], tuple[tuple, Table, Row]] = {}
    for table in tables:
        mine = [row for row in table.rows if row.model == name]
        if mine:
            order = (not table.setting[3], table.steps, mine[0].n)
            key = (table.dataset, table.source)
            if key not in chosen or order > chosen[key][0]:
                chosen[key] = (order, table, mine[0])
    return [(table, row) for _, table, row in chosen.values()]


def _pictured(entries: Sequence[tuple[Table, Row]], tables: Sequence[Table]) -> list[tuple[Table, Row]]:
    """Return the entries; in place of one whose folder is gone, another row of model, dataset and source."""
    shown = []
    for table, row in entries:
        alike = [t for t in tables if t.setting[:2] == table.setting[:2]]
        rows = [(table, row)] + [(t, other) for t in alike for other in t.rows if other.model == row.model]
        shown.append(next((pair for pair in rows if pair[1].first.path.is_dir()), (table, row)))
    return shown


def title_of(table: Table, row: Row) -> str:
    """Return how a page calls a row apart from its model: "Shapes3D, drawn images, β = 6, 10 latents"."""
    words = [dataset_name(table.dataset), source_of(table.source)[0], row.words]
    return ", ".join(filter(None, words))


def _hyperparameters(name: str, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return each hyper-parameter with its meaning and the values that the rows have."""
    meanings = about_model(name).meanings or {}
    names = dict.fromkeys(key for row in rows for key in row.config.hyperparameters)
    table = []
    for key in names:
        values = dict.fromkeys(short(row.config.hyperparameters.get(key)) for row in rows)
        table.append((key, meanings.get(key, ""), ", ".join(values)))
    return table


def _optimiser(rows: Sequence[Row]) -> str:
    protocols = [row.config.protocol for row in rows if not row.is_external]
    if not protocols:
        return "Codes of another program: how they were learned is not known here."
    steps = sorted({protocol.steps for protocol in protocols})
    if steps == [0]:
        return "No training."
    rates = sorted({short(protocol.learning_rate) for protocol in protocols})
    sizes = sorted({protocol.batch_size for protocol in protocols})
    counts = " or ".join(f"{number:,}" for number in steps)
    return f"Adam {' or '.join(rates)}, batches of {' or '.join(map(str, sizes))}, {counts} steps."


def _links(rows: Sequence[Row], out: Path) -> list[tuple[str, str]]:
    """Return the run.json of each row's first seed, if it is there, as seen from the folder of the pages."""
    links = []
    for row in rows:
        path = row.first.path / "run.json"
        if path.is_file():
            href = Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
            links.append((f"{dataset_name(row.config.dataset)}, {row.config.protocol_name}", href))
    return links


def _tasks(name: str, entries: Sequence[tuple[Table, Row]]) -> list[dict]:
    """Return the groups of the table of results; one without a value, ours or published, is left out."""
    covered = {score for *_, scores in TASKS for score in scores}
    more = {
        score.partition("@")[0]
        for table, row in entries
        for score in row.cells
        if published_of(name, table.dataset, score)
    }
    groups = []
    for title, note, scores in (*TASKS, (MORE, "", sorted(more - covered))):
        lines = [line for table, row in entries for line in _lines(name, table, row, scores)]
        if lines:
            groups.append({"title": title, "note": note, "lines": _merged(lines)})
    return groups


def _lines(name: str, table: Table, row: Row, scores: Sequence[str]) -> list[dict]:
    lines = []
    for score in scores:
        recorded = [one for one in row.cells if one.partition("@")[0] == score] or [score]
        for one in recorded:
            cell, there = row.cells.get(one), published_of(name, table.dataset, one)
            if cell is not None or there is not None:
                lines.append(_line(table, row, one, cell, there))
    return lines


def _line(table: Table, row: Row, score: str, cell: Cell | None, there: Published | None) -> dict:
    metrics = (
        {score: ""} | dict(table.directions)
        if metric_of(score, table.directions) is None
        else table.directions
    )
    low, high = score_range(score, metrics)
    values = [] if there is None else [(there.value, there.std)]
    place = rank(table, score, row)
    label, sentences = ("", []) if there is None or cell is None else difference(table, row, there)
    return {
        "score": score_name(score) + (" ↓" if table.direction(score) == "down" else ""),
        "about": about(score, metrics),
        "dagger": row.is_of_whole_code(score),
        "dataset": dataset_name(table.dataset),
        "source": source_of(table.source)[0],
        "words": row.words,
        "mean": number(cell.mean) if cell else "",
        "std": number(cell.std) if cell and cell.n > 1 else "",
        "interval": _interval(cell, row, score),
        "rank": "–" if place is None else "only row" if place.of == 1 else str(place),
        "note": "reference point" if row.is_reference else (place.note if place else ""),
        "there": there,
        "value": number(there.value) if there else "",
        "deviation": number(there.std) if there and there.std == there.std else "",
        "axis": ""
        if low is None or high is None
        else here_and_published(cell, values, Axis(low, high, WIDTH)),
        "label": label,
        "differs": sentences,
    }


def _interval(cell: Cell | None, row: Row, score: str) -> str:
    if cell is None:
        return row.first.record["left_out"].get(score) or (
            "not computed" if row.applies(score) else "no style block"
        )
    if cell.n == 1:
        return "n = 1, no interval"
    return f"n = {cell.n}, {number(cell.low)} to {number(cell.high)}"


def _merged(lines: list[dict]) -> list[dict]:
    """Return lines of which neighbours share a cell for the dataset, and one for what differs.

    "dataset_rows" and "differs_rows" say over how many lines the cell reaches, 0 in all but the first. What
    differs for some of the scores only has their names before it.
    """
    set_, part = [], []
    for line in lines:
        line["dataset_rows"] = line["differs_rows"] = 0
        if not set_ or any(line[key] != set_[0][key] for key in ("dataset", "source", "words")):
            set_, part = [], []
        elif line["label"] and any(other["label"] not in ("", line["label"]) for other in part):
            part = []
        set_.append(line)
        part.append(line)
        set_[0]["dataset_rows"], part[0]["differs_rows"] = len(set_), len(part)
        part[0]["differs_of"] = list(part)
    for line in lines:
        if line["differs_rows"]:
            labelled = [one for one in line.pop("differs_of") if one["label"]]
            line["shown_label"] = labelled[0]["label"] if labelled else ""
            line["shown"] = _shared(labelled)
    return lines


def _shared(lines: Sequence[dict]) -> list[str]:
    """Return the sentences of lines: those of all first, then the others with the names of their scores."""
    of: dict[str, list[str]] = {}
    for line in lines:
        for sentence in line["differs"]:
            of.setdefault(sentence, []).append(line["score"])
    common = [sentence for sentence, scores in of.items() if len(scores) == len(lines)]
    return common + [
        f"{', '.join(scores)}: {s[0].lower()}{s[1:]}" for s, scores in of.items() if s not in common
    ]


def _elsewhere(name: str, entries: Sequence[tuple[Table, Row]]) -> list[dict]:
    """Return the published values of a model on datasets, or of scores, that have no row here."""
    values = published()
    here = {
        (table.dataset, one)
        for table, row in entries
        for score in row.cells
        for one in (score, score.partition("@")[0])
    }
    lines = []
    for _, line in values[values["method"] == name].iterrows():
        if (line["dataset"], line["metric"]) in here:
            continue
        lines.append(
            {
                "dataset": dataset_name(line["dataset"]),
                "score": score_name(line["metric"]),
                "value": number(line["value"]),
                "std": "" if line["std"] != line["std"] else number(line["std"]),
                "source": source_name(line["source_title"], str(line["source_year"])),
                "table": line["table"],
                "link": line["link"],
            }
        )
    return sorted(lines, key=lambda line: (line["dataset"], line["score"]))
