"""Leaderboards: one row per configuration of finished runs, with the spread over seeds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from dislab.errors import DislabError, DislabWarning
from dislab.files import write_own
from dislab.registry import unknown_name
from dislab.report.frame import KEY, direction, directions, keys_of, remarks, score_names, tidy
from dislab.runs.finished import Run
from dislab.runs.record import RECORDS, Results, results_of

RANK_BY = "mig"
FORMATS = ("table", "csv", "markdown", "latex")
PROTOCOL = ("steps", "learning_rate", "batch_size")  # what a row says of it beside its name
PARTS = ("mean", "std", "n", "ci95")


def leaderboard(out: str | Path = "results", rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return one row per configuration of the runs in a results folder.

    Columns: those of `dislab.report.frame.KEY`, steps, learning_rate, batch_size, scored_rows, `seeds`, `n`
    (number of seeds), and for each score its mean, std (ddof 1), n and ci95, the half-width of the 95%
    interval of the mean (Student's t; empty for a single seed); then `train_seconds` and `images_per_second`
    (means over seeds), device, report, row (the configuration's digest) and ranked_by. Rows of one
    dataset, source, protocol and hold-out stand together, best first by the score `rank_by`. `attrs` has the
    "directions" of the metrics, score -> "up", "down" or "", and the `remarks` of dislab.report.frame.

    A record that is damaged is left out, and a `DislabWarning` names its run.

    Raises
    ------
    DislabError : the folder does not exist, holds no finished run, or no run has the score `rank_by`.
    """
    table = table_of(out, rank_by)
    for line in table.attrs["damaged"]:
        warnings.warn(line, DislabWarning, stacklevel=2)
    return table


def table_of(out: str | Path, rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return what `leaderboard` does; the `attrs` of the table name the "damaged" records."""
    results = results_of(out)
    runs, damaged = results.runs(within=out), results.damaged
    if not runs:
        inner = ", ".join(f"'{path.parent}'" for path in sorted(Path(out).glob(f"*/{RECORDS}")))
        hint = f": name one of the folders {inner}" if inner else "".join(f"; {line}" for line in damaged)
        raise DislabError(f"there is no finished run in '{out}'{hint}")
    table = tabulate(runs, rank_by)
    table.attrs["damaged"] = damaged
    return table


def tabulate(runs: Iterable[Run], rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return the leaderboard of these runs, see `leaderboard`."""
    runs = list(runs)
    if not runs:
        empty = pd.DataFrame(columns=[*KEY, "seeds", "n"])
        empty.attrs = {"directions": {}, "remarks": []}
        return empty
    names = score_names(runs)
    if rank_by not in names and rank_by != RANK_BY:
        raise unknown_name("score to rank by", rank_by, names)
    rows = _rows(runs)
    first = [*KEY, *PROTOCOL, "scored_rows", "seeds", "n"]
    frame = rows[first].join(_scores(runs, names)).join(rows.drop(columns=first))
    frame["row"], frame["ranked_by"] = frame.index, rank_by
    best = frame.get(f"{rank_by}_mean", pd.Series(np.nan, index=frame.index))
    known = directions(runs)
    frame["_best"] = best if direction(rank_by, known) == "down" else -best
    frame = frame.sort_values([*KEY[:4], "_best", *KEY[4:]], kind="stable", ignore_index=True)
    frame = frame.drop(columns="_best")
    shown = {name: better for name, better in known.items() if name in names}
    frame.attrs = {"directions": shown, "remarks": remarks(runs)}
    return frame


def _rows(runs: list[Run]) -> pd.DataFrame:
    """Return what the runs of a row share, their seeds, and what they cost; the index is the row."""
    lines = [
        {
            "row": run.row,
            "seed": run.record["config"]["seed"],
            "scored_rows": run.record["scored_rows"],
            "train_seconds": run.record["timings"]["train_seconds"],
            "images_per_second": run.record["timings"]["train_images_per_second"],
            "device": run.record["environment"]["device"],
            "report": json.dumps(run.record["report"]) if run.record["report"] else "",
            **{name: run.record["config"]["protocol"][name] for name in PROTOCOL},
        }
        for run in runs
    ]
    frame = pd.DataFrame(lines).astype({"images_per_second": float})
    table = (
        frame.sort_values("seed")
        .groupby("row", sort=False)
        .agg(
            **{name: (name, "first") for name in (*PROTOCOL, "scored_rows", "report")},
            **{name: (name, "mean") for name in ("train_seconds", "images_per_second")},
            seeds=("seed", lambda seeds: " ".join(map(str, seeds))),
            n=("seed", "count"),
            device=("device", lambda devices: " ".join(sorted(set(devices)))),
        )
    )
    return keys_of(runs).join(table)


def _scores(runs: list[Run], names: list[str]) -> pd.DataFrame:
    """Return mean, std, n and ci95 of every score; the index is the row."""
    from scipy.stats import t

    if not names:  # no run was asked for a score
        return pd.DataFrame(index=pd.Index([], dtype=object))
    table = tidy(runs).groupby(["row", "score"])["value"].agg(mean="mean", std="std", n="count")
    freedom = (table["n"] - 1).where(table["n"] > 1)
    table["ci95"] = t.ppf(0.975, freedom) * table["std"] / np.sqrt(table["n"])
    wide = table.unstack("score")
    wide["n"] = wide["n"].fillna(0).astype(int)
    return pd.DataFrame({f"{name}_{part}": wide[part, name] for name in names for part in PARTS})


def write_leaderboard(results: Results, rank_by: str = RANK_BY, title: str = "") -> Path:
    """Write leaderboard.csv of a results folder, and with a title also leaderboard.md; return the first.

    Processes that do so at once wait for one another.

    Raises
    ------
    DislabError : one of the files is there, and dislab did not write it.
    """
    path = results.folder / "leaderboard.csv"
    with results.lock():  # so that whoever writes last has read all
        table = tabulate(results.runs(), rank_by)
        write_own(path, table.to_csv(index=False, float_format="%.6g").encode())
        if title:
            about = f"Best first by {rank_by}; mean ± standard deviation over n seeds."
            heading = f"<!-- made by dislab -->\n# {title}\n\n{about}\n\n"
            write_own(path.with_suffix(".md"), (heading + render(table, "markdown")).encode())
    return path


def short_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard for reading: key, number of seeds, `mean ± std` of each metric's score.

    A cell of fewer seeds than its row says so: `0.123 (n=1)`.
    """
    table = frame[KEY].copy()
    table["n"] = frame["n"]
    for score in frame.attrs["directions"]:
        if not frame[f"{score}_mean"].isna().all():
            columns = (frame[f"{score}_{part}"] for part in ("mean", "std", "n"))
            table[score] = [cell(*numbers) for numbers in zip(*columns, frame["n"], strict=True)]
    return table


def cell(mean: float, std: float, n: int, seeds: int) -> str:
    """Return the text of a score of n of a row's seeds."""
    spread = "" if pd.isna(std) else f" ± {std:.3f}"
    return "" if pd.isna(mean) else f"{mean:.3f}{spread}" + ("" if n == seeds else f" (n={n})")


def render(frame: pd.DataFrame, style: str) -> str:
    """Return the leaderboard as text: "csv" with every column, "table", "markdown" or "latex" for reading."""
    if style == "csv":
        return frame.to_csv(index=False, float_format="%.6g")
    table = short_table(frame).astype(str)
    if style == "table":
        return table.to_string(index=False) + "\n"
    if style == "markdown":
        lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
        return "".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
        )
    columns = "l" * len(KEY) + "r" * (len(table.columns) - len(KEY))
    shown = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    return shown.to_latex(column_format=columns, hrules=True).replace("±", r"$\pm$")
