"""Leaderboards: as a frame, as the files that lie in a results folder, and as text."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from dislab.errors import DislabWarning
from dislab.files import write_own
from dislab.report.board import PARTS, RANK_BY, Board, board_of, tabulated
from dislab.report.frame import KEY, in_order
from dislab.report.names import headlines, label_of
from dislab.report.tables import as_json, every_score, latex, markdown, text_of
from dislab.runs.finished import Run
from dislab.runs.record import Results
from dislab.scoring.protocols import protocol_of

FORMATS = ("table", "csv", "markdown", "latex", "json")
RUN_OF = KEY[:6]  # what a line of scores.csv says of its run, beside the row and the seed


def leaderboard(out: str | Path = "results", rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return one row per configuration of the runs in a results folder.

    Columns: those of `dislab.report.frame.KEY`, steps, learning_rate, batch_size, scored_rows, `seeds`, `n`
    (number of seeds), and for each score its mean, std (ddof 1), n and ci95, the half-width of the 95%
    interval of the mean (Student's t; empty for a single seed); then `train_seconds` and `images_per_second`
    (means over seeds), device, report, row (the configuration's digest) and ranked_by. Rows of one
    dataset, source, protocol and hold-out stand together, best first by the score `rank_by`; if neither up
    nor down is better for it, they are not ranked. `attrs` has the "directions" of the metrics, score ->
    "up", "down" or "", and the `remarks` of dislab.report.frame. A score that does not apply to a row is
    empty, see `applicable`.

    A record that is damaged is left out, and a `DislabWarning` names its run.

    Raises
    ------
    DislabError : the folder does not exist, holds no finished run, or no run has the score `rank_by`.
    """
    board = board_of(out, rank_by)
    for line in board.damaged:
        warnings.warn(line, DislabWarning, stacklevel=2)
    return board.frame


def tabulate(runs: Iterable[Run], rank_by: str = RANK_BY) -> pd.DataFrame:
    """Return the leaderboard of these runs, see `leaderboard`. No run is kept, so there may be many."""
    return tabulated(runs, rank_by).frame


def write_leaderboard(results: Results, rank_by: str = RANK_BY, title: str = "") -> Path:
    """Write leaderboard.csv and scores.csv of a results folder, and with a title also leaderboard.md.

    Processes that do so at once wait for one another.

    Returns
    -------
    The path of leaderboard.csv.

    Raises
    ------
    DislabError : one of the files is there, and dislab did not write it.
    """
    path = results.folder / "leaderboard.csv"
    with results.lock():  # so that whoever writes last has read all
        board = tabulated(results.each(), rank_by)
        write_own(path, render(board, "csv").encode())
        write_own(path.with_name("scores.csv"), tidy_csv(board).encode())
        if title:
            about = f"Best first by {label_of(rank_by)}; mean ± standard deviation over n seeds."
            heading = f"<!-- made by dislab -->\n# {title}\n\n{about}\n\n"
            write_own(path.with_suffix(".md"), (heading + render(board, "markdown")).encode())
    return path


def render(board: Board, style: str, scores: Sequence[str] | None = None, width: int = 120) -> str:
    """Return a leaderboard as text in one of FORMATS.

    Parameters
    ----------
    scores : those to show; by default the headline scores.
    width : most characters of a line of "table".
    """
    scores = shown_in(board) if scores is None else scores
    if style == "table":
        return text_of(board, scores, width)
    return {"csv": short_csv, "markdown": markdown, "latex": latex, "json": as_json}[style](board, scores)


def render_all(board: Board, style: str, width: int = 120) -> str:
    """Return a leaderboard with every score and interval as text in one of FORMATS."""
    if style == "csv":
        return as_csv(board.frame)
    if style == "table":
        return every_score(board, width)
    return render(board, style, in_order(board.values))


def shown_in(board: Board) -> list[str]:
    """Return the scores that a table of this leaderboard shows if none is named."""
    first = board.frame["ranked_by"].iloc[0] if len(board.frame) else ""
    return headlines(board.directions, first)


def short_csv(board: Board, scores: Sequence[str]) -> str:
    """Return a leaderboard as CSV: mean, std and n of these scores. With 8 of them it has 40 columns."""
    columns = [f"{score}_{part}" for score in scores for part in PARTS[:3]]
    first = [*KEY, "steps", "scored_rows", "seeds", "n"]
    last = ["train_seconds", "images_per_second", "device", "row", "ranked_by"]
    return as_csv(board.frame[[*first, *columns, *last]])


def as_csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6g")


def tidy_csv(board: Board) -> str:
    """Return a line for each run and score that applies to it, as CSV.

    Columns: row (as in leaderboard.csv), dataset, source, protocol, hold_out, group_by, model, seed, score,
    value, metric_protocol (by which the score is computed) and direction ("up" or "down" is better; "" if
    neither is, or it is not known).
    """
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(["row", *RUN_OF, "seed", "score", "value", "metric_protocol", "direction"])
    keys = {row: [row, *config.key.values()][: 1 + len(RUN_OF)] for row, config in board.configs.items()}
    about = [(score, protocol_of(score), board.directions.get(score, "")) for score in board.values]
    for (row, seed), values in zip(board.values.index, board.values.to_numpy().tolist(), strict=True):
        for (score, protocol, better), value in zip(about, values, strict=True):
            if value == value:
                write([*keys[row], seed, score, value, protocol, better])
    return text.getvalue()
