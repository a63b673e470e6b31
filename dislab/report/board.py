"""The rows of a leaderboard: one per configuration of finished runs, with the spread over seeds."""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

from dislab.errors import DislabError
from dislab.registry import unknown_name
from dislab.report.frame import KEY, applies, direction, directions, half_width, in_order, remarks
from dislab.runs.config import EXTERNAL, RunConfig
from dislab.runs.finished import Run
from dislab.runs.record import RECORDS, results_of

RANK_BY = "mig"
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


@dataclass(frozen=True)
class Board:
    """A leaderboard with what its tables for reading need.

    Attributes
    ----------
    frame : see `leaderboard`.
    values : a line for each run and a column for each score; the index is row and seed.
    configs : the configuration of a run of each row, by row.
    damaged : a line for each record that is left out.
    """

    frame: pd.DataFrame
    values: pd.DataFrame
    configs: dict[str, RunConfig]
    damaged: list[str]

    @property
    def directions(self) -> dict[str, str]:
        return self.frame.attrs["directions"]


def board_of(out: str | Path, rank_by: str = RANK_BY) -> Board:
    """Return the leaderboard of a results folder; the errors are those of `leaderboard`."""
    results = results_of(out)
    board = tabulated(results.each(within=out), rank_by)
    damaged = results.damaged
    if board.frame.empty:
        inner = ", ".join(f"'{path.parent}'" for path in sorted(Path(out).glob(f"*/{RECORDS}")))
        hint = f": name one of the folders {inner}" if inner else "".join(f"; {line}" for line in damaged)
        raise DislabError(f"there is no finished run in '{out}'{hint}")
    return replace(board, damaged=damaged)


def tabulated(runs: Iterable[Run], rank_by: str = RANK_BY) -> Board:
    """Return the leaderboard of these runs with what its tables need. No run is kept."""
    lines, configs, scores = [], {}, defaultdict(lambda: array("d"))
    # What the last record says of each metric, and how many of its scores each version of it made.
    about, made = {}, defaultdict(Counter)
    for number, run in enumerate(runs):
        lines.append(_line(run))
        if run.row not in configs:
            configs[run.row] = run.config
        for name, value in applicable(run.record):
            column = scores[name]
            if len(column) < number:  # the runs before lack it
                column.extend(repeat(np.nan, number - len(column)))
            column.append(value)
        for name, of_metric in run.record["metrics"].items():
            about[name] = of_metric
            if name in run.record["scores"]:
                made[name][of_metric["digest"]] += 1
    if not lines:
        empty = pd.DataFrame(
            columns=[*KEY, *(name for name in LINE if name != "folder"), "seeds", "n", "ranked_by"]
        )
        empty.attrs = {"directions": {}, "remarks": []}
        return Board(empty, pd.DataFrame(), {}, [])
    names = in_order(scores)
    if rank_by not in names and rank_by != RANK_BY:
        raise unknown_name("score to rank by", rank_by, names)
    for column in scores.values():
        column.extend(repeat(np.nan, len(lines) - len(column)))
    each = pd.DataFrame(lines, columns=LINE).astype({"train_seconds": float, "images_per_second": float})
    order = each["folder"].argsort(kind="stable")  # sums are rounded by their order
    each = each.iloc[order]
    values = pd.DataFrame({name: np.frombuffer(scores[name])[order] for name in names}, index=each.index)
    keys = {row: config.key for row, config in configs.items()}
    rows = pd.DataFrame.from_dict(keys, orient="index", columns=KEY).join(_rows(each))
    first = [*KEY, *PROTOCOL, "scored_rows", "seeds", "n"]
    frame = rows[first].join(_scores(values, each["row"])).join(rows.drop(columns=first))
    frame["row"], frame["ranked_by"] = frame.index, rank_by
    known = directions([about])
    better = direction(rank_by, known) if rank_by in scores else ""
    frame = ranked(frame, rank_by, better, frame[KEY[:4]])
    shown = {name: better for name, better in known.items() if name in scores}
    frame.attrs = {"directions": shown, "remarks": remarks(made)}
    values.index = pd.MultiIndex.from_frame(each[["row", "seed"]])
    return Board(frame, values, configs, [])


def ranked(frame: pd.DataFrame, score: str, better: str, first: pd.DataFrame) -> pd.DataFrame:
    """Return rows sorted by the columns of `first`, then best first by a score that has a direction."""
    sign = {"up": -1, "down": 1}.get(better, 0)
    best = sign * frame[f"{score}_mean"] if sign else pd.Series(0, index=frame.index)
    others = [name for name in KEY if name not in first]
    keys = pd.concat([first, best.rename("best"), frame[others]], axis=1)
    return frame.loc[keys.sort_values(list(keys), kind="stable").index].reset_index(drop=True)


def applicable(record: Mapping) -> list[tuple[str, float]]:
    """Return the scores of a record that apply to its codes, see `dislab.report.frame.applies`."""
    blocks = record.get("blocks", ())
    return [(name, value) for name, value in record["scores"].items() if applies(name, blocks)]


def _line(run: Run) -> tuple:
    """Return what LINE names of a run."""
    record = run.record
    config, timings = record["config"], record["timings"]
    return (
        *(run.row, record["folder"], config["seed"], record["scored_rows"], timings["train_seconds"]),
        *(timings["train_images_per_second"], record["environment"]["device"]),
        json.dumps(record["report"]) if record["report"] else "",
        config["protocol"]["steps"],
        # What is not known of the codes of another program.
        *(np.nan if config["source"] == EXTERNAL else config["protocol"][name] for name in PROTOCOL[1:]),
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
    groups = values.groupby(rows, sort=False)
    mean, std, number = groups.mean(), groups.std(), groups.count()
    parts = dict(zip(PARTS, (mean, std, number, half_width(std, number)), strict=True))
    return pd.DataFrame({f"{name}_{part}": parts[part][name] for name in values for part in PARTS})
