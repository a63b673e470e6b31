"""Published numbers as tables beside a leaderboard; they are never ranked with its rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from dislab.report.names import DATASETS, label_of
from dislab.report.published import published
from dislab.report.tables import MISSING, booktabs, cell, fitted, pipes, tex, wrapped

COLUMNS = ["method", "supervision", "source_title", "steps", "n"]  # that the values of a line share


def published_beside(datasets: Iterable[str] | None, scores: Sequence[str]) -> pd.DataFrame:
    """Return the published values of these scores, of exactly these datasets or, if None, of all."""
    table = published()
    if datasets is not None:
        table = table[table["dataset"].isin(list(datasets))]
    return table[table["metric"].isin(list(scores))].reset_index(drop=True)


def render_published(datasets: Iterable[str] | None, scores: Sequence[str], style: str, width: int) -> str:
    """Return the published values of these scores as text: for each dataset a table, and its sources.

    Parameters
    ----------
    datasets : None takes all that have any.
    style : "table", "markdown" or "latex"; or "csv" or "json", which give a line for each value.
    width : most characters of a line of "table".
    """
    table = published_beside(datasets, scores)
    if style == "csv":
        return table.to_csv(index=False)
    if style == "json":
        return table.to_json(orient="records", indent=1) + "\n"
    names = sorted(table["dataset"].unique()) if datasets is None else list(datasets)
    texts = [_text(name, table[table["dataset"] == name], scores, style, width) for name in names]
    return "\n".join(texts)


def _text(dataset: str, table: pd.DataFrame, scores: Sequence[str], style: str, width: int) -> str:
    about = f"published for {dataset}, each by its own protocol: not ranked with rows of this program"
    if table.empty:
        return _wrapped(f"no published numbers for {dataset} and these scores", style, width)
    sources = {
        title: f"[{number}]" for number, title in enumerate(table["source_title"].drop_duplicates(), start=1)
    }
    lines = _lines(table)
    columns = [["method", *(f"{line['method']} {sources[line['source_title']]}" for line in lines)]]
    for name, head in (("n", "n"), ("steps", "steps")):
        texts = ["" if pd.isna(line[name]) else f"{line[name]:,}" for line in lines]
        columns += [[head, *texts]] if any(texts) else []
    fixed = len(columns)
    for score in scores:
        texts = [cell(*line["values"].get(score, (math.nan, math.nan)), 1, 1) for line in lines]
        columns += [[label_of(score), *(text or MISSING for text in texts)]] if any(texts) else []
    below = [
        f"{sources[title]} {_source(of_source)}"
        for title, of_source in table.groupby("source_title", sort=False)
    ]
    below.append(f"`dislab.published(dataset='{dataset}')` has their tables, and what differs in protocol")
    if style == "table":
        shown, number = fitted(columns, width, fixed)
        if number < len(columns):
            below.append(
                f"too wide for {width} columns: {', '.join(column[0] for column in columns[number:])}"
            )
        body = "\n".join(shown) + "\n"
    elif style == "markdown":
        body = "\n" + pipes(columns) + "\n"
    else:
        about = about.replace(dataset, DATASETS.get(dataset, dataset))
        body = booktabs([[tex(text) for text in column] for column in columns]) + "\n"
    return _wrapped(about, style, width) + body + "".join(_wrapped(text, style, width) for text in below)


def _wrapped(text: str, style: str, width: int) -> str:
    if style == "table":
        return "\n".join(wrapped(text, width)) + "\n"
    return f"% {text}\n" if style == "latex" else f"\n{text}\n"


def _lines(table: pd.DataFrame) -> list[dict]:
    """Return a line for the values of one method, source, number of steps and of seeds.

    A source that prints a score several times, such as for other settings, has a line for each.
    """
    lines: dict[tuple, list[dict]] = {}
    for row in table.sort_values(["method", "source_title", "steps"], kind="stable").to_dict("records"):
        alike = lines.setdefault(tuple(str(row[name]) for name in COLUMNS), [])
        line = next((line for line in alike if row["metric"] not in line["values"]), None)
        if line is None:
            line = {name: row[name] for name in COLUMNS} | {"values": {}}
            alike.append(line)
        line["values"][row["metric"]] = (row["value"], row["std"])
    return [line for alike in lines.values() for line in alike]


def _source(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    year = "" if pd.isna(first["source_year"]) else str(first["source_year"])
    return ", ".join(text for text in (first["source_title"], year, first["link"]) if text)
