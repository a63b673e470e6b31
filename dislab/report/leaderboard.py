"""Leaderboards: one row per configuration of finished runs, with the spread over seeds."""

from __future__ import annotations

import json
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

from dislab.errors import DislabError, DislabWarning
from dislab.files import write_own
from dislab.registry import unknown_name
from dislab.report.frame import KEY, direction, directions, in_order, remarks
from dislab.runs.finished import Run
from dislab.runs.record import RECORDS, Results, results_of

RANK_BY = "mig"
FORMATS = ("table", "csv", "markdown", "latex")
PROTOCOL = ("steps", "learning_rate", "batch_size")  # what a row says of it beside its name
PARTS = ("mean", "std", "n", "ci95")
LINE = [
    "row",
    "folder",
    "seed",
    "scored_rows",
    "train_seconds",
    "images_per_second",
    "device",
    "report",
    *PROTOCOL,
]


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
    table, damaged = tabulate(results.each(within=out), rank_by), results.damaged
    if table.empty:
        inner = ", ".join(f"'{path.parent}'" for path in sorted(Path(out).glob(f"*/{RECORDS}")))
        hint = f": name one of the folders {inner}" if inner else "".join(f"; {line}" for line in damaged)
        raise DislabError(f"there is no finished run in '{out}'{hint}")
    table.attrs["damaged"] = damaged
    return table


def tabulate(runs: Iterable[Run], rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return the leaderboard of these runs, see `leaderboard`. No run is kept, so there may be many."""
    lines, keys, scores = [], {}, defaultdict(lambda: array("d"))
    # What the last record says of each metric, and how many of its scores each version of it made.
    about, made = {}, defaultdict(Counter)
    for number, run in enumerate(runs):
        lines.append(_line(run))
        if run.row not in keys:
            keys[run.row] = run.config.key
        for name, value in run.record["scores"].items():
            column = scores[name]
            if len(column) < number:  # the runs before lack it
                column.extend(repeat(np.nan, number - len(column)))
            column.append(value)
        for name, of_metric in run.record["metrics"].items():
            about[name] = of_metric
            if name in run.record["scores"]:
                made[name][of_metric["digest"]] += 1
    if not lines:
        empty = pd.DataFrame(columns=[*KEY, "seeds", "n"])
        empty.attrs = {"directions": {}, "remarks": []}
        return empty
    names = in_order(scores)
    if rank_by not in names and rank_by != RANK_BY:
        raise unknown_name("score to rank by", rank_by, names)
    for column in scores.values():
        column.extend(repeat(np.nan, len(lines) - len(column)))
    each = pd.DataFrame(lines, columns=LINE).astype({"images_per_second": float})
    order = each["folder"].argsort(kind="stable")  # sums are rounded by their order
    each = each.iloc[order]
    values = pd.DataFrame({name: np.frombuffer(scores[name])[order] for name in names}, index=each.index)
    rows = pd.DataFrame.from_dict(keys, orient="index", columns=KEY).join(_rows(each))
    first = [*KEY, *PROTOCOL, "scored_rows", "seeds", "n"]
    frame = rows[first].join(_scores(values, each["row"])).join(rows.drop(columns=first))
    frame["row"], frame["ranked_by"] = frame.index, rank_by
    best = frame.get(f"{rank_by}_mean", pd.Series(np.nan, index=frame.index))
    known = directions([about])
    frame["_best"] = best if direction(rank_by, known) == "down" else -best
    frame = frame.sort_values([*KEY[:4], "_best", *KEY[4:]], kind="stable", ignore_index=True)
    frame = frame.drop(columns="_best")
    shown = {name: better for name, better in known.items() if name in scores}
    frame.attrs = {"directions": shown, "remarks": remarks(made)}
    return frame


def _line(run: Run) -> tuple:
    """Return what LINE names of a run."""
    record = run.record
    config, timings = record["config"], record["timings"]
    return (
        *(run.row, record["folder"], config["seed"], record["scored_rows"], timings["train_seconds"]),
        *(timings["train_images_per_second"], record["environment"]["device"]),
        json.dumps(record["report"]) if record["report"] else "",
        *(config["protocol"][name] for name in PROTOCOL),
    )


def _rows(each: pd.DataFrame) -> pd.DataFrame:
    """Return what the runs of a row share, their seeds, and what they cost; the index is the row."""
    each = each.sort_values("seed")
    seeds, devices = {}, {}
    for row, seed, device in zip(each["row"], each["seed"], each["device"], strict=True):
        seeds.setdefault(row, []).append(str(seed))
        devices.setdefault(row, set()).add(device)
    table = each.groupby("row", sort=False).agg(
        **{name: (name, "first") for name in (*PROTOCOL, "scored_rows", "report")},
        **{name: (name, "mean") for name in ("train_seconds", "images_per_second")},
    )
    table["seeds"] = [" ".join(seeds[row]) for row in table.index]
    table["n"] = [len(seeds[row]) for row in table.index]
    table["device"] = [" ".join(sorted(devices[row])) for row in table.index]
    return table


def _scores(values: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """Return mean, std, n and ci95 of every score; the index is the row.

    Parameters
    ----------
    values : a line for each run, a column for each score.
    rows : of the runs.
    """
    from scipy.special import stdtrit

    groups = values.groupby(rows, sort=False)
    mean, std, number = groups.mean(), groups.std(), groups.count()
    different, index = np.unique(number, return_inverse=True)  # a quantile takes long, and few n differ
    quantile = np.where(different > 1, stdtrit(different - 1, 0.975), np.nan)
    ci95 = quantile[index].reshape(number.shape) * std / np.sqrt(number)
    parts = dict(zip(PARTS, (mean, std, number, ci95), strict=True))
    return pd.DataFrame({f"{name}_{part}": parts[part][name] for name in values for part in PARTS})


def write_leaderboard(results: Results, rank_by: str = RANK_BY, title: str = "") -> Path:
    """Write leaderboard.csv of a results folder, and with a title also leaderboard.md; return the first.

    Processes that do so at once wait for one another.

    Raises
    ------
    DislabError : one of the files is there, and dislab did not write it.
    """
    path = results.folder / "leaderboard.csv"
    with results.lock():  # so that whoever writes last has read all
        table = tabulate(results.each(), rank_by)
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
