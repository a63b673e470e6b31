"""Leaderboards: computed from finished run folders, one row per configuration, with spread over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from dislab.errors import DislabError
from dislab.files import write_atomically
from dislab.registry import METRICS, Entry, unknown_name
from dislab.runs.run import Run, find_runs

KEY = ["dataset", "source", "protocol", "hold_out", "group_by", "model", "hyperparameters"]
RANK_BY = "mig"
FORMATS = ("table", "csv", "markdown", "latex")


def leaderboard(out: str | Path = "results", rank_by: str = RANK_BY) -> pd.DataFrame:
    """One row per configuration (the columns of KEY) of the runs below a folder.

    Columns: the key, `seeds`, `n` (number of seeds), and for each score its mean, std (ddof 1), n and ci95,
    the half-width of the 95% interval of the mean (Student's t; empty for a single seed); then
    `train_seconds` and `images_per_second` (means over seeds) and the device. Rows of one dataset, source,
    protocol and hold-out stand together, best first by the score `rank_by`.

    Raises
    ------
    DislabError : the folder does not exist, or no run has the score `rank_by`.
    """
    if not Path(out).is_dir():
        raise DislabError(f"results folder '{out}' does not exist")
    return tabulate(find_runs(out), rank_by)


def tabulate(runs: Iterable[Run], rank_by: str = RANK_BY) -> pd.DataFrame:
    """The leaderboard of the given runs, see `leaderboard`."""
    rows: dict[tuple, list[Run]] = {}
    for run in runs:
        # Runs of another version, whose protocol of this name had other settings, are rows of their own.
        settings = json.dumps(run.config["protocol"], sort_keys=True)
        rows.setdefault((*row_key(run), settings), []).append(run)
    if not rows:
        return pd.DataFrame(columns=[*KEY, "seeds", "n"])
    names = _score_names(run for group in rows.values() for run in group)
    if rank_by not in names and rank_by != RANK_BY:
        raise unknown_name("score to rank by", rank_by, names)
    frame = pd.DataFrame([_row(key[:-1], group, names) for key, group in rows.items()])
    frame["ranked_by"] = rank_by
    best = frame.get(f"{rank_by}_mean", pd.Series(np.nan, index=frame.index))
    frame["_best"] = best if direction(rank_by) == "down" else -best
    frame = frame.sort_values([*KEY[:4], "_best", *KEY[4:]], kind="stable", ignore_index=True)
    return frame.drop(columns="_best")


def row_key(run: Run) -> tuple[str, ...]:
    """What two runs share that differ in the seed only, as texts in the order of KEY."""
    config = run.config
    parameters = " ".join(f"{name}={value}" for name, value in config["hyperparameters"].items())
    protocol = config["protocol"]["name"]
    return (
        config["dataset"],
        config["source"],
        protocol,
        config["hold_out"],
        " & ".join("+".join(names) for names in config["group_by"]),
        config["model"],
        parameters,
    )


def write_leaderboard(out: str | Path, rank_by: str = RANK_BY) -> Path:
    """Compute the leaderboard of a results folder and write it to leaderboard.csv there."""
    path = Path(out) / "leaderboard.csv"
    write_atomically(path, leaderboard(out, rank_by).to_csv(index=False, float_format="%.6g").encode())
    return path


def home(score: str) -> Entry | None:
    """The metric that a score or a value beside one comes from: content_entropy for content_entropy_k10.

    None for one whose metric is not registered here.
    """
    name = score.partition("@")[0]
    homes = [entry for entry in METRICS if name == entry.name or name.startswith(f"{entry.name}_")]
    return max(homes, key=lambda entry: len(entry.name), default=None)


def direction(score: str) -> str:
    """Whether "up" or "down" is better for a score, "" where neither is; "up" where its metric is unknown."""
    metric = home(score)
    return metric.direction if metric else "up"


def short_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard for reading: `mean ± std` per metric's score, the key, and the number of seeds."""
    table = frame[KEY].copy()
    table["n"] = frame["n"]
    for score in main_scores(frame):
        if not frame[f"{score}_mean"].isna().all():
            table[score] = [
                "" if pd.isna(mean) else f"{mean:.3f}" if pd.isna(std) else f"{mean:.3f} ± {std:.3f}"
                for mean, std in zip(frame[f"{score}_mean"], frame[f"{score}_std"], strict=True)
            ]
    return table


def main_scores(frame: pd.DataFrame) -> list[str]:
    """The scores of a leaderboard that metrics are named after, without related ones (content_accuracy_k10).

    A name that no metric registered here is a plug-in's, and stands where no other name is its beginning.
    """
    names = [column.removesuffix("_mean") for column in frame.columns if column.endswith("_mean")]

    def is_main(name: str) -> bool:
        plain, metric = name.partition("@")[0], home(name)
        return plain == metric.name if metric else not any(plain.startswith(f"{other}_") for other in names)

    return [name for name in names if is_main(name)]


def render(frame: pd.DataFrame, style: str) -> str:
    """The leaderboard as text: "csv" with every column, "table", "markdown" or "latex" for reading."""
    if style == "csv":
        return frame.to_csv(index=False, float_format="%.6g")
    if style not in FORMATS:
        raise unknown_name("format", style, FORMATS)
    table = short_table(frame).astype(str)
    if style == "table":
        return table.to_string(index=False) + "\n"
    if style == "markdown":
        lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
        return "".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
        )
    lines = [[_latex(cell) for cell in line] for line in [list(table.columns), *table.to_numpy().tolist()]]
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    columns = "l" * len(KEY) + "r" * (len(table.columns) - len(KEY))
    rules = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        head,
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(rules) + "\n"


def _latex(text: str) -> str:
    escapes = {sign: f"\\{sign}" for sign in "_%&#${}"}
    escapes |= {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }
    return text.translate(str.maketrans(escapes))


def _score_names(runs: Iterable[Run]) -> list[str]:
    """All score names, the registered ones first and in the order of the registry."""
    found = dict.fromkeys(name for run in runs for name in run.scores)
    order = {entry.name: position for position, entry in enumerate(METRICS)}
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def _row(key: tuple[str, ...], runs: list[Run], names: list[str]) -> dict:
    from scipy.stats import t

    # A copy of a run's folder is not another seed: the one finished last counts.
    runs = sorted(runs, key=lambda run: run.record["environment"]["finished"])
    runs = [run for _, run in sorted({run.config["seed"]: run for run in runs}.items())]
    row = dict(zip(KEY, key, strict=True))
    protocol = runs[0].config["protocol"]
    row |= {name: protocol[name] for name in ("steps", "learning_rate", "batch_size")}
    row["scored_rows"] = runs[0].record["scored_rows"]
    row |= {"seeds": " ".join(str(run.config["seed"]) for run in runs), "n": len(runs)}
    for name in names:
        values = np.array([run.scores[name] for run in runs if name in run.scores])
        count = len(values)
        std = values.std(ddof=1) if count > 1 else np.nan
        row[f"{name}_mean"] = values.mean() if count else np.nan
        row[f"{name}_std"] = std
        row[f"{name}_n"] = count
        row[f"{name}_ci95"] = t.ppf(0.975, count - 1) * std / np.sqrt(count) if count > 1 else np.nan
    timings = pd.DataFrame([run.record["timings"] for run in runs]).astype(float)
    row["train_seconds"] = timings["train_seconds"].mean()
    row["images_per_second"] = timings["train_images_per_second"].mean()
    row["device"] = " ".join(sorted({run.record["environment"]["device"] for run in runs}))
    row["report"] = json.dumps(runs[0].record["report"]) if runs[0].record["report"] else ""
    return row
